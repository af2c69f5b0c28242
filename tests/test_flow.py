"""Nothing stalls in silence: what each stage waits for, who holds it, and when that is a stall."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from builders import coded, proposed, records, rendered, run_started, whole_tree
from hypothesis import given
from hypothesis import strategies as st
from log_servers import serving
from test_projections import publish_all, step

from mmzero_async.config import Config, load
from mmzero_async.log.reader import LogReader
from mmzero_async.projections.admission import holding_back
from mmzero_async.projections.dispatcher import PipelineDispatcher
from mmzero_async.projections.flow import Flow, stages
from mmzero_async.projections.making import Making
from mmzero_async.projections.pipeline import Pipeline
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import (
    Event,
    Rendered,
    RunFinished,
    StageMoved,
    StageStalled,
    WorkAbandoned,
    WorkerJoined,
)
from mmzero_async.schemas.flow import Hand, Held, StageFlow
from mmzero_async.transport.client import LogClient

LAST = 10**9  # unix seconds of the first event of `records`; one a second


def fed(events: list[Event]) -> tuple[Pipeline, Flow]:
    pipeline, flow = Pipeline(), Flow(started=0.0)
    for record in records(events):
        due, _ = pipeline.apply(record.offset, record.event())
        flow.apply(record.envelope.time_ns / 1e9, record.event(), due, pipeline.lineage.open)
    return pipeline, flow


def looked(
    events: list[Event],
    held: dict[str, Held] | None = None,
    hands: list[Hand] | None = None,
    config: Config | None = None,
    after: float = 0.0,
) -> dict[str, StageFlow]:
    """Every stage, so many seconds after the last event."""
    pipeline, flow = fed(events)
    now = LAST + len(events) - 1 + after
    back = holding_back(pipeline, config or Config(), 0, Making())
    found = stages(pipeline, flow, config or Config(), held or {}, hands or [], back, now)
    return {stage.stage: stage for stage in found}


def hand(worker: str, role: str, free: int = 0, silent: float = 0.0) -> Hand:
    return Hand(worker=worker, role=role, free=free, silent_seconds=silent)


DRAWN = [*publish_all(), proposed("g0", [True]), coded("g0.s0", [True, True]), rendered("g0.s0.d0")]


def test_a_stage_counts_its_due_work_and_says_since_when_the_oldest_waits() -> None:
    found = looked(DRAWN, after=4.0)
    assert {name: stage.due for name, stage in found.items()} == {
        "propose": 1,
        "code": 0,
        "render": 1,
        "answer": 2,
        "train/proposer": 0,
        "train/coder": 0,
        "train/solver": 0,
    }
    assert (found["render"].oldest, found["render"].oldest_seconds) == ("render/g0.s0.d1", 5.0)
    assert (found["answer"].oldest_seconds, found["answer"].still_seconds) == (4.0, 7.0)
    assert found["render"].still_seconds == 4.0  # the other drawing's picture was the last event


@pytest.mark.parametrize(
    ("held", "hands", "waits_for"),
    [
        ({}, [], "a renderer: none is here"),
        ({}, [hand("r-0", "renderer", free=1)], "the log server, which hands it out next"),
        (
            {"render/g9": Held(worker="r-0", seconds=1)},
            [hand("r-0", "renderer")],
            "a free hand: 1 pieces are in the hands of r-0",
        ),
        (
            {"render/g0.s0.d1": Held(worker="r-0", seconds=12)},
            [hand("r-0", "renderer")],
            "r-0, which has it in hand for 12 s",
        ),
        (
            {"render/g0.s0.d1": Held(worker="r-0", seconds=12, attempt=2)},
            [hand("r-0", "renderer", silent=4)],
            "r-0, which has it in hand for 12 s, attempt 2 and has said nothing for 4 s",
        ),
        (
            {"render/g0.s0.d1": Held(worker="r-7", seconds=12)},
            [hand("r-0", "renderer")],
            "r-7, which has it in hand for 12 s and is not here: it falls due again",
        ),
    ],
)
def test_it_says_what_the_oldest_work_waits_for(held, hands, waits_for) -> None:
    assert looked(DRAWN, held, hands)["render"].waits_for == waits_for


def test_a_stage_stalls_when_something_is_due_and_nothing_new_came_for_too_long() -> None:
    config = load("seedling", ["log.stall_seconds=30"])
    assert not looked(DRAWN, config=config, after=29.0)["render"].stalled
    late = looked(DRAWN, config=config, after=30.5)
    assert late["render"].stalled and late["answer"].stalled
    assert not late["code"].stalled  # nothing is due there
    never = load("seedling", ["log.stall_seconds=0"])
    assert not any(stage.stalled for stage in looked(DRAWN, config=never, after=1e6).values())


def test_without_a_first_policy_it_waits_for_the_learner_five_times_as_long() -> None:
    config = load("seedling", ["log.stall_seconds=30"])
    started = [run_started(config, "r")]
    found = looked(started, config=config, after=149.0)["propose"]
    # no event of the stage ever came: it stands still since the server's start
    assert "first proposer policy" in found.waits_for and "no learner is here" in found.waits_for
    here = looked(started, hands=[hand("learner-0", "learner")], config=config)["propose"]
    assert here.waits_for.endswith("when the engine is up")


def test_training_waits_for_groups_or_for_the_learner() -> None:
    config = load("seedling", ["learner.solver.groups=2", "log.stall_seconds=30"])
    learner = [hand("learner-0", "learner")]
    half = [*publish_all(), *whole_tree("g0", proposals=1, drawings=1)]
    full = [*publish_all(), *whole_tree("g0", proposals=1, drawings=2)]
    waiting = looked(half, hands=learner, config=config, after=99.0)["train/solver"]
    assert (waiting.due, waiting.stalled) == (0, False)
    assert waiting.waits_for == "1 more groups for a window of 2"
    ready = looked(full, hands=learner, config=config, after=99.0)["train/solver"]
    assert (ready.due, ready.oldest, ready.stalled) == (2, "g0.s0.d0", True)
    assert ready.waits_for == "the learner, which has a full window"
    gone = looked(full, config=config)["train/solver"]
    assert gone.waits_for == "a learner: none is here"
    trained = looked([*full, step("solver", 1, ["g0.s0.d0", "g0.s0.d1"])], config=config)
    assert trained["train/solver"].due == 0


def test_admission_names_what_holds_generation_back() -> None:
    config = load("seedling", ["learner.solver.groups=1", "admission.eta=0"])
    log = [*publish_all(), *whole_tree("g0", proposals=1, drawings=1)]
    found = looked(log, config=config)["propose"]
    assert found.due == 0 and not found.stalled
    assert found.waits_for.startswith("the learner: 1 solver groups are ready")


def test_of_a_finished_run_nothing_is_due() -> None:
    found = looked([*DRAWN, RunFinished(reason="steps")], after=1e6)
    assert not any(stage.due or stage.stalled for stage in found.values())


@given(st.integers(0, 14), st.lists(st.booleans(), min_size=14, max_size=14))
def test_what_is_due_is_what_the_log_has_open_whatever_happened(cut: int, kept: list[bool]) -> None:
    """And nothing is remembered that is not open any more."""
    tree = whole_tree("g0", proposals=1, drawings=3)
    events = [*publish_all(), *tree[:cut]]
    if len(tree) > cut > 1 and kept[cut % 14]:
        events.append(WorkAbandoned(work="answer/g0.s0.d1/easy", reason="x", attempts=3))
    pipeline, flow = fed(events)
    found = stages(pipeline, flow, Config(), {}, [], "", LAST + 99.0)
    counted = {stage.stage: stage.due for stage in found}
    open_keys = list(pipeline.lineage.open)
    for stage in ("code", "render", "answer"):
        assert counted[stage] == sum(key.startswith(f"{stage}/") for key in open_keys)
    assert set(flow.since) == set(open_keys)


# --- with a real server -----------------------------------------------------------------------

TIMES = ["log.port=0", "log.stall_seconds=0.5", "log.heartbeat_seconds=0.1", "log.dead_seconds=5"]


async def held_up(server, folder: Path) -> None:
    """A coder takes its work and does nothing with it, until it is told in the log."""
    async with (
        LogClient.connect(
            server.url, worker="test", role="test", config_digest="digest", patience=3
        ) as client,
        LogClient.connect(
            server.url, worker="coder-0", role="coder", config_digest="digest", patience=3
        ) as coder,
    ):
        await client.append([*publish_all(), proposed("g0", [True])])
        lease = await coder.lease("code")
        assert lease.work.key == "code/g0.s0"
        await told(server, StageStalled, "code")
        await asyncio.to_thread(ask_about_it, folder)
        await coder.append([coded("g0.s0", [True])])
        await told(server, StageMoved, "code")


async def told(server, kind: type, stage: str) -> None:
    async with asyncio.timeout(20):
        while not any(  # noqa: ASYNC110 - nothing to await
            isinstance(event, kind) and event.stage == stage
            for event in (record.event() for record in server._reader.scan())
        ):
            await asyncio.sleep(0.05)


def of_kind(folder: Path, kind: type) -> list:
    reader = LogReader.open(folder / "log")
    try:
        return [record.event() for record in reader.scan() if isinstance(record.event(), kind)]
    finally:
        reader.close()


def why(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mmzero_async.ops.cli", "why", str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={"COLUMNS": "200", "PATH": ""},
    )


def ask_about_it(folder: Path) -> None:
    everything = why(folder)
    assert everything.returncode == 0, everything.stderr
    assert "stands still at" in everything.stdout.splitlines()[0]
    assert "coder-0, which has it in hand for" in everything.stdout
    found = json.loads(why(folder, "g0.s0", "--json").stdout)
    assert found["held"]["code/g0.s0"]["worker"] == "coder-0"
    assert any(line.startswith("  code/g0.s0: in the hands of coder-0") for line in found["item"])


def test_a_stall_is_told_once_with_its_holder_and_so_is_its_end(tmp_path: Path) -> None:
    config = load("seedling", TIMES)
    (tmp_path / "config.json").write_text(config.to_json())
    with serving(tmp_path / "log", PipelineDispatcher(config), config.log) as server:
        (tmp_path / "log.url").write_text(server.url)
        asyncio.run(held_up(server, tmp_path))
    assert {event.worker for event in of_kind(tmp_path, WorkerJoined)} == {"test", "coder-0"}
    of_code = [e for e in of_kind(tmp_path, StageStalled) if e.stage == "code"]
    assert [(e.oldest, e.holder, e.due, e.held) for e in of_code] == [
        ("code/g0.s0", "coder-0", 1, 1)
    ]
    assert len([e for e in of_kind(tmp_path, StageMoved) if e.stage == "code"]) == 1


def test_where_no_server_runs_it_says_so_and_what_the_log_alone_knows(tmp_path: Path) -> None:
    config = load("seedling", TIMES)
    (tmp_path / "config.json").write_text(config.to_json())
    with serving(tmp_path / "log", PipelineDispatcher(config), config.log) as server:
        asyncio.run(appended(server, DRAWN))
        asyncio.run(appended(server, [WorkAbandoned(**ABANDONED)]))
    found = why(tmp_path)
    assert "is not running" in found.stdout.splitlines()[0]
    assert "log.url" in found.stdout
    item = why(tmp_path, "g0.s0.d0").stdout
    assert "answer/g0.s0.d0/hard: given up after 3 attempts: poison" in item
    assert item.startswith("solver group g0.s0.d0: it came to nothing")
    not_drawn = why(tmp_path, "g0.s0.d1").stdout
    assert "solver group g0.s0.d1: not complete: 1 pieces" in not_drawn
    assert "render/g0.s0.d1: due; its stage waits for a renderer: none is here" in not_drawn
    wrong = why(tmp_path, "nonsense")
    assert wrong.returncode == 1 and "no lineage id" in wrong.stderr


PICTURE = b"png"
ABANDONED = {"work": "answer/g0.s0.d0/hard", "reason": "poison", "attempts": 3}


async def appended(server, events: list[Event]) -> None:
    async with LogClient.connect(
        server.url, worker="test", role="test", config_digest="digest", patience=3
    ) as client:
        shown = blob_digest(PICTURE)
        real = [
            msgspec.structs.replace(event, picture=shown) if isinstance(event, Rendered) else event
            for event in events
        ]
        for event in real:  # one by one: what follows from an event is admitted after it
            await client.append([event], {shown: PICTURE} if isinstance(event, Rendered) else {})
