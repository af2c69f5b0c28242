"""`mmzero log verify`: is every byte of a log what was acknowledged? Reads it all, writes nothing.

Checks each record's checksum and schema, that offsets are dense, that the sequences index and the
events name each other, each producer's position, the secondary index, each blob against its digest,
and that every picture that an event names is there or has its tombstone. It walks the file's pages
itself (`pages.py`), so that damage of any sort is counted and cannot end the process. Needs 16
bytes of memory an event and 8 a blob or tombstone.

Does not judge what events mean: whether groups are trained once is `mmzero replay --audit`.
"""

import time
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from mmzero_async.log.environment import DROPPED, OFFSET, PRODUCER, sequence_key
from mmzero_async.log.errors import ForeignLog, LogError
from mmzero_async.log.index_check import IndexCheck
from mmzero_async.log.pages import Damage, NotPages, Pages, Snapshot, Tree
from mmzero_async.log.reader import LogReader
from mmzero_async.log.tombstones import decode_tombstone
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import Answered, AnyEvent, Coded, Probed, Proposed, Rendered
from mmzero_async.schemas.record import Envelope, RecordDamaged, decode_record

MAX_NAMED = 100  # problems told one by one; all are counted
_NONE = 2**64 - 1


@dataclass(slots=True)
class Verification:
    """What was read, and what is wrong: `counts` by sort, the first ones in words."""

    run: str = ""
    events: int = 0
    event_bytes: int = 0
    blobs: int = 0
    blob_bytes: int = 0
    dropped: int = 0  # blobs that compaction took
    dropped_bytes: int = 0
    pictures: int = 0  # times that an event names a blob
    producers: int = 0
    first_bad_offset: int | None = None
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        return not self.counts

    def wrong(self, sort: str, text: str, offset: int | None = None) -> None:
        self.counts[sort] += 1
        if len(self.problems) < MAX_NAMED:
            self.problems.append(text if offset is None else f"offset {offset}: {text}")
        if offset is not None and (self.first_bad_offset is None or offset < self.first_bad_offset):
            self.first_bad_offset = offset

    def figures(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "clean": self.clean,
            "events": self.events,
            "event_bytes": self.event_bytes,
            "blobs": self.blobs,
            "blob_bytes": self.blob_bytes,
            "dropped": self.dropped,
            "dropped_bytes": self.dropped_bytes,
            "pictures_named": self.pictures,
            "producers": self.producers,
            "first_bad_offset": self.first_bad_offset,
            "counts": dict(self.counts),
            "problems": self.problems,
            "seconds": round(self.seconds, 3),
        }


def verify(log: Path) -> Verification:
    """Of the log in a folder, which may be written meanwhile. ForeignLog when it holds none.

    A writer may reuse pages of the state that is being read; what looks damaged then is read again
    in a snapshot that LMDB keeps from the writer.
    """
    began = time.perf_counter()
    try:
        pages = Pages(log / "data.mdb")
    except FileNotFoundError:
        raise LogError(f"no log at {log}: the folder holds no data.mdb") from None
    except NotPages as error:
        raise ForeignLog(str(error)) from error
    try:
        snapshot = pages.newest()
        found = _Verifier(pages, snapshot).run()
        if not found.clean and not pages.current(snapshot):
            found = _pinned(log, pages)
    finally:
        pages.close()
    found.seconds = time.perf_counter() - began
    return found


def _pinned(log: Path, pages: Pages) -> Verification:
    reader = LogReader.open(log)
    try:
        while True:
            with reader.environment.lmdb.begin() as transaction:
                snapshot = pages.of_transaction(transaction.id())
                if snapshot is not None:
                    return _Verifier(pages, snapshot).run()
    finally:
        reader.close()


class _Verifier:
    """One pass over each database, in an order in which each can be held against the one before."""

    def __init__(self, pages: Pages, snapshot: Snapshot) -> None:
        self._pages, self._snapshot = pages, snapshot
        self._found = Verification()
        self._trees, damages = pages.trees(snapshot)
        for damage in damages:
            self._damaged(damage)
        self._blobs = array("Q")  # the first 8 bytes of each sound blob's digest, sorted
        self._dropped = array("Q")  # the same of what was dropped
        self._keys = array("q")  # offset -> hash of its sequence key
        self._index = IndexCheck()
        self._positions: dict[str, tuple[int, int]] = {}  # producer -> (epoch, next sequence)

    def run(self) -> Verification:
        for problem in self._pages.meta_problems():
            self._found.wrong("pages", problem)
        self._check_meta()
        self._check_blobs()
        self._check_dropped()
        self._check_events()
        self._check_sequences()
        self._check_index()
        self._check_producers()
        for item in self._pages.walk(self._snapshot, self._snapshot.free):
            if isinstance(item, Damage):
                self._damaged(item)
        return self._found

    def _walk(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        """The sound entries; what is damaged, missing or too much is said."""
        tree = self._trees.get(name)
        if tree is None:
            self._found.wrong("pages", f"the database {name} is missing")
            return
        count, whole = 0, True
        for item in self._pages.walk(self._snapshot, tree):
            if isinstance(item, Damage):
                self._damaged(item, tree)
                whole = False
            else:
                count += 1
                yield item.key, item.value
        if whole and count != tree.entries:
            self._found.wrong(
                "pages", f"{name} holds {count} entries, its root says {tree.entries}"
            )

    def _damaged(self, damage: Damage, tree: Tree | None = None) -> None:
        offset = None
        if tree is not None and tree.name == "events":
            offset = len(self._keys)  # not from the last key: that may be another database's
        self._found.wrong("pages", str(damage), offset)

    def _check_meta(self) -> None:
        entries = dict(self._walk("meta"))
        self._found.run = entries.get(b"run", b"").decode("utf-8", "replace")
        if not {b"magic", b"format", b"run"} <= entries.keys():
            self._found.wrong("pages", "meta lacks the log's magic, format or run")
        self._has_index = b"index" in entries

    def _check_blobs(self) -> None:
        found = self._found
        for key, data in self._walk("blobs"):
            found.blobs += 1
            found.blob_bytes += len(data)
            if bytes.fromhex(blob_digest(data)) != key:
                found.wrong("blobs", f"blob {key.hex()} is damaged: it has another digest")
            else:
                self._blobs.append(int.from_bytes(key[:8], "big"))
        self._blobs = _ordered(self._blobs)

    def _check_dropped(self) -> None:
        found = self._found
        for key, data in self._walk("dropped") if "dropped" in self._trees else ():
            try:
                found.dropped_bytes += decode_tombstone(key, data).size
            except ValueError as error:
                found.wrong("dropped", str(error))
                continue
            found.dropped += 1
            short = int.from_bytes(key[:8], "big")
            if _holds(self._blobs, short):
                found.wrong("dropped", f"blob {key.hex()} is there and has a tombstone")
            self._dropped.append(short)
        self._dropped = _ordered(self._dropped)

    def _check_events(self) -> None:
        found = self._found
        for key, data in self._walk("events"):
            offset = OFFSET.unpack(key)[0] if len(key) == OFFSET.size else _NONE
            expected = len(self._keys)
            if not expected <= offset < self._most_events():
                found.wrong(
                    "offsets", f"the key {key.hex()} follows offset {expected - 1}", expected
                )
                continue
            if offset > expected:
                found.wrong("offsets", f"missing, as all up to {offset - 1}", expected)
                self._keys.extend([0] * (offset - expected))
                for _ in range(offset - expected):
                    self._index.add(None)
            found.events += 1
            found.event_bytes += len(data)
            self._keys.append(self._check_record(offset, data))

    def _most_events(self) -> int:
        """An offset beyond this is a damaged key: it must not make us reserve memory for a hole."""
        tree = self._trees["events"]
        return max(tree.entries, self._found.events + 1) + 1

    def _check_record(self, offset: int, data: bytes) -> int:
        """The hash of the record's key in the sequences index; 0 when there is none to look for."""
        found = self._found
        try:
            record = decode_record(offset, data)
        except RecordDamaged as error:
            found.wrong("records", str(error).partition(" is damaged: ")[2], offset)
            self._index.add(None)
            return 0
        self._index.add(record.envelope)
        try:
            event = record.event()
        except ValueError as error:
            found.wrong("records", f"its {record.kind} does not fit the schema: {error}", offset)
        else:
            for digest in named_blobs(event):
                found.pictures += 1
                if not self._has_blob(digest):
                    found.wrong(
                        "pictures", f"the blob {digest[:80]} is not there, or damaged", offset
                    )
        return _key_hash(record.envelope)

    def _has_blob(self, digest: str) -> bool:
        try:
            short = int(digest[:16], 16)
        except ValueError:
            return False
        return _holds(self._blobs, short) or _holds(self._dropped, short)

    def _check_sequences(self) -> None:
        found = self._found
        named = bytearray(len(self._keys))
        for key, value in self._walk("sequences"):
            whole = len(value) == OFFSET.size and len(key) > PRODUCER.size
            if not whole:
                found.wrong("sequences", f"the sequences index has an entry {key.hex()}")
                continue
            (offset,) = OFFSET.unpack(value)
            text = self._follow(key)
            if offset == DROPPED:
                continue
            if offset >= len(named):
                found.wrong("sequences", f"{text} is said to be at offset {offset}: not there")
            elif self._keys[offset] not in (0, hash(key) or 1):
                found.wrong("sequences", f"the index takes it for {text}, which it is not", offset)
            elif named[offset]:
                found.wrong("sequences", f"{text} is in the index a second time", offset)
            else:
                named[offset] = 1
        for offset, key_hash in enumerate(self._keys):
            if key_hash and not named[offset]:
                found.wrong("sequences", "the sequences index does not know it", offset)

    def _check_index(self) -> None:
        if self._has_index or "index" in self._trees:
            for problem, offset in self._index.problems(self._walk("index")):
                self._found.wrong("index", problem, offset)

    def _follow(self, key: bytes) -> str:
        """Who wrote, as which of its writings; within an epoch none may be skipped."""
        name, packed = key[: -PRODUCER.size - 1], key[-PRODUCER.size :]
        producer = name.decode("utf-8", "replace")
        epoch, sequence = PRODUCER.unpack(packed)
        last = self._positions.get(producer)
        expected = last[1] if last and last[0] == epoch else 0
        text = f"{producer} epoch {epoch} sequence {sequence}"
        if sequence != expected:
            self._found.wrong("sequences", f"{text} follows {expected - 1}: some are missing")
        self._positions[producer] = (epoch, sequence + 1)
        return text

    def _check_producers(self) -> None:
        stored = {}
        for key, value in self._walk("producers"):
            self._found.producers += 1
            if len(value) == PRODUCER.size:
                stored[key.decode("utf-8", "replace")] = PRODUCER.unpack(value)
        for producer, last in self._positions.items():
            position = stored.get(producer)
            if position is None or (position != last and not (position[0] > last[0])):
                self._found.wrong(
                    "producers",
                    f"producer {producer} stands at {position}, its last event leads to {last} "
                    "(epoch, next sequence)",
                )


def _ordered(found: "array[int]") -> "array[int]":
    """They come in order, unless a page is damaged."""
    return array("Q", sorted(found)) if any(a > b for a, b in pairwise(found)) else found


def _holds(ordered: "array[int]", wanted: int) -> bool:
    place = bisect_left(ordered, wanted)
    return place < len(ordered) and ordered[place] == wanted


def named_blobs(event: AnyEvent) -> list[str]:
    """The digests of all blobs that an event refers to."""
    match event:
        case Rendered():
            return [event.picture] if event.picture is not None else []
        case Proposed() | Coded() | Answered() | Probed():
            return event.generation.images
        case _:
            return []


def _key_hash(envelope: Envelope) -> int:
    """Never 0, which stands for a record that cannot be looked for."""
    return hash(sequence_key(envelope.producer, envelope.epoch, envelope.sequence)) or 1
