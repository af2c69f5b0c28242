"""`mmzero log stat`: what a log holds and what it costs, kind by kind. One scan, nothing judged."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from mmzero_async.log.environment import MAX_READERS, PRODUCER
from mmzero_async.log.pages import Pages
from mmzero_async.log.reader import LogReader

_HELD_TREES = ("events", "sequences", "producers", "blobs", "meta", "index")


@dataclass(slots=True)
class Contents:
    """Counts by kind, and the file as it is."""

    run: str
    events: Counter[str] = field(default_factory=Counter)  # kind -> number
    bytes: Counter[str] = field(default_factory=Counter)  # kind -> bytes of the bodies
    blobs: int = 0
    blob_bytes: int = 0
    producers: dict[str, tuple[int, int]] = field(default_factory=dict)  # -> epoch, next sequence
    readers: list[tuple[int, int | None]] = field(default_factory=list)  # process, commits behind
    disk_bytes: int = 0
    used_pages: int = 0
    free_pages: int = 0
    page_size: int = 0

    def figures(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "events": self.events.total(),
            "kinds": {
                kind: {"events": count, "bytes": self.bytes[kind]}
                for kind, count in sorted(self.events.items())
            },
            "blobs": self.blobs,
            "blob_bytes": self.blob_bytes,
            "producers": {
                name: {"epoch": epoch, "next_sequence": sequence}
                for name, (epoch, sequence) in sorted(self.producers.items())
            },
            "readers": [{"pid": pid, "commits_behind": behind} for pid, behind in self.readers],
            "reader_slots": MAX_READERS,
            "disk_bytes": self.disk_bytes,
            "used_pages": self.used_pages,
            "free_pages": self.free_pages,
            "page_size": self.page_size,
        }


def contents(reader: LogReader) -> Contents:
    """Of a log as it is now; a writer may go on meanwhile."""
    environment = reader.environment
    found = Contents(reader.run)
    for record in reader.scan():
        found.events[record.kind] += 1
        found.bytes[record.kind] += len(record.envelope.body)
    with environment.lmdb.begin(buffers=True) as txn:
        with txn.cursor(environment.producers) as cursor:
            for name, position in cursor:
                found.producers[bytes(name).decode()] = PRODUCER.unpack(position)
        with txn.cursor(environment.blobs) as cursor:
            for _, data in cursor:
                found.blobs += 1
                found.blob_bytes += len(data)
    _measure_file(reader, found)
    return found


def _measure_file(reader: LogReader, found: Contents) -> None:
    """Pages of one snapshot: what no tree holds is free, and will be used again."""
    environment = reader.environment
    pages = Pages(environment.path / "data.mdb")
    try:
        snapshot = pages.newest()
        trees, _ = pages.trees(snapshot)
        held = sum(trees[name].pages for name in _HELD_TREES if name in trees)
        found.used_pages = 2 + snapshot.main.pages + snapshot.free.pages + held
        found.free_pages = max(0, snapshot.last_page + 1 - found.used_pages)
        found.page_size = pages.page_size
        found.disk_bytes = (environment.path / "data.mdb").stat().st_blocks * 512
        found.readers = _readers(environment.lmdb.readers(), snapshot.transaction)
    finally:
        pages.close()


def _readers(table: str, newest: int) -> list[tuple[int, int | None]]:
    """LMDB's table as (process, commits behind; None: idle): `pid thread txnid` under a heading."""
    rows = [line.split() for line in table.splitlines()]
    return [
        (int(row[0]), max(0, newest - int(row[2])) if row[2].isdigit() else None)
        for row in rows
        if len(row) == 3 and row[0].isdigit()
    ]
