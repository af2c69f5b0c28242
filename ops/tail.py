"""Follows the JSON lines of all processes of a run, merged, in colour for people.

On the log server's host those of the other hosts too, as far as they have come.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mmzero_async.lines_followed import Followed, Line
from mmzero_async.telemetry import HOSTS, LINES, LOGS

LEVELS = ("debug", "info", "warning", "error", "critical")
COLOURS = {"warning": "yellow", "error": "bold red", "critical": "bold red"}


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
    """The processes, and other hosts, of which no file was known."""
    logs = run_dir / LOGS
    there = {*logs.glob(f"*{LINES}"), *(logs / HOSTS).glob(f"*{LINES}")}
    paths = sorted(there - known.keys())
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
