"""The benchmarks run, bounded, and every line says what it was measured against. No times here."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmzero_async.ops.bench.appends import appends
from mmzero_async.ops.bench.lanes import in_lanes, one_by_one, steady
from mmzero_async.ops.bench.redis_streams import RedisMissing, RedisStreams
from mmzero_async.ops.bench.stores import Item

ROOT = Path(__file__).parent.parent
KEYS = {"figure", "value", "unit", "against", "rival", "ratio"}
EXPECTED = {
    *(f"append_{size}_batch_{n}" for size in ("1kB", "10kB", "100kB") for n in (1, 16, 256)),
    *("append_vs_bare_lmdb", "append_vs_sqlite_wal", "append_vs_raw_file"),
    *(
        "append_one_vs_two_flushes",
        "append_vs_redis_streams",
        "replay_vs_bare_lmdb",
        "replay_envelopes_vs_bare_lmdb",
    ),
    *(f"replay_{size}" for size in ("1kB", "10kB", "100kB")),
    *(f"ingest_{traffic}" for traffic in ("mixed", "1kB", "10kB", "100kB")),
    *(f"ingest_{traffic}_bytes" for traffic in ("mixed", "1kB", "10kB", "100kB")),
    *(f"ingest_{traffic}_ack_{p}" for traffic in ("mixed", "quiet") for p in ("p50", "p99")),
    *("ingest_trajectories", "log_server_peak_memory"),
    *("query_lineage", "query_kind", "query_last_50th", "replay_remote", "replay_remote_filtered"),
    *("ingest_mixed_curve", "ingest_100kB_curve"),
}


@pytest.mark.slow
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
        if figure["value"] is None:  # the one rival that may not be installed
            assert figure["figure"] == "append_vs_redis_streams" and figure["note"]
            continue
        assert figure["value"] > 0 and figure["rival"] > 0 and figure["ratio"] > 0, figure
        assert figure["unit"] in ("events/s", "trajectories/s", "MB/s", "MB", "ms")
    mixed = next(figure for figure in figures if figure["figure"] == "ingest_mixed")
    assert "0 superseded" in mixed["note"], "the bench sent events that the log did not wait for"
    assert list(tmp_path.iterdir()) == []


def test_where_redis_cannot_be_had_its_line_says_why_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    figures = [json.loads(figure.line()) for figure in appends(tmp_path, 0.001)]
    [redis] = [figure for figure in figures if "Redis" in figure["against"]]
    assert redis["figure"] == "append_vs_redis_streams"
    assert redis["value"] is redis["rival"] is redis["ratio"] is None
    assert "no redis-server" in redis["note"] and "apt install" in redis["note"]
    assert all(figure["ratio"] > 0 for figure in figures if figure is not redis)
    assert {"append_vs_bare_lmdb", "append_vs_sqlite_wal"} < {f["figure"] for f in figures}


def test_redis_is_asked_to_sync_every_write_and_takes_a_batch_as_a_whole(tmp_path: Path) -> None:
    try:
        store = RedisStreams(tmp_path)
    except RedisMissing as error:
        pytest.skip(str(error))
    try:
        store.append([Item(b"one"), Item(b"two", blob=b"picture")])
        assert store.client.config_get("append*")["appendfsync"] == "always"
        assert [fields for _, fields in store.client.xrange("events")] == [
            {b"body": b"one"},
            {b"body": b"two"},
        ]
        assert store.client.xlen("blobs") == 1
        [written] = tmp_path.rglob("*.aof")
        assert b"picture" in written.read_bytes()
    finally:
        store.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_renderer_bench_tells_every_figure_beside_the_bare_engine() -> None:
    command = [sys.executable, "-m", "mmzero_async.ops.bench.renderer", "--quick"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    figures = {figure["figure"]: figure for figure in map(json.loads, ran.stdout.splitlines())}
    told = ("one_child", "two_children", "p50", "p99", "cpu", "child_memory")
    expected = {
        f"render_{size}_{engine}{what}"
        for size in (448, 768, 1024)
        for engine in ("", "faster_")
        for what in told
    }
    expected |= {
        f"guarded_vs_bare{against}{size}"
        for against in ("", "_processes", "_call")
        for size in ("", "_768", "_1024")
    }
    assert figures.keys() >= expected | {"render_cached_p50", "render_structure"}
    for name, figure in figures.items():
        if figure["value"] is None:  # rivals that may not be installed
            assert name in ("render_vs_cairosvg", "render_vs_rsvg-convert") and figure["note"]
            continue
        assert figure["value"] > 0 and figure["rival"] > 0 and figure["ratio"] > 0, figure
    assert "load average" in figures["guarded_vs_bare"]["note"]
    if "render_vs_rsvg-convert" not in figures:
        assert figures.keys() >= {"render_start", "render_1024_blank"}
        assert figures.keys() >= {f"render_768_{how}rsvg-convert" for how in ("vs_", "two_vs_")}


@pytest.mark.parametrize(
    ("ends", "over", "lanes", "rate"),
    [
        ([1, 2, 3, 4], 4.5, 1, 1.0),
        ([1, 1, 2, 2, 3, 3, 5], 3.5, 2, 2.0),  # one lane was idle from 3 on: not counted
        ([3, 4, 6, 8, 9, 12], 12.5, 2, 0.5),  # lanes of 3 and of 4 seconds a picture
        ([1, 1, 2, 2], 0.0, 2, 2.0),  # over before the first: as many again
    ],
)
def test_a_rate_in_lanes_is_of_the_time_in_which_all_have_work(
    ends: list[float], over: float, lanes: int, rate: float
) -> None:
    assert steady(ends, over, lanes) == rate


def test_a_way_of_drawing_is_measured_at_least_once_however_short_the_time() -> None:
    drawn: list[int] = []
    assert one_by_one(lambda: drawn.append(1))(0.0) > 0 and drawn == [1]
    with asyncio.Runner() as runner:
        assert in_lanes(runner, lambda: asyncio.sleep(0.001), 2)(0.0) > 0


def test_a_bench_that_is_not_built_says_so() -> None:
    just = ROOT / ".venv" / "bin" / "just"
    if not just.exists():
        pytest.skip("needs just, which ./launch installs")
    asked = [just, "--no-deps", "bench", "why"]
    refused = subprocess.run(asked, capture_output=True, text=True, cwd=ROOT)
    assert refused.returncode == 3 and "there is 'just bench log'," in refused.stderr
    asked = [just, "--no-deps", "--dry-run", "bench", "log", "--quick"]
    shown = subprocess.run(asked, capture_output=True, text=True, cwd=ROOT)
    assert "mmzero_async.ops.bench.log --quick" in shown.stderr
