"""Log lines: bounded on disk, whole whatever befalls the disk, followed across the files."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from small_disk import SmallDisk

from mmzero_async import telemetry
from mmzero_async.ops import tail
from mmzero_async.telemetry import Lines, bound_printed, generation
from mmzero_async.telemetry_options import LogsOptions

EVERYTHING = tail.Wanted()


@pytest.fixture(autouse=True)
def _structlog_as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def options(size: int, keep: int) -> LogsOptions:
    return LogsOptions(file_mib=size / (1 << 20), keep=keep)


def line(number: int, pad: int = 0) -> str:
    return json.dumps({"timestamp": f"{number:09}", "n": number, "pad": "x" * pad}) + "\n"


def sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def written(path: Path, keep: int) -> list[int]:
    """The numbers on disk, the oldest first; a line that is no JSON fails."""
    files = [generation(path, number) for number in range(keep, -1, -1)]
    texts = [file.read_text() for file in files if file.exists()]
    return [json.loads(text)["n"] for text in "".join(texts).splitlines()]


@given(pads=st.lists(st.integers(0, 300), min_size=1, max_size=60), keep=st.integers(0, 3))
def test_lines_take_no_more_room_than_said_and_the_newest_are_there(
    pads: list[int], keep: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.jsonl"
        lines = Lines(path, options(512, keep))
        for number, pad in enumerate(pads):
            lines.write(line(number, pad))
            found = sizes(path.parent)
            assert len(found) <= keep + 1 and max(found.values()) <= 512
        kept = written(path, keep)
        assert kept == list(range(len(pads)))[-len(kept) :]
        longest = len(line(len(pads), max(pads)))
        everything = sum(len(line(number, pad)) for number, pad in enumerate(pads))
        assert sum(sizes(path.parent).values()) >= min(everything, keep * (512 - longest) + 1)


looks = st.lists(st.one_of(st.none(), st.integers(1, 12)), max_size=30)  # None: a look


@given(did=looks, last=st.integers(0, 20), begun=st.integers(0, 30))
def test_tail_shows_every_line_once_in_order_across_the_files(
    did: list[int | None], last: int, begun: int
) -> None:
    """As long as it looks before the oldest file is dropped; 60 files are more than it takes."""
    with tempfile.TemporaryDirectory() as folder:
        lines = Lines(Path(folder) / "logs" / "p.jsonl", options(120, 60))
        for number in range(begun):
            lines.write(line(number))
        pending = iter(did)
        count = begun

        def sleep(_: float) -> None:
            nonlocal count
            for what in pending:
                if what is None:
                    return
                for number in range(count, count + what):
                    lines.write(line(number))
                count += what
            raise EOFError

        seen = []
        with pytest.raises(EOFError):
            for shown in tail.follow(
                Path(folder), EVERYTHING, forever=True, last=last, sleep=sleep
            ):
                seen.append(shown["n"])
        first = max(0, begun - last)
        looked = begun + sum(n or 0 for n in did[: _last_look(did)])
        assert seen == list(range(first, looked))


def _last_look(did: list[int | None]) -> int:
    return len(did) - did[::-1].index(None) if None in did else 0


def test_tail_goes_on_where_files_were_dropped_before_it_looked(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "logs" / "p.jsonl", options(120, 1))
    lines.write(line(0))

    def sleep(_: float) -> None:
        if len(seen) > 1:
            raise EOFError
        for number in range(1, 40):
            lines.write(line(number))
            kept[:] = written(tmp_path / "logs" / "p.jsonl", 1)

    seen: list[int] = []
    kept: list[int] = []
    with pytest.raises(EOFError):
        for shown in tail.follow(tmp_path, EVERYTHING, forever=True, last=9, sleep=sleep):
            seen.append(shown["n"])
    held = list(range(kept[0]))[: len(seen) - len(kept)]  # the dropped file that it had open
    assert len(held) < kept[0], "nothing was dropped"
    assert seen == held + kept and kept[-1] == 39


def test_a_worker_and_its_successor_write_to_one_name_without_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    one, other = (Lines(path, options(400, 9)) for _ in range(2))
    for number in range(60):
        (one if number % 3 else other).write(line(number))
    kept = written(path, 9)
    assert len(kept) == len(set(kept)) and sum(sizes(tmp_path).values()) <= 2 * 400 * 10
    assert sorted(kept)[-20:] == list(range(40, 60))


def test_a_line_that_a_crash_cut_short_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "p.jsonl"
    path.parent.mkdir()
    path.write_text(line(1) + line(2)[:9])
    Lines(path, LogsOptions()).write(line(3))
    found = tail.follow(tmp_path, EVERYTHING, forever=False, last=9)
    assert [shown["n"] for shown in found] == [1, 3]


def test_a_full_disk_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path / "disk")
    if not disk.mounted:
        pytest.skip("mounting needs rights that we do not have")
    try:
        logger = telemetry.configure(disk.folder, "p", options(100_000, 2), run="r")
        logger.info("before", n=0)
        disk.fill()
        for number in range(1, 2000):  # across a page's and a file's end
            logger.info("full", n=number, pad="x" * 150)
        disk.make_room()
        logger.info("after", n=-1)
        found = list(tail.follow(disk.folder, EVERYTHING, forever=False, last=9999))
        assert found[0]["event"] == "before" and found[-1]["event"] == "after"
        assert 2 <= len(found) < 1000
    finally:
        disk.close()


def test_logs_that_cannot_be_written_begin_when_they_can(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way")
    logger = telemetry.configure(tmp_path, "p", run="r")
    logger.info("lost")
    (tmp_path / "logs").unlink()
    logger.info("kept")
    [found] = tail.follow(tmp_path, EVERYTHING, forever=False, last=9)
    assert found["event"] == "kept"


PRINTER = """
import sys
for word in sys.stdin:
    print(word.strip() * 100, flush=True)
"""


def test_what_a_process_prints_is_bounded_while_it_runs(tmp_path: Path) -> None:
    printed = tmp_path / "logs" / "engine.log"
    printed.parent.mkdir()
    with printed.open("ab") as out:
        child = subprocess.Popen(
            [sys.executable, "-c", PRINTER], stdin=subprocess.PIPE, stdout=out, text=True
        )
    assert child.stdin is not None
    try:
        for word in "abcd":
            child.stdin.write(f"{word * 5}\n")
            child.stdin.flush()
            until(lambda word=word: word in printed.read_text())
            bound_printed(tmp_path, options(300, 2))
    finally:
        child.communicate("end\n")
    assert printed.read_text() == "end" * 100 + "\n"
    # One that was full is cut to its end; the oldest went.
    assert [generation(printed, n).read_text()[:1] for n in (1, 2)] == ["d", "c"]
    assert max(sizes(printed.parent).values()) == 301 and len(sizes(printed.parent)) == 3


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_lines_say_run_host_and_process_and_are_found_by_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: dict[str, Any] = {"run": "r", "role": "solver"}
    for host in ("h1", "h2"):
        monkeypatch.setenv(telemetry.HOST, host)
        telemetry.configure(tmp_path, f"{host}.solver-0", **said).info("here")
    every = list(tail.follow(tmp_path, EVERYTHING, forever=False, last=9))
    assert [(t["host"], t["process"], t["run"]) for t in every] == [
        ("h1", "h1.solver-0", "r"),
        ("h2", "h2.solver-0", "r"),
    ]
    found = tail.follow(tmp_path, tail.Wanted(host="h2"), forever=False, last=9)
    assert [t["host"] for t in found] == ["h2"]
