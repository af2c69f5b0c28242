"""A host's log shipper: sends the JSON lines of all its processes to the log server's host.

`python -m mmzero_async.workers.log_shipper --run-dir DIR --read-url URL --key FILE`. It reads the
files that the processes write anyway, so no process knows of it or waits for it, and the last words
of one that was killed are sent too. It may die without harm: how far it came is in
logs/shipped.json. What does not get through fast enough is dropped, oldest first, and counted.
"""

import argparse
import contextlib
import os
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from mmzero_async import telemetry
from mmzero_async.collected import LONGEST
from mmzero_async.config import from_json
from mmzero_async.lines_followed import Followed, Place
from mmzero_async.telemetry import LINES, LOGS
from mmzero_async.transport.errors import TransportError, hopeless
from mmzero_async.transport.keys import client_keys, local_keys
from mmzero_async.transport.line_sender import BATCH_BYTES, LineSender

SHIPPED = "shipped.json"  # in the folder of logs: file -> Place
QUEUE_BYTES = 1 << 20  # of lines that wait to be sent
LOOK_BYTES = 4 << 20  # of one file, before the others have their turn
LOOK_SECONDS = 0.5
LAST_SECONDS = 2.0  # for what is left, when it is asked to stop
AWAY_SECONDS = 30.0  # without an answer before that is told
_NICENESS = 10  # the run's work comes first
_CUT = 500  # characters that are left of a text in a line that is too long
_places = msgspec.json.Decoder(dict[str, Place])


class Waiting(NamedTuple):
    line: bytes  # without its newline
    file: str
    place: Place  # behind it


@dataclass(slots=True)
class Waiters:
    """Lines on their way, bounded: beyond `most` bytes the oldest are dropped, and counted."""

    most: int
    queue: deque[Waiting] = field(default_factory=deque)
    bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # file -> lines

    def put(self, waiting: Waiting) -> None:
        self.queue.append(waiting)
        self.bytes += len(waiting.line)
        while self.bytes > self.most:
            gone = self.queue.popleft()
            self.bytes -= len(gone.line)
            self.dropped[gone.file] += 1

    def batch(self, most: int) -> list[Waiting]:
        """The oldest, at most so many bytes of them; they wait no more."""
        found: list[Waiting] = []
        while self.queue and len(self.queue[0].line) <= most:
            found.append(self.queue.popleft())
            most -= len(found[-1].line) + 16  # what packs it
            self.bytes -= len(found[-1].line)
        return found


class Shipper:
    """Follows a folder of logs, and sends what is new there."""

    def __init__(self, run_dir: Path, host: str, sender: LineSender) -> None:
        self.logs, self.host, self.sender = run_dir / LOGS, host, sender
        self.run = run_dir.name
        self.waiters = Waiters(QUEUE_BYTES)
        self.followed: dict[str, Followed] = {}
        self.shipped: dict[str, Place] = _read_places(self.logs / SHIPPED)
        self._underway: list[Waiting] = []

    def look(self) -> None:
        """Takes in what was written since the last look."""
        for path in sorted(self.logs.glob(f"*{LINES}")):
            if path.name not in self.followed:
                self.followed[path.name] = Followed(path, self.shipped.get(path.name))
        for name, followed in self.followed.items():
            read = 0
            with contextlib.closing(followed.written()) as lines:
                for line in lines:
                    place = followed.place
                    assert place is not None
                    self.waiters.put(Waiting(shortened(line.rstrip(b"\n")), name, place))
                    read += len(line)
                    if read >= LOOK_BYTES:
                        break

    def send(self, seconds: float) -> None:
        """For so long, or until nothing waits. WorkerRefused."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self.sender.free and not self._begin():
                return
            if self.sender.wait(left):
                self._ship()

    @property
    def idle(self) -> bool:
        return self.sender.free and not self.waiters.queue and not self.waiters.dropped

    def _begin(self) -> bool:
        """Sends the next batch; False when there is none."""
        told = _dropped(self.waiters.dropped, self.run, self.host)
        self._underway = self.waiters.batch(BATCH_BYTES - sum(map(len, told)))
        lines = [*told, *(waiting.line for waiting in self._underway)]
        if lines:
            self.waiters.dropped.clear()
            self.sender.send(lines)
        return bool(lines)

    def _ship(self) -> None:
        """What was under way has arrived. A full disk costs what is sent twice after a restart."""
        if not self._underway:
            return
        self.shipped |= {waiting.file: waiting.place for waiting in self._underway}
        draft = self.logs / f".{SHIPPED}"
        with contextlib.suppress(OSError):
            draft.write_bytes(msgspec.json.encode(self.shipped))
            draft.replace(self.logs / SHIPPED)

    def close(self) -> None:
        for followed in self.followed.values():
            followed.close()
        self.sender.close()


def _read_places(path: Path) -> dict[str, Place]:
    try:
        return _places.decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError):
        return {}


def _dropped(dropped: Mapping[str, int], run: str, host: str) -> list[bytes]:
    """The line that says so, as the processes' own lines are."""
    if not dropped:
        return []
    told = {
        "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "level": "warning",
        "event": "lines dropped",
        "run": run,
        "host": host,
        "process": f"{host}.log-shipper",
        "count": sum(dropped.values()),
        "of": {file.removesuffix(LINES): count for file, count in dropped.items()},
    }
    return [msgspec.json.encode(told)]


def shortened(line: bytes) -> bytes:
    """A line that the other end takes: of a long one the texts' beginnings, and how long it was."""
    if len(line) <= LONGEST:
        return line
    try:
        told = msgspec.json.decode(line, type=dict[str, Any])
    except (ValueError, RecursionError):
        told = {"event": line[:_CUT].decode(errors="replace")}
    kept = {
        key: value[:_CUT] if isinstance(value, str) else value
        for key, value in told.items()
        if isinstance(value, str | int | float | bool)
    }
    short = msgspec.json.encode(kept | {"cut_from_bytes": len(line)})
    if len(short) <= LONGEST:
        return short
    return msgspec.json.encode({"event": "a line too long", "cut_from_bytes": len(line)})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--read-url", required=True, help="the read server beside the log")
    parser.add_argument("--key", type=Path, help="secret key file; default: `local` of log.keys")
    args = parser.parse_args()
    run_dir: Path = args.run_dir
    os.nice(_NICENESS)
    config = from_json((run_dir / "config.json").read_text())
    host = telemetry.host_name()
    logger = telemetry.configure(run_dir, f"{host}.log-shipper", config.logs, run=run_dir.name)
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        keys = client_keys(args.key) if args.key else local_keys(config.log.keys)
        shipper = Shipper(run_dir, host, LineSender(args.read_url, host, keys))
        try:
            logger.info("log shipper ready", to=args.read_url)
            away = False
            while not stopping:
                shipper.look()
                shipper.send(LOOK_SECONDS)
                if away != (shipper.sender.unanswered_seconds > AWAY_SECONDS):
                    away = not away
                    logger.warning("the log's host does not answer" if away else "answers again")
                if shipper.idle and not stopping:
                    time.sleep(LOOK_SECONDS)
            shipper.look()
            shipper.send(LAST_SECONDS)
        finally:
            shipper.close()
    except (TransportError, ValueError, OSError) as error:
        logger.error("log shipper stopped", error=str(error))
        print(f"log shipper: {error}", file=sys.stderr)
        return os.EX_CONFIG if hopeless(error) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
