"""The benchmarks run, bounded, and every line says what it was measured against. No times here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
KEYS = {"figure", "value", "unit", "against", "rival", "ratio"}
EXPECTED = {
    *(f"append_{size}_batch_{n}" for size in ("1kB", "10kB", "100kB") for n in (1, 16, 256)),
    *("append_vs_bare_lmdb", "append_vs_sqlite_wal", "append_vs_raw_file", "replay_vs_bare_lmdb"),
    *(f"replay_{size}" for size in ("1kB", "10kB", "100kB")),
    *(f"ingest_{traffic}" for traffic in ("mixed", "1kB", "10kB", "100kB")),
    *(f"ingest_{traffic}_bytes" for traffic in ("mixed", "1kB", "10kB", "100kB")),
    *("ingest_mixed_ack_p50", "ingest_mixed_ack_p99", "ingest_quiet_ack_p50"),
    *("ingest_trajectories", "log_server_peak_memory"),
}


@pytest.mark.timeout(300)
def test_the_log_bench_tells_every_figure_beside_a_rival_and_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "mmzero_async.ops.bench.log", "--quick", "--folder", tmp_path]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    figures = [json.loads(line) for line in ran.stdout.splitlines()]
    assert {figure["figure"] for figure in figures} >= EXPECTED
    for figure in figures:
        assert figure.keys() - {"note"} == KEYS
        assert figure["value"] > 0 and figure["rival"] > 0 and figure["ratio"] > 0, figure
        assert figure["unit"] in ("events/s", "trajectories/s", "MB/s", "MB", "ms")
    mixed = next(figure for figure in figures if figure["figure"] == "ingest_mixed")
    assert "0 superseded" in mixed["note"], "the bench sent events that the log did not wait for"
    assert list(tmp_path.iterdir()) == []


def test_a_bench_that_is_not_built_says_so() -> None:
    just = ROOT / ".venv" / "bin" / "just"
    if not just.exists():
        pytest.skip("needs just, which ./launch installs")
    asked = [just, "--no-deps", "bench", "why"]
    refused = subprocess.run(asked, capture_output=True, text=True, cwd=ROOT)
    assert refused.returncode == 3 and "there is 'just bench log'" in refused.stderr
    asked = [just, "--no-deps", "--dry-run", "bench", "log", "--quick"]
    shown = subprocess.run(asked, capture_output=True, text=True, cwd=ROOT)
    assert "mmzero_async.ops.bench.log --quick" in shown.stderr
