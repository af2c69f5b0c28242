"""Whole runs under a schedule: real processes, the tiny model, a fake engine."""

import asyncio
import json
import random
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest
from nursery import Nursery

from mmzero_async.learner import checkpoint
from mmzero_async.log.reader import LogReader
from mmzero_async.schemas.events import (
    ROLES,
    AnyEvent,
    PolicyPublished,
    RunFinished,
    StepCommitted,
)

TURNS = [
    "schedule.mode=sequential",
    *(f"schedule.steps.{role}=2" for role in ROLES),
    "schedule.iterations=2",
]


def events_of(run: Path) -> list[AnyEvent]:
    reader = LogReader.open(run / "log")
    events = [record.event() for record in reader.scan()]
    reader.close()
    return events


def turns(events: list[AnyEvent]) -> list[tuple[str, int]]:
    steps = (event.role for event in events if isinstance(event, StepCommitted))
    return [(role, len(list(same))) for role, same in groupby(steps)]


def replayed(run: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mmzero_async.ops.cli", "replay", str(run), *options]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_learner_that_is_killed_within_a_turn_goes_on_with_it(
    tmp_path: Path, tiny_folder: Path
) -> None:
    from torture_pipeline import LEARNER, LOG_SERVER, Run

    folder = tmp_path / "run"
    folder.mkdir()
    rng = random.Random(3)
    with (
        Nursery("pipeline_children") as nursery,
        Run(nursery, folder, tiny_folder, rng, TURNS) as run,
    ):
        killed = set()
        while not run.audit.pipeline.schedule.over:
            run.gets_on(steps=1)
            phase = run.audit.pipeline.schedule.phase
            if phase is not None and phase.done and phase.role not in killed:
                killed.add(phase.role)
                run.kill(LEARNER)
                if len(killed) == 2:
                    run.kill(LOG_SERVER)
        assert killed
        run.finish()
    events = events_of(folder)
    assert turns(events) == [(role, 2) for role in ROLES] * 2
    told = replayed(folder, "--audit", "--json")
    assert told.returncode == 0, told.stdout + told.stderr
    found = json.loads(told.stdout)
    assert found["audit"]["clean"] and found["rebuilt"]["differences"] == []
    again = replayed(folder, "--train", "--json")
    assert again.returncode == 0, again.stdout + again.stderr
    assert [json.loads(line)["same"] for line in again.stdout.splitlines()] == [True] * 12


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_ends_with_its_schedule_and_another_begins_where_it_ended(
    tmp_path: Path, tiny_folder: Path
) -> None:
    from pipeline_children import TinyEngine, respond
    from torture_pipeline import settings

    from mmzero_async.config import Config, overridden
    from mmzero_async.ops.supervisor import supervise

    async def ran(folder: Path, overrides: list[str]) -> list[AnyEvent]:
        async with TinyEngine(respond, latency=0.005) as engine:
            plain: Config = settings(tiny_folder, 0)
            config = overridden(
                plain, [f"engine.url={engine.url}", "log.port=0", *overrides], "of a test"
            )
            await supervise(folder, config, lambda text: None, lambda report, seconds: None)
        return events_of(folder)

    first, second = tmp_path / "first", tmp_path / "second"
    events = asyncio.run(ran(first, [*TURNS, "learner.coder.train=false"]))
    assert turns(events) == [("proposer", 2), ("solver", 2)] * 2
    assert isinstance(events[-1], RunFinished) or any(
        isinstance(event, RunFinished) and event.reason == "schedule" for event in events
    )
    published = [event for event in events if isinstance(event, PolicyPublished)]
    assert {event.version for event in published if event.role == "coder"} == {0}
    assert {event.version for event in published if event.role == "solver"} == {0, 1, 2, 3, 4}

    start = [
        f"schedule.start.solver={first}",
        f"schedule.start.proposer={first / 'checkpoints/proposer/000001'}",
        "schedule.start.optimizer=kept",
        "schedule.until.solver=2",
    ]
    events = asyncio.run(ran(second, start))
    begun = {e.role: e for e in events if isinstance(e, PolicyPublished) and e.version == 0}
    for role, version in (("solver", 4), ("proposer", 1)):
        came_from = checkpoint.read(first, checkpoint.relative_folder(role, version))
        copied = checkpoint.read(second, begun[role].checkpoint, begun[role].digest)
        assert copied.digest == came_from.digest
        assert copied.optimizer.keys() == came_from.optimizer.keys() != set()
    assert sum(isinstance(e, StepCommitted) and e.role == "solver" for e in events) == 2
    # From here on the other run is not needed.
    first.rename(tmp_path / "gone")
    again = replayed(second, "--train", "--json")
    assert again.returncode == 0, again.stdout + again.stderr
    assert all(json.loads(line)["same"] for line in again.stdout.splitlines())
