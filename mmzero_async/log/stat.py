"""`mmzero log stat`: what a log holds and what it costs, kind by kind. One scan, nothing judged."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from mmzero_async.log.environment import DATABASES, INDEX, MAX_READERS, PRODUCER
from mmzero_async.log.pages import Pages
from mmzero_async.log.reader import LogReader
from mmzero_async.log.tombstones import decode_tombstone
from mmzero_async.log.watch import free_share, pinned_bytes, slots


@dataclass(frozen=True, slots=True)
class Reading:
    """A taken reader slot."""

    process: int
    commits_behind: int | None  # None: idle
    pinned_bytes: int  # of free pages that it keeps from being used again


@dataclass(slots=True)
class Contents:
    """Counts by kind, and the file as it is."""

    run: str
    events: Counter[str] = field(default_factory=Counter)  # kind -> number
    bytes: Counter[str] = field(default_factory=Counter)  # kind -> bytes of the bodies
    blobs: int = 0
    blob_bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # archive -> blobs that went there
    dropped_bytes: int = 0
    producers: dict[str, tuple[int, int]] = field(default_factory=dict)  # -> epoch, next sequence
    readers: list[Reading] = field(default_factory=list)
    disk_free_bytes: int = 0  # on the file system that the log lies on
    disk_free_share: float = 1.0
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
            "dropped": self.dropped.total(),
            "dropped_bytes": self.dropped_bytes,
            "dropped_to": dict(self.dropped),
            "producers": {
                name: {"epoch": epoch, "next_sequence": sequence}
                for name, (epoch, sequence) in sorted(self.producers.items())
            },
            "readers": [
                {
                    "pid": reading.process,
                    "commits_behind": reading.commits_behind,
                    "pinned_bytes": reading.pinned_bytes,
                }
                for reading in self.readers
            ],
            "reader_slots": MAX_READERS,
            "disk_bytes": self.disk_bytes,
            "disk_free_bytes": self.disk_free_bytes,
            "disk_free_share": round(self.disk_free_share, 4),
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
        if environment.dropped is not None:
            with txn.cursor(environment.dropped) as cursor:
                for key, data in cursor:
                    tombstone = decode_tombstone(bytes(key), bytes(data))
                    found.dropped[tombstone.archive] += 1
                    found.dropped_bytes += tombstone.size
    _measure_file(reader, found)
    return found


def _measure_file(reader: LogReader, found: Contents) -> None:
    """Pages of one snapshot: what no tree holds is free, and will be used again."""
    environment = reader.environment
    pages = Pages(environment.path / "data.mdb")
    try:
        snapshot = pages.newest()
        trees, _ = pages.trees(snapshot)
        held = sum(trees[name].pages for name in (*DATABASES, INDEX) if name in trees)
        found.used_pages = 2 + snapshot.main.pages + snapshot.free.pages + held
        found.free_pages = max(0, snapshot.last_page + 1 - found.used_pages)
        found.page_size = pages.page_size
        found.disk_bytes = (environment.path / "data.mdb").stat().st_blocks * 512
        found.disk_free_bytes, found.disk_free_share = free_share(environment)
        for slot in slots(environment.lmdb.readers()):
            if slot.commit is None:
                found.readers.append(Reading(slot.process, None, 0))
            else:
                behind = max(0, snapshot.transaction - slot.commit)
                pinned = pinned_bytes(environment, slot.commit) if behind else 0
                found.readers.append(Reading(slot.process, behind, pinned))
    finally:
        pages.close()
