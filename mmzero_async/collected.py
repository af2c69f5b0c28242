"""Log lines of other hosts, as they are kept on the log server's host.

    <run>/logs/hosts/<host>.jsonl   of all its processes, bounded as one of ours: LogsOptions

Lines come in batches, numbered by who sends them, so that one that comes twice is written once.
Trust nobody: what is no line of ours is counted and left out, and a line's host is whoever sent it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from mmzero_async.telemetry import HOSTS, LINES, LOGS, Lines
from mmzero_async.telemetry_options import LogsOptions

MOST_HOSTS = 256
LONGEST = 32 << 10  # bytes of a line
_lines: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])


class TooManyHosts(Exception):
    """More hosts than lines are kept of."""


@dataclass(slots=True)
class _Host:
    file: Lines
    sender: str = ""
    number: int = -1  # of its newest batch


@dataclass(slots=True)
class Collected:
    """Writes them. One a run: `logs/hosts/` is its own."""

    run_dir: Path
    options: LogsOptions
    _hosts: dict[str, _Host] = field(default_factory=dict)

    def take(self, host: str, sender: str, number: int, lines: Sequence[bytes]) -> int:
        """Writes a batch, unless it was written before; how many of its lines were none of ours.

        Args:
            host: its name, fit for a file's.
            sender: of the process there that sends, random.
            number: of the batch, growing.

        Raises TooManyHosts. A disk that is full costs lines and nothing else.
        """
        known = self._hosts.get(host)
        if known is None:
            if len(self._hosts) >= MOST_HOSTS:
                raise TooManyHosts(f"lines are kept of {MOST_HOSTS} hosts, and {host} is one more")
            path = self.run_dir / LOGS / HOSTS / f"{host}{LINES}"
            known = self._hosts[host] = _Host(Lines(path, self.options))
        if known.sender == sender and number <= known.number:
            return 0
        known.sender, known.number = sender, number
        strange = 0
        for line in lines:
            told = _told(line)
            if told is None:
                strange += 1
            else:
                known.file.write(msgspec.json.encode(told | {"host": host}).decode() + "\n")
        return strange


def _told(line: bytes) -> dict[str, Any] | None:
    if len(line) > LONGEST:
        return None
    try:
        return _lines.decode(line)
    except (ValueError, RecursionError):
        return None
