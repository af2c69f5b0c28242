"""The log server says once that a reader stands still or the disk fills, and that it is over."""

import json
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from test_transport import CONFIG
from transport_rig import Renders

from mmzero_async import telemetry
from mmzero_async.log.reader import LogReader
from mmzero_async.log.stat import contents
from mmzero_async.log.watch import Watch
from mmzero_async.log.writer import LogWriter, Submission
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.transport.server import LogServer

READER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from mmzero_async.log.reader import LogReader
    reader = LogReader.open(Path(sys.argv[1]))
    held = reader.environment.lmdb.begin()
    print("reads", flush=True)
    sys.stdin.readline()
""")


@contextmanager
def pinning(log: Path) -> Iterator[int]:
    """A process that stays in one read transaction until the block ends; its id."""
    child = subprocess.Popen(
        [sys.executable, "-c", READER, str(log)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stdout.readline() == "reads\n"
    try:
        yield child.pid
    finally:
        child.communicate("\n")


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[LogWriter]:
    log = LogWriter(tmp_path / "log", run="r", map_gib=1, sync="nosync")
    commit(log, 1)
    yield log
    log.close()


def commit(writer: LogWriter, times: int) -> None:
    for _ in range(times):
        epoch, following = writer.position("w")
        message = [Submission("w", epoch or 1, following, "of_another", b"x" * 3000)]
        assert not isinstance(writer.append([message])[0], Exception)


def said(run: Path) -> list[dict[str, Any]]:
    """What the process `log-server` told of readers and disk."""
    lines = (run / "logs" / "log-server.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    return [t for t in told if t["event"].startswith(("reader", "disk"))]


def watch(writer: LogWriter, run: Path, seconds: float = 10.0, share: float = 0.0) -> Watch:
    logger = telemetry.configure(run, "log-server")
    return Watch(writer.reader().environment, logger, seconds, share)


def test_a_reader_that_stands_still_is_named_once_and_so_is_its_end(
    writer: LogWriter, tmp_path: Path
) -> None:
    watching = watch(writer, tmp_path)
    watching.look(0.0)
    with pinning(tmp_path / "log") as pid:
        watching.look(1.0)
        commit(writer, 30)
        watching.look(10.5)
        assert said(tmp_path) == []
        for now in (11.0, 12.0, 500.0):
            watching.look(now)
        (told,) = said(tmp_path)
        assert (told["event"], told["level"], told["pid"]) == ("reader pins pages", "warning", pid)
        assert (told["seconds"], told["commits_behind"]) == (10.0, 30)
        assert told["bytes"] > 0 and "end that process" in told["do"]
        size = (tmp_path / "log" / "data.mdb").stat().st_size
        assert told["bytes"] < size
    commit(writer, 1)  # clears the slots of the dead
    for now in (501.0, 502.0):
        watching.look(now)
    _, told = said(tmp_path)
    assert (told["event"], told["pid"]) == ("reader let go", pid)


def test_readers_that_move_on_are_not_told_of(writer: LogWriter, tmp_path: Path) -> None:
    watching = watch(writer, tmp_path)
    for now in range(0, 100, 5):
        with pinning(tmp_path / "log") if now % 50 == 0 else writer.reader().snapshot():
            watching.look(float(now))
            commit(writer, 1)
    assert said(tmp_path) == []


def test_what_a_reader_pins_grows_with_the_commits_and_stat_tells_it(
    writer: LogWriter, tmp_path: Path
) -> None:
    commit(writer, 20)
    with pinning(tmp_path / "log") as pid:
        pinned = []
        for _ in range(3):
            commit(writer, 20)
            found = contents(writer.reader())
            (reading,) = [r for r in found.readers if r.process == pid]
            pinned.append((reading.commits_behind, reading.pinned_bytes))
            assert reading.pinned_bytes <= found.free_pages * found.page_size
    assert [behind for behind, _ in pinned] == [20, 40, 60]
    assert 0 < pinned[0][1] < pinned[1][1] < pinned[2][1]


def test_pages_that_were_free_before_a_reader_came_are_not_pinned_by_it(
    writer: LogWriter, tmp_path: Path
) -> None:
    blob = b"x" * (1 << 20)
    sent = Submission("b", 1, 0, "of_another", b"", {blob_digest(blob): blob})
    writer.append([[sent]])
    writer.drop_blobs([bytes.fromhex(blob_digest(blob))], "nothing", "")
    commit(writer, 5)
    with pinning(tmp_path / "log") as pid:
        commit(writer, 3)
        found = contents(writer.reader())
    (reading,) = [r for r in found.readers if r.process == pid]
    assert 0 < reading.pinned_bytes < len(blob) // 2
    assert found.free_pages * found.page_size > len(blob) * 3 // 4


def test_a_disk_that_fills_and_is_emptied_is_told_of_once_each(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        writer = LogWriter(disk / "log", run="r", map_gib=1)
        commit(writer, 1)
        watching = watch(writer, tmp_path, share=0.4)
        ballast = disk / "ballast"
        for megabytes in (0, 4, 7, 8, 7, 6, 5, 5, 1, 0):
            ballast.write_bytes(b"x" * (megabytes << 20))
            watching.look(float(megabytes))
        writer.close()
        told = [(t["event"], t["level"]) for t in said(tmp_path)]
        assert told == [("disk is filling", "warning"), ("disk has room again", "info")]
        low, again = said(tmp_path)
        assert low["folder"] == str(disk / "log") and "mmzero log compact" in low["do"]
        assert low["free_share"] < 0.4 and again["free_share"] >= 0.5
        assert 0 < low["free_bytes"] < 4 << 20
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_the_log_server_looks_by_itself(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "log", run="r", map_gib=1)
    logger = telemetry.configure(tmp_path, "log-server")
    config = replace(CONFIG, warn_reader_seconds=0.2, warn_free_share=1.0)
    server = LogServer(writer, Renders(), config, "digest", logger)
    serving = threading.Thread(target=server.run)
    serving.start()
    try:
        with pinning(tmp_path / "log") as pid:
            until(lambda: any(told.get("pid") == pid for told in said(tmp_path)))
        until(lambda: any(told["event"] == "reader let go" for told in said(tmp_path)))
    finally:
        server.stop()
        serving.join()
        writer.close()
    events = [told["event"] for told in said(tmp_path)]
    assert sorted(events) == ["disk is filling", "reader let go", "reader pins pages"]
    reader = LogReader.open(tmp_path / "log")
    found = contents(reader).figures()
    reader.close()
    assert 0 < found["disk_free_share"] < 1 and found["disk_free_bytes"] > 0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
