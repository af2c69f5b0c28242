"""The dashboard's bench runs, bounded, and tells every figure. No times here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmzero_async.log.reader import LogReader
from mmzero_async.log.verify import verify
from mmzero_async.ops.bench.long_log import write_long_log
from mmzero_async.projections.audit import Audit

EXPECTED = {"ui_first_picture", "ui_memory", "ui_history", "ui_stopped_worker", "ui_cost"}


def test_a_long_log_is_a_log_as_a_run_leaves_it(tmp_path: Path) -> None:
    events = write_long_log(tmp_path / "long", 500)
    assert 500 <= events < 700
    assert verify(tmp_path / "long" / "log").clean
    reader, audit = LogReader.open(tmp_path / "long" / "log"), Audit()
    for record in reader.scan():
        audit.apply(record)
    reader.close()
    assert audit.problems == [] and audit.events == events
    assert not any(audit.pending.values()) and audit.trained["solver"] > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_dashboards_bench_tells_every_figure_and_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mmzero_async.ops.bench.ui", "--quick", "--folder", tmp_path]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    figures = {figure["figure"]: figure for figure in map(json.loads, ran.stdout.splitlines())}
    assert figures.keys() - {"ui_first_seen"} == EXPECTED
    assert all(figure["value"] > 0 for figure in figures.values())
    assert list(tmp_path.iterdir()) == []
