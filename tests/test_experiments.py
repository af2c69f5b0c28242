"""Experiments: cells that are done stay done, the table says what they found."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from mmzero_async.config import load
from mmzero_async.ops.experiments.staleness import CORRECTIONS, Cell, Outcome, finished, table


def outcome(staleness: int, correction: str, seed: int, greedy: float, steps: int = 30) -> Outcome:
    cell = Cell(staleness, correction, seed)
    return Outcome(cell, steps, greedy, greedy / 2, 0.7, 1.0 - staleness / 100, 12.5)


def test_finished_cells_are_those_of_as_many_steps_and_a_torn_line_is_not_done(
    tmp_path: Path,
) -> None:
    done = [outcome(4, "tis", 1, 0.5), outcome(4, "none", 1, 0.4, steps=7)]
    file = tmp_path / "cells.jsonl"
    assert finished(file, 30) == {}
    whole = "".join(json.dumps(asdict(one)) + "\n" for one in done)
    file.write_text(whole + json.dumps(asdict(outcome(8, "tis", 1, 0.3)))[:-9])
    assert finished(file, 30) == {done[0].cell: done[0]}
    assert finished(file, 7) == {done[1].cell: done[1]}
    assert finished(file, 30, ["learner.solver.lr=1e-3"]) == {}


def test_every_correction_names_a_loss_that_reads_all_its_options() -> None:
    """The configuration refuses an option that the loss would not read."""
    losses = {name: load("seedling", options).learner for name, options in CORRECTIONS.items()}
    assert len({(it.loss, it.loss_options) for it in losses.values()}) == len(CORRECTIONS)


def test_the_table_has_a_row_a_staleness_and_correction_with_mean_and_deviation() -> None:
    lines = table(
        [outcome(16, "tis", 1, 0.5), outcome(16, "tis", 2, 0.7), outcome(0, "none", 1, 0.6)]
    ).splitlines()
    assert lines[2:] == [
        "| 0 | none | 60.0% | 30.0% | 1.000 | 1 |",
        "| 16 | tis | 60.0% ± 14.1% | 30.0% ± 7.1% | 0.840 | 2 |",
    ]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_cell_trains_on_real_parts_and_is_not_done_twice(tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "mmzero_async.ops.experiments.staleness"),
        *("--out", str(tmp_path), "--steps", "2", "--scenes", "4", "--seeds", "1"),
        *("--staleness", "1", "--corrections", "tis", "--"),
        *("learner.solver.groups=2", "filters.solver_hard_consistency=[0.0,1.0]"),
    ]
    first = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    (line,) = (tmp_path / "cells.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert found["cell"] == {"staleness": 1, "correction": "tis", "seed": 1}
    assert found["steps"] == 2 and 0.0 < found["effective_samples"] < 1.0
    assert "| 1 | tis |" in first.stdout
    no_engine = {**os.environ, "PATH": "/nonexistent"}
    again = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60, env=no_engine
    )
    done = finished(tmp_path / "cells.jsonl", 2, command[command.index("--") + 1 :])
    assert again.stdout.splitlines() == table(done.values()).splitlines()
