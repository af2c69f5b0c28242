"""`mmzero log scan` and `reindex` from outside."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from builders import whole_tree
from test_cli import mmzero, write_run
from test_log_commands import log

from mmzero_async.log.verify import verify
from mmzero_async.log.writer import LogWriter, Submission
from mmzero_async.schemas.events import RunFinished, encode_event


@pytest.fixture
def run(tmp_path: Path) -> Path:
    events = [e for i in range(30) for e in whole_tree(f"g{i}", proposals=1)]
    return write_run(tmp_path / "runs" / "demo", events)


def test_scan_tells_what_a_filter_wants_a_line_each(run: Path) -> None:
    scanned = mmzero("log", "scan", "demo", "--where", "lineage=g7.s0.d1", cwd=run.parent.parent)
    assert scanned.returncode == 0, scanned.stderr
    rendered, easy, hard = scanned.stdout.splitlines()
    assert "rendered" in rendered and "renderer g7.s0.d1: ok" in rendered
    assert all("solver v0 g7.s0.d1: ok ok ok ok" in line for line in (easy, hard))
    few = log("scan", run, "--where", "kind=coded", "--limit", "3", "--from", "100", "--json")
    found = [json.loads(line) for line in few.stdout.splitlines()]
    assert [f["kind"] for f in found] == ["coded"] * 3
    assert all(f["offset"] >= 100 and f["event"]["outcomes"] for f in found)
    assert len(log("scan", run).stdout.splitlines()) == 1 + 30 * 8


def test_scan_says_what_is_wrong_with_a_filter(run: Path) -> None:
    refused = mmzero("log", "scan", run, "--where", "verison=3")
    assert refused.returncode == 1 and "did you mean version?" in refused.stderr
    assert "Traceback" not in refused.stderr
    nothing = log("scan", run, "--where", "kind=answerd")
    assert nothing.exit_code == 0 and "no kind answerd is known" in nothing.stderr


def test_scan_follows_what_comes_until_it_has_enough(run: Path) -> None:
    command = [sys.executable, "-m", "mmzero_async.ops.cli", "log", "scan", str(run), "--follow"]
    command += ["--where", "kind=run_finished", "--limit", "2", "--json"]
    scanning = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert scanning.stdout is not None
    writer = LogWriter(run / "log", run="demo", map_gib=1)
    try:
        for i in range(2):
            event = RunFinished(reason=f"{i}")
            writer.append([[Submission("late", 1, i, "run_finished", encode_event(event))]])
            assert json.loads(scanning.stdout.readline())["event"]["reason"] == f"{i}"
        assert scanning.wait(timeout=30) == 0
    finally:
        scanning.kill()
        scanning.communicate()
        writer.close()


def test_reindex_makes_the_index_anew_unless_somebody_writes(run: Path) -> None:
    writer = LogWriter(run / "log", run="demo", map_gib=1)
    refused = mmzero("log", "reindex", run)
    assert refused.returncode == 1 and "being written" in refused.stderr
    writer.close()
    made = log("reindex", run)
    assert made.exit_code == 0 and "whole again" in made.stdout
    assert verify(run / "log").clean
