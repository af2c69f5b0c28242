"""The experiment on schedules: done runs stay done, table and pictures say what was found."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import msgspec
import pytest
from builders import coded, probed, proposed, rendered, run_started

from mmzero_async.config import Config
from mmzero_async.log.writer import LogWriter, Submission
from mmzero_async.ops.experiments.pictures import pick
from mmzero_async.ops.experiments.schedules import (
    MODES,
    Asked,
    Cell,
    Outcome,
    configuration,
    finished,
    table,
)
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import ROLES, Event, Finding, Rendered, encode_event, kind_of

ASKED = Asked(steps=8, iterations=3, scenes=400)


def outcome(mode, seed: int, after: float, seconds: float = 120.0) -> Outcome:
    return Outcome(
        cell=Cell(mode, seed),
        asked=ASKED,
        seconds=seconds,
        tokens=12_000,
        steps={"proposer": 3, "coder": 4, "solver": 24},
        accuracies={"hard greedy": {"before": 0.4, "after": after}},
        blind={"hard": 0.1},
        sighted={"hard": 0.8},
        pictures=200,
        shortcuts={"copy": 3} if mode == "concurrent" else {},
    )


def test_both_ways_take_the_same_solver_steps_from_the_same_start() -> None:
    concurrent, sequential = (configuration(Cell(mode, 2), ASKED) for mode in MODES)
    assert concurrent.schedule.until.solver == 24
    steps, times = sequential.schedule.steps, sequential.schedule.iterations
    assert [steps.of(role) * times for role in ROLES] == [24, 24, 24]
    assert (concurrent.run.seed, sequential.run.seed) == (2, 2)
    apart = (
        msgspec.structs.replace(it, schedule=Config().schedule) for it in (concurrent, sequential)
    )
    assert len({it.digest() for it in apart}) == 1, "they differ in more than the schedule"


def test_what_is_done_is_what_was_asked_in_the_same_way(tmp_path: Path) -> None:
    file = tmp_path / "cells.jsonl"
    one, two = outcome("concurrent", 1, 0.5), outcome("sequential", 1, 0.5)
    assert finished(file, ASKED) == {}
    file.write_text(json.dumps(asdict(one)) + "\n" + json.dumps(asdict(two))[:-5])
    assert finished(file, ASKED) == {one.cell: one}
    for other in (replace(ASKED, steps=9), replace(ASKED, overrides=("learner.solver.lr=1e-3",))):
        assert finished(file, other) == {}


def test_the_table_sets_both_ways_side_by_side_with_mean_and_deviation() -> None:
    lines = table(
        [
            outcome("concurrent", 1, 0.5),
            outcome("concurrent", 2, 0.7, seconds=240.0),
            outcome("sequential", 1, 0.6, seconds=600.0),
        ]
    ).splitlines()
    assert lines[0] == "| | concurrent, 2 runs | sequential, 1 runs |"
    assert "| wall clock, minutes | 3.0 ± 1.4 | 10.0 |" in lines
    assert "| hard greedy, before | 40.0% ± 0.0% | 40.0% |" in lines
    assert "| hard greedy, after | 60.0% ± 14.1% | 60.0% |" in lines
    assert "| hard questions answered alike blindly | 10.0% ± 0.0% | 10.0% |" in lines
    assert "| easy questions answered alike blindly | - | - |" in lines
    assert "| `copy`, share of pictures | 1.50% ± 0.00% | 0.00% |" in lines


# --- pictures -------------------------------------------------------------------------------------


def written(run: Path, events: list[Event], blobs: dict[str, bytes]) -> Path:
    run.mkdir()
    writer = LogWriter(run / "log", run=run.name, map_gib=1, sync="nosync")
    for number, event in enumerate([run_started(Config(), run.name), *events]):
        it = {event.picture: blobs[event.picture]} if isinstance(event, Rendered) else {}
        said = Submission("w", 1, number, kind_of(event), encode_event(event), it)
        assert not isinstance(writer.append([[said]])[0], Exception)
    writer.close()
    return run


def test_pictures_of_every_finding_are_written_with_their_lineage(tmp_path: Path) -> None:
    blobs = {blob_digest(text): text for text in (b"picture %d" % i for i in range(9))}
    digests = list(blobs)

    def shown(drawing: str, number: int, *findings: Finding) -> Rendered:
        event = rendered(drawing)
        return msgspec.structs.replace(event, picture=digests[number], findings=list(findings))

    tiny = Finding(detector="tiny_text", detail="2 | pixels")
    one = written(
        tmp_path / "one",
        [
            proposed("g0", [True]),
            coded("g0.s0", [True] * 8),
            *(shown(f"g0.s0.d{i}", i, tiny) for i in range(7)),
            shown("g0.s0.d7", 7),
            probed("g0.s0.d7", "hard", ["3", "3", "4"]),
            probed("g0.s0.d6", "easy", ["3", "4", "4"]),  # too few agree
        ],
        blobs,
    )
    two = written(
        tmp_path / "two",
        [
            proposed("g0", [True]),
            coded("g0.s0", [True]),
            shown("g0.s0.d0", 8, Finding(detector="blank", detail="0.1 %")),
        ],
        blobs,
    )
    listing = pick([one, two], tmp_path / "out").read_text()
    rows = [[c.strip() for c in line.split(" | ")] for line in listing.splitlines()[2:]]
    kinds = [row[0].removeprefix("| ") for row in rows]
    assert kinds == ["blank (1)", "blind_hard (1)", *["tiny_text (7)"] * 5]
    by_id = {f"g0.s0.d{i}": blobs[digests[i]] for i in range(8)}
    for _, file, run, drawing, *_ in rows:
        expected = blobs[digests[8]] if run == "two" else by_id[drawing]
        assert (tmp_path / "out" / file).read_bytes() == expected
    assert len({row[3] for row in rows if row[0].endswith("(7)")}) == 5
    assert "2 of 3 said 3 with another picture, 50% with this one" in listing
    assert "What is the difference between red and blue?" in listing and "2 \\| pixels" in listing
    assert pick([one, two], tmp_path / "again").read_text() == listing  # by lot, the same lot


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whole_runs_either_way_are_made_once_and_told_in_a_table(tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "mmzero_async.ops.experiments.schedules"),
        *("--out", str(tmp_path), "--steps", "1", "--iterations", "1", "--seeds", "1"),
        *("--scenes", "4", "--pictures", str(tmp_path / "pictures"), "--"),
        *(f"learner.{role}.groups=2" for role in ROLES),
    ]
    first = subprocess.run(command, capture_output=True, text=True, check=True, timeout=800)
    cells = [json.loads(line) for line in (tmp_path / "cells.jsonl").read_text().splitlines()]
    assert [cell["cell"]["mode"] for cell in cells] == list(MODES)
    assert [cell["steps"]["solver"] for cell in cells] == [1, 1]
    assert cells[1]["steps"] == dict.fromkeys(ROLES, 1)
    assert all(cell["seconds"] > 0 and cell["tokens"] > 0 for cell in cells)
    assert "| hard greedy, after |" in first.stdout
    assert (tmp_path / "pictures/listing.md").is_file()
    audited = [sys.executable, "-m", "mmzero_async.ops.cli", "replay", "--audit"]
    for cell in cells:
        run = tmp_path / f"{cell['cell']['mode']}-1"
        assert subprocess.run([*audited, run], capture_output=True).returncode == 0
    no_engine = {**os.environ, "PATH": "/nonexistent"}
    again = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120, env=no_engine
    )
    assert again.stdout.splitlines() == first.stdout.splitlines()[2:]
