"""Two things that fill a disk unseen, looked at now and then: a reader that stands still, and the
disk itself. Each change of state is said once.

A read transaction keeps LMDB from using pages again that were freed since it began; the file grows
meanwhile. Looking costs a few system calls and, while some reader stands still, a bounded look at
the list of free pages.
"""

import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from mmzero_async.log.environment import Environment
from mmzero_async.log.pages import Entry, Pages

_COUNT = struct.Struct("<Q")  # of pages, at the head of a list of free ones
_MOST_LISTS = 20_000  # of free pages looked at: one a commit, at most
_ROOM_AGAIN = 1.25  # times the share that is low, so that a disk at the edge is told of once


@dataclass(frozen=True, slots=True)
class Slot:
    """One row of LMDB's table of readers."""

    process: int
    thread: str
    commit: int | None  # that it reads; None: idle


def slots(table: str) -> list[Slot]:
    """Of LMDB's own text: `pid thread txnid` under a heading, `-` for an idle one."""
    rows = [line.split() for line in table.splitlines()]
    return [
        Slot(int(row[0]), row[1], int(row[2]) if row[2].isdigit() else None)
        for row in rows
        if len(row) == 3 and row[0].isdigit()
    ]


def pinned_bytes(environment: Environment, commit: int) -> int:
    """Bytes of free pages that a reader of this commit keeps from being used again, at least."""
    pages = Pages(environment.path / "data.mdb")
    try:
        snapshot = pages.newest()
        lists = islice(pages.walk(snapshot, snapshot.free), _MOST_LISTS)
        pinned: int = sum(
            _COUNT.unpack_from(item.value)[0]
            for item in lists
            if isinstance(item, Entry) and _COUNT.unpack(item.key)[0] >= commit
        )
        return pages.page_size * pinned
    finally:
        pages.close()


def free_share(environment: Environment) -> tuple[int, float]:
    """Bytes that the log's disk has free for us, and their share of it."""
    disk = shutil.disk_usage(environment.path)
    return disk.free, disk.free / disk.total if disk.total else 1.0


@dataclass(slots=True)
class Watch:
    """`look` every few seconds; it says what has changed to the structured log."""

    environment: Environment
    logger: Any
    reader_seconds: float  # in one transaction, from which on a reader is told of
    low_share: float  # of the disk that is free, below which it is told of
    _since: dict[Slot, float] = field(default_factory=dict)  # first seen
    _told: set[Slot] = field(default_factory=set)
    _low: bool = False

    def look(self, now: float) -> None:
        """`now`: seconds of any steady clock."""
        self._look_at_readers(now)
        self._look_at_disk()

    def _look_at_readers(self, now: float) -> None:
        reading = [s for s in slots(self.environment.lmdb.readers()) if s.commit is not None]
        self._since = {slot: self._since.get(slot, now) for slot in reading}
        for gone in self._told - self._since.keys():
            self._told.discard(gone)
            self.logger.info("reader let go", pid=gone.process)
        newest = self.environment.lmdb.info()["last_txnid"]
        for slot in self._standing(self._since, now):
            self._told.add(slot)
            assert slot.commit is not None, "only readers of a commit are timed"
            self.logger.warning(
                "reader pins pages",
                pid=slot.process,
                seconds=round(now - self._since[slot], 1),
                commits_behind=newest - slot.commit,
                bytes=pinned_bytes(self.environment, slot.commit),
                do="end that process or let it read in short transactions: until then the log's "
                "file grows instead of using its free pages",
            )

    def _standing(self, since: Mapping[Slot, float], now: float) -> list[Slot]:
        return [
            slot
            for slot, first in since.items()
            if slot not in self._told and now - first >= self.reader_seconds
        ]

    def _look_at_disk(self) -> None:
        free, share = free_share(self.environment)
        if not self._low and share < self.low_share:
            self._low = True
            self.logger.warning(
                "disk is filling",
                folder=str(self.environment.path),
                free_bytes=free,
                free_share=round(share, 4),
                do="free space there; when the run has stopped, `mmzero log compact` makes the log "
                "smaller. A full disk loses nothing, the run waits for room",
            )
        elif self._low and share >= min(1.0, self.low_share * _ROOM_AGAIN):
            self._low = False
            self.logger.info("disk has room again", free_bytes=free, free_share=round(share, 4))
