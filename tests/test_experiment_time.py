"""The experiment on time to accuracy: the clock is the log's, done runs stay done."""

import json
import os
import random
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import msgspec
import pytest
from builders import answered, coded, proposed
from nursery import Nursery

from mmzero_async.log.reader import LogReader
from mmzero_async.ops.experiments.clock import Clock
from mmzero_async.ops.experiments.time_to_accuracy import (
    MODES,
    Asked,
    Cell,
    Outcome,
    Point,
    configuration,
    finished,
    outcome,
    table,
)
from mmzero_async.projections.pipeline import Pipeline
from mmzero_async.schemas.events import (
    Event,
    GroupRejected,
    PolicyPublished,
    Role,
    RunFinished,
    StepCommitted,
)
from mmzero_async.schemas.record import Record, envelope

ASKED = Asked(steps=4, every=2, scenes=100)


def published(role: Role, version: int) -> PolicyPublished:
    return PolicyPublished(
        role=role,
        version=version,
        policy=f"{role}@{version}",
        checkpoint=f"{role}/{version}",
        digest="d",
    )


def step(version: int, seconds: float, role: Role = "solver") -> StepCommitted:
    return StepCommitted(
        role=role,
        step=version,
        version=version,
        groups=[],
        offsets=[],
        checkpoint=f"{role}/{version}",
        digest="d",
        batch_digest="b",
        metrics={"seconds": seconds, "staleness_mean": float(version)},
    )


def taking(event, seconds: float):
    return msgspec.structs.replace(
        event, generation=msgspec.structs.replace(event.generation, seconds=seconds)
    )


def clock_of(*told: tuple[float, Event]) -> Clock:
    """Events and the seconds at which they were committed."""
    clock = Clock()
    for number, (at, event) in enumerate(told):
        time_ns = int((1e9 + at) * 1e9)
        clock.apply(
            Record(number, envelope(event, producer="t", epoch=1, sequence=number, time_ns=time_ns))
        )
    return clock


def example() -> Clock:
    """Generation begins at 10; steps run from 18 to 20 and from 24 to 30."""
    return clock_of(
        (8.0, published("proposer", 0)),
        (9.0, published("coder", 0)),
        (10.0, published("solver", 0)),
        (14.0, taking(proposed("g0", [True]), 4.0)),  # 3 tokens before any step
        (19.0, taking(coded("g0.s0", [True] * 2), 2.0)),  # 6 tokens, half of them beside a step
        (20.0, step(1, 2.0)),
        (20.5, published("solver", 1)),
        (28.0, taking(answered("g0.s0.d0", "hard", ["3"] * 4), 2.0)),  # 12, all beside a step
        (29.0, GroupRejected(role="solver", group="g0", reason="stale")),
        (29.1, GroupRejected(role="coder", group="g0", reason="stale")),
        (30.0, step(2, 6.0)),
        (33.0, taking(proposed("g1", [True]), 1.0)),  # after the last step: not counted
        (34.0, RunFinished(reason="schedule")),
    )


def test_seconds_count_from_when_generation_begins_to_when_a_version_is_committed() -> None:
    clock = example()
    assert [clock.seconds(version) for version in range(3)] == pytest.approx([0.0, 10.0, 20.0])
    assert clock.checkpoints == ["solver/0", "solver/1", "solver/2"]
    assert clock.finished and clock.tokens == 3 + 6 + 12
    assert clock.rejected == {"stale": 1}


def test_tokens_are_told_apart_by_whether_a_step_ran_beside_them() -> None:
    clock = example()
    assert clock.stepping == pytest.approx(8 / 20)
    rates = clock.rates()
    assert rates.beside_a_step == pytest.approx((3 + 12) / 8)
    assert rates.between_steps == pytest.approx((3 + 3) / 12)


def test_the_first_version_over_the_bar_is_the_one_that_counts() -> None:
    points = [Point(0, 0.0, 0.4), Point(2, 10.0, 0.6), Point(4, 20.0, 0.5), Point(6, 30.0, 0.7)]
    it = outcome(Cell("asynchronous", 1), ASKED, example(), points, 1.5)
    assert it.reached(0.6) == points[1] and it.reached(0.65) == points[3]
    assert it.reached(0.4) == points[0] and it.reached(0.8) is None
    assert (it.seconds, it.step_seconds, it.staleness, it.stale) == pytest.approx((20, 4, 1.5, 1))


def made(mode, seed: int, at: float) -> Outcome:
    points = (Point(0, 0.0, 0.4), Point(2, at / 2, 0.5), Point(4, at, 0.6 + seed / 100))
    it = outcome(Cell(mode, seed), ASKED, example(), points, 1.0)
    return replace(it, seconds=at)


def test_the_modes_differ_in_admission_alone() -> None:
    one, other = (configuration(Cell(mode, 2), ASKED) for mode in MODES)
    assert (one.admission.eta, other.admission.eta) == (4, 0)
    assert other.admission.drain and not one.admission.drain
    assert one.schedule.until.solver == 4 and one.run.seed == other.run.seed == 2
    assert not one.learner.proposer.train and not one.learner.coder.train
    same = msgspec.structs.replace(other, admission=one.admission)
    assert same.digest() == one.digest()


def test_what_is_done_is_what_was_asked_in_the_same_way(tmp_path: Path) -> None:
    file = tmp_path / "cells.jsonl"
    one, two = made("asynchronous", 1, 30.0), made("synchronous", 1, 40.0)
    file.write_text(json.dumps(asdict(one)) + "\n" + json.dumps(asdict(two))[:-5])
    assert finished(file, ASKED) == {one.cell: one}
    for other in (replace(ASKED, steps=9), replace(ASKED, overrides=("learner.solver.lr=1e-3",))):
        assert finished(file, other) == {}


def test_the_table_sets_both_side_by_side_and_says_who_never_came_so_far() -> None:
    lines = table(
        [
            made("asynchronous", 1, 30.0),
            made("asynchronous", 2, 50.0),
            made("synchronous", 1, 60.0),
        ],
        [0.5, 0.62],
    ).splitlines()
    assert lines[0] == "| | asynchronous, 2 runs | synchronous, 1 runs |"
    assert "| seconds to 50% | 20 ± 7 | 30 |" in lines
    assert "| seconds to 62% | 50 | - |" in lines
    assert "| runs that reached 62% | 1 of 2 | 0 of 1 |" in lines
    assert not any(line.startswith("| runs that reached 50%") for line in lines)
    assert "| seconds in all | 40 ± 14 | 60 |" in lines
    assert "| right at version 4 | 61.5% ± 0.7% | 61.0% |" in lines


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_is_in_the_making_while_a_synchronous_step_is_taken(
    tmp_path: Path, tiny_folder: Path
) -> None:
    from torture_pipeline import Run

    folder = tmp_path / "run"
    folder.mkdir()
    alone = ("learner.proposer.train=false", "learner.coder.train=false")
    overrides = (*MODES["synchronous"], *alone)
    with (
        Nursery("pipeline_children") as nursery,
        Run(nursery, folder, tiny_folder, random.Random(1), overrides) as run,
    ):
        run.gets_on(steps=4)
        run.finish()
    reader, pipeline, steps = LogReader.open(folder / "log"), Pipeline(), 0
    for record in reader.scan():
        event = record.event()
        if isinstance(event, StepCommitted):
            assert not pipeline.lineage.trees, f"step {event.step}"
            steps += 1
        pipeline.apply(record.offset, event)
    reader.close()
    assert steps >= 4


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_is_timed_scored_and_not_made_twice(tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "mmzero_async.ops.experiments.time_to_accuracy"),
        *("--out", str(tmp_path), "--steps", "2", "--every", "1", "--seeds", "1"),
        *("--scenes", "4", "--modes", "synchronous", "--bars", "0.0", "--"),
        *("learner.solver.groups=2", "filters.solver_hard_consistency=[0.0,1.0]"),
    ]
    first = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert first.returncode == 0, first.stderr[-2000:]
    [cell] = [json.loads(line) for line in (tmp_path / "cells.jsonl").read_text().splitlines()]
    assert [point["version"] for point in cell["points"]] == [0, 1, 2]
    seconds = [point["seconds"] for point in cell["points"]]
    assert seconds == sorted(seconds) and seconds[-1] == cell["seconds"] > 0
    assert 0 < cell["stepping"] < 1 and cell["tokens"] > 0 and cell["between_steps"] > 0
    assert "| seconds to 0% | - | 0 |" in first.stdout
    no_engine = {**os.environ, "PATH": "/nonexistent"}
    again = subprocess.run(command, capture_output=True, text=True, timeout=120, env=no_engine)
    assert again.stdout.splitlines() == first.stdout.splitlines()[1:]
