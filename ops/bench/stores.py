"""Stores behind one method: append a batch, on disk when it returns.

Each is as its own manual would have it used for durable appends. The raw file is the disk's limit:
it can find nothing again and promises no order, no index, no once.
"""

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import lmdb

from mmzero_async.log.writer import LogWriter, Submission
from mmzero_async.schemas.blobs import blob_digest

MAP_BYTES = 64 << 30


class Item(NamedTuple):
    """An event's body, and the picture that belongs to it."""

    body: bytes
    blob: bytes | None = None
    kind: str = "benched"

    @property
    def size(self) -> int:
        return len(self.body) + len(self.blob or b"")


class Store(Protocol):
    def append(self, batch: Sequence[Item]) -> None: ...

    def close(self) -> None: ...


class OurLog:
    """Every event a message of its own, with checksum, sequence and the blob's digest."""

    def __init__(self, folder: Path, *, sync: str = "full") -> None:
        self.writer = LogWriter(folder / "log", run="bench", map_gib=64, sync=sync)
        self._sequence = 0

    def append(self, batch: Sequence[Item]) -> None:
        messages = []
        for body, blob, kind in batch:
            blobs = {blob_digest(blob): blob} if blob is not None else {}
            messages.append([Submission("bench", 1, self._sequence, kind, body, blobs)])
            self._sequence += 1
        for answer in self.writer.append(messages):
            if isinstance(answer, Exception):
                raise answer

    def close(self) -> None:
        self.writer.close()


class BareLmdb:
    """Two databases, values under a counter, one transaction a batch."""

    def __init__(self, folder: Path) -> None:
        self._env = lmdb.open(str(folder / "bare"), map_size=MAP_BYTES, max_dbs=2, meminit=False)
        self._events, self._blobs = (self._env.open_db(name) for name in (b"events", b"blobs"))
        self._next = 0

    def append(self, batch: Sequence[Item]) -> None:
        with self._env.begin(write=True) as txn:
            for body, blob, _ in batch:
                key = self._next.to_bytes(8, "big")
                txn.put(key, body, db=self._events, append=True)
                if blob is not None:
                    txn.put(key, blob, db=self._blobs, append=True)
                self._next += 1

    def close(self) -> None:
        self._env.close()


class RawFile:
    """One write and one fdatasync a batch."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "raw", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)

    def append(self, batch: Sequence[Item]) -> None:
        os.write(self._file, b"".join(body + (blob or b"") for body, blob, _ in batch))
        os.fdatasync(self._file)

    def close(self) -> None:
        os.close(self._file)


class TwoFlushes(RawFile):
    """What LMDB's promise costs at least: the data on disk, then the page that makes it true."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._root = os.open(folder / "root", os.O_CREAT | os.O_WRONLY | os.O_DSYNC, 0o644)

    def append(self, batch: Sequence[Item]) -> None:
        super().append(batch)
        os.pwrite(self._root, bytes(120), 0)

    def close(self) -> None:
        super().close()
        os.close(self._root)


class SqliteWal:
    """WAL with synchronous=FULL: the setting that survives a power cut."""

    def __init__(self, folder: Path) -> None:
        self._db = sqlite3.connect(folder / "sqlite.db", isolation_level=None)
        for statement in (
            "PRAGMA journal_mode=WAL",
            "PRAGMA synchronous=FULL",
            "CREATE TABLE events (id INTEGER PRIMARY KEY, body BLOB)",
            "CREATE TABLE blobs (id INTEGER PRIMARY KEY, body BLOB)",
        ):
            self._db.execute(statement)

    def append(self, batch: Sequence[Item]) -> None:
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO events (body) VALUES (?)", [(i.body,) for i in batch])
        blobs = [(item.blob,) for item in batch if item.blob is not None]
        if blobs:
            self._db.executemany("INSERT INTO blobs (body) VALUES (?)", blobs)
        self._db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()
