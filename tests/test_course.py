"""What a run goes through: what a whole run on real parts shows too seldom."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog
from builders import generation
from growing import Growing, growing_log

from mmzero_async.config import load
from mmzero_async.engines.errors import PolicyNotLoaded
from mmzero_async.ops.course import Course, Helm
from mmzero_async.schemas.events import Evaluated, Event, Generation, PolicyPublished

CONFIG = load("seedling", ["eval.scenes=3"])


def published(version: int) -> PolicyPublished:
    name = f"solver@{version}"
    return PolicyPublished(role="solver", version=version, policy=name, checkpoint="c", digest="d")


class FakeEngine:
    """Serves `held`; a request for another policy calls `lacking` and is refused."""

    def __init__(self, held: str, lacking: Callable[[], None]) -> None:
        self.held, self.lacking = held, lacking

    async def generate(self, *_: Any, policy: str, version: int, **__: Any) -> Generation:
        if policy != self.held:
            self.lacking()
            raise PolicyNotLoaded(f"{policy} is not served")
        return generation("solver", ["<think>1</think>\\boxed{1}"], version)


class Line:
    """The line to the log server: straight into the log."""

    trouble = ""

    def __init__(self, log: Growing) -> None:
        self.log = log

    async def append(self, events: Sequence[Event]) -> list[int]:
        for event in events:
            self.log.say(event)
        return []


def course(log: Growing, engine: FakeEngine) -> Course:
    async def no_figures() -> dict[str, float]:
        return {}

    helm = Helm(
        config=CONFIG,
        say=lambda _: None,
        progress=lambda *_: None,
        logger=structlog.get_logger(),
        figures=no_figures,
        trouble=lambda: "",
    )
    return Course(helm, log.writer.reader(), Line(log), engine)  # type: ignore[arg-type]


def scores(log: Growing) -> list[tuple[str, int, int]]:
    events = (record.event() for record in log.writer.reader().scan())
    return [
        (e.mode, e.version, sum(asked for _, asked in e.by_kind.values()))
        for e in events
        if isinstance(e, Evaluated)
    ]


def test_a_solver_that_is_replaced_while_it_is_scored_leaves_the_score_to_the_newer_one(
    tmp_path: Path,
) -> None:
    with growing_log(tmp_path) as log:
        log.say(published(5))
        replaced = iter([published(7)])

        def lacking() -> None:
            for event in replaced:
                log.say(event)

        it = course(log, FakeEngine("solver@7", lacking))

        async def scored() -> None:
            await it.catch_up()
            await it.evaluated("after")

        asyncio.run(scored())
        assert scores(log) == [("greedy", 7, 6), ("sampled", 7, 6)]


def test_a_solver_that_nobody_serves_and_nobody_replaced_ends_the_run_with_its_name(
    tmp_path: Path,
) -> None:
    with growing_log(tmp_path) as log:
        log.say(published(5))
        it = course(log, FakeEngine("solver@4", lambda: None))

        async def scored() -> None:
            await it.catch_up()
            await it.evaluated("after")

        with pytest.raises(ExceptionGroup) as told:
            asyncio.run(scored())
        assert told.group_contains(PolicyNotLoaded, match="solver@5")
        assert scores(log) == []
