"""Follows the JSON lines of all processes of a run, merged, in colour for people."""

import contextlib
import itertools
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mmzero_async.telemetry import LINES, LOGS, generation

LEVELS = ("debug", "info", "warning", "error", "critical")
COLOURS = {"warning": "yellow", "error": "bold red", "critical": "bold red"}
Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines are shown; empty: all."""

    role: str = ""
    level: str = "debug"
    lineage: str = ""
    host: str = ""

    def __call__(self, line: Line) -> bool:
        if self.role and self.role not in (line.get("role"), line.get("process")):
            return False
        if self.host and self.host != line.get("host"):
            return False
        level = str(line.get("level", "info"))
        if level in LEVELS and LEVELS.index(level) < LEVELS.index(self.level):
            return False
        told = " ".join(str(line.get(key, "")) for key in ("lineage", "work", "group"))
        return not self.lineage or self.lineage in told


class Followed:
    """One process's lines, across the files that it begins and drops.

    The file read last is kept open: so it is told from all others for sure, and is read to its end
    though it bears another name by now.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def last(self, wanted: Wanted, count: int) -> list[Line]:
        """The last lines that are there, in the order of writing; `new` goes on after them."""
        files = self._newer()
        found: list[Line] = []
        for file in reversed(files):
            if file is files[-1] or len(found) < count:
                found[:0] = deque(filter(wanted, _lines(file)), count - len(found))
        if files:
            self._keep(files.pop())
        for file in files:
            file.close()
        return found

    def new(self) -> Iterator[Line]:
        """What was written since the last call. Lines in files that were dropped since are lost."""
        if self._file is not None:
            yield from _lines(self._file)
        for file in self._newer():
            if self._file is not None:
                yield from _lines(self._file)  # what came before its successor did
            self._keep(file)
            yield from _lines(file)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _keep(self, file: BinaryIO) -> None:
        self.close()
        self._file = file

    def _newer(self) -> list[BinaryIO]:
        """Those younger than the one that is open, open too, the oldest first.

        Looked for from the newest to the oldest: if one is renamed meanwhile it is met twice, and
        none is missed but what is newer still.
        """
        found: list[BinaryIO] = []
        with contextlib.suppress(FileNotFoundError):
            for number in itertools.count():
                file = generation(self._path, number).open("rb")
                if self._file is not None and _same(file, self._file):
                    file.close()
                    break
                if found and _same(file, found[-1]):
                    file.close()
                    continue
                found.append(file)
        return found[::-1]


def _same(one: BinaryIO, other: BinaryIO) -> bool:
    return os.path.sameopenfile(one.fileno(), other.fileno())


def _lines(file: BinaryIO) -> Iterator[Line]:
    """Complete lines from where the file stands; one that is no JSON object is skipped."""
    while raw := file.readline():
        if not raw.endswith(b"\n"):
            file.seek(-len(raw), os.SEEK_CUR)
            return
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        if isinstance(line, dict):
            yield line


def follow(
    run_dir: Path,
    wanted: Wanted,
    *,
    forever: bool,
    last: int,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Line]:
    """The last lines of all processes in order of time, then new ones as they come."""
    known: dict[Path, Followed] = {}
    try:
        earlier = [line for one in _appeared(run_dir, known) for line in one.last(wanted, last)]
        yield from _in_time(earlier)[len(earlier) - last if last < len(earlier) else 0 :]
        while forever:
            sleep(0.3)
            _appeared(run_dir, known)
            fresh = [line for one in known.values() for line in one.new()]
            yield from filter(wanted, _in_time(fresh))
    finally:
        for one in known.values():
            one.close()


def _appeared(run_dir: Path, known: dict[Path, Followed]) -> list[Followed]:
    """The processes of which no file was known."""
    paths = sorted(set((run_dir / LOGS).glob(f"*{LINES}")) - known.keys())
    fresh = {path: Followed(path) for path in paths}
    known |= fresh
    return list(fresh.values())


def _in_time(lines: Iterable[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: str(line.get("timestamp")))


def text(line: Line) -> tuple[str, str]:
    """(what to print, its colour)"""
    told = dict(line)
    when = str(told.pop("timestamp", ""))[11:23]
    level, process = str(told.pop("level", "info")), str(told.pop("process", "?"))
    event = str(told.pop("event", ""))
    for key in ("run", "role", "host"):
        told.pop(key, None)
    if told.get("worker") == process:
        del told["worker"]
    rest = " ".join(f"{key}={value}" for key, value in told.items())
    return f"{when} {level:7} {process:13} {event} {rest}", COLOURS.get(level, "")
