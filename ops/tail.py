"""Follows the JSON lines of all processes of a run, merged, in colour for people."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmzero_async.telemetry import LOGS

LEVELS = ("debug", "info", "warning", "error", "critical")
COLOURS = {"warning": "yellow", "error": "bold red", "critical": "bold red"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines are shown; empty: all."""

    role: str = ""
    level: str = "debug"
    lineage: str = ""

    def __call__(self, line: dict[str, Any]) -> bool:
        if self.role and self.role not in (line.get("role"), line.get("process")):
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
) -> Iterator[dict[str, Any]]:
    """The last lines of all files in order of time, then new ones as they come."""
    positions: dict[Path, int] = {}
    earlier = sorted(_new_lines(run_dir, positions), key=lambda line: str(line.get("timestamp")))
    yield from [line for line in earlier if wanted(line)][-last:]
    while forever:
        sleep(0.3)
        fresh = sorted(_new_lines(run_dir, positions), key=lambda line: str(line.get("timestamp")))
        yield from filter(wanted, fresh)


def _new_lines(run_dir: Path, positions: dict[Path, int]) -> Iterator[dict[str, Any]]:
    """Complete lines that were added since the last call; a line that is no JSON is skipped."""
    for path in sorted((run_dir / LOGS).glob("*.jsonl")):
        with path.open("rb") as file:
            file.seek(positions.get(path, 0))
            data = file.read()
        end = data.rfind(b"\n") + 1
        positions[path] = positions.get(path, 0) + end
        for raw in data[:end].splitlines():
            try:
                line = json.loads(raw)
            except ValueError:
                continue
            if isinstance(line, dict):
                yield line


def text(line: dict[str, Any]) -> tuple[str, str]:
    """(what to print, its colour)"""
    told = dict(line)
    when = str(told.pop("timestamp", ""))[11:23]
    level, process = str(told.pop("level", "info")), str(told.pop("process", "?"))
    event = str(told.pop("event", ""))
    for key in ("run", "role"):
        told.pop(key, None)
    rest = " ".join(f"{key}={value}" for key, value in told.items())
    return f"{when} {level:7} {process:13} {event} {rest}", COLOURS.get(level, "")
