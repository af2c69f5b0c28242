"""`mmzero diff`: two runs beside each other, and where their logs part."""

import json
from pathlib import Path

import pytest
from dataset_runs import CONFIG, append, lineage, rejected, story, trained, write_run
from typer.testing import CliRunner

from mmzero_async.config import load
from mmzero_async.log.reader import LogReader
from mmzero_async.ops.cli import app


def mmzero(*words: str | Path) -> str:
    told = CliRunner().invoke(app, [*map(str, words)])
    assert told.exit_code == 0, told.exception
    return told.stdout


def diff(one: Path, other: Path) -> dict:
    return json.loads(mmzero("diff", one, other, "--json"))


def events(run: Path) -> int:
    reader = LogReader.open(run / "log")
    try:
        return reader.next_offset
    finally:
        reader.close()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "demo", story())


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    mmzero("log", "backup", run, tmp_path / "b" / "demo")
    return tmp_path / "b" / "demo"


def test_separate_runs_are_told_by_settings_counts_and_curves(run: Path, tmp_path: Path) -> None:
    config = load("seedling", ["solver.format_weight=0.3", "run.seed=7"])
    more = [*story(4), *trained("solver", ["g3.s0.d0"], [1.0, 0.0, 0.0, 0.0], 2)]
    other = write_run(tmp_path / "other", [*more, rejected("coder", "g3.s0")], config)
    found = diff(run, other)
    assert found["runs"] == ["demo", "other"]
    assert found["settings"] == {
        "run.seed": [CONFIG.run.seed, 7],
        "solver.format_weight": [0.1, 0.3],
    }
    assert (found["log"]["related"], found["log"]["offset"]) == ("separate", 0)
    assert found["events"]["proposed"] == [6, 4] and found["events"]["step_committed"] == [3, 4]
    solver = found["roles"]["solver"]
    assert solver["steps"] == [1, 2] and solver["trained_groups"] == [2, 3]
    assert solver["rejected_groups"] == {"stale": [1, 1]}
    assert found["roles"]["coder"]["rejected_groups"] == {"stale": [0, 1]}
    assert solver["ends"]["loss"] == [0.5, 0.5]
    told = mmzero("diff", run, other)
    assert "demo and other are separate runs" in told
    assert "solver.format_weight = 0.1 | 0.3" in told and "solver loss, end" in told


def test_a_copy_is_the_same_log(run: Path, copy: Path) -> None:
    found = diff(run, copy)
    assert found["log"] == {"related": "same", "offset": None, "events": [None, None]}
    assert found["settings"] == {} and all(a == b for a, b in found["events"].values())
    assert "are the same log, event by event" in mmzero("diff", run, copy)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_log_that_goes_on_is_told_from_its_beginning(
    run: Path, copy: Path, swapped: bool
) -> None:
    end = events(run)
    append(copy, lineage("g50"))
    sides = (copy, run) if swapped else (run, copy)
    log = diff(*sides)["log"]
    assert (log["related"], log["offset"]) == ("prefix", end)
    mine, theirs = reversed(log["events"]) if swapped else log["events"]
    assert mine is None and "proposed" in theirs and "g50" in theirs
    assert f"{run} ends at offset {end}, where {copy} goes on" in mmzero("diff", *sides)


def test_a_fork_names_the_first_event_that_differs(run: Path, copy: Path) -> None:
    end = events(run)
    append(run, lineage("g50"))
    append(copy, lineage("g60"))
    log = diff(run, copy)["log"]
    assert (log["related"], log["offset"]) == ("fork", end)
    assert "g50" in log["events"][0] and "g60" in log["events"][1]
    assert f"are one log up to offset {end}" in mmzero("diff", run, copy)
