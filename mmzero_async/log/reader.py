"""Reading a log, also from other processes while it is written: only committed prefixes are seen.

Read transactions are short, so that a slow reader pins no pages.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from mmzero_async.log.environment import OFFSET, Environment, open_environment, readers_full
from mmzero_async.log.errors import BlobDropped, BlobMissing, LogError
from mmzero_async.log.interface import SNAPSHOT_SECONDS
from mmzero_async.log.query import Limits, NewestVersions, Page, Query, end_of
from mmzero_async.log.snapshot import Pinned
from mmzero_async.log.tombstones import Tombstone, decode_tombstone
from mmzero_async.log.where import ANYTHING, Where
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.record import Record, RecordDamaged, decode_record

_BATCH = 512
_BATCH_BYTES = 16 << 20
_ON_THE_LOOP = Limits(records=128, bytes=1 << 20, looked=1024)  # few milliseconds


@dataclass(frozen=True, slots=True)
class LogStats:
    events: int
    blobs: int
    bytes_used: int  # pages in use
    bytes_on_disk: int


class LogReader:
    """Committed events by offset, and blobs by digest."""

    def __init__(self, environment: Environment) -> None:
        self._env = environment
        self._newest = NewestVersions()

    @classmethod
    def open(cls, path: Path) -> "LogReader":
        """Read-only. LogError when there is no log, ForeignLog when it is not ours."""
        return cls(open_environment(path, write=False))

    @property
    def environment(self) -> Environment:
        """For the files of this room."""
        return self._env

    @property
    def run(self) -> str:
        return self._env.run

    @property
    def next_offset(self) -> int:
        """The number of committed events: the offset that the next one will get."""
        with self._begin() as txn:
            return end_of(txn, self._env)

    def get(self, offset: int) -> Record:
        """LogError when the offset is not committed; RecordDamaged when its checksum is wrong."""
        with self._begin(buffers=True) as txn:
            data = txn.get(OFFSET.pack(offset), db=self._env.events) if offset >= 0 else None
            if data is None:
                raise LogError(f"{self._env.path} has no event at offset {offset}")
            return decode_record(offset, data)

    def read(self, start: int, limit: int = _BATCH, max_bytes: int = _BATCH_BYTES) -> list[Record]:
        """Up to `limit` records or about `max_bytes` from an offset on, in one read transaction."""
        records: list[Record] = []
        size, expected = 0, start
        with (
            self._begin(buffers=True) as txn,
            txn.cursor(self._env.events) as cursor,
        ):
            if not cursor.set_range(OFFSET.pack(start)):
                return records
            for key, data in cursor:
                (offset,) = OFFSET.unpack(key)
                if offset != expected:
                    raise RecordDamaged(f"{self._env.path}: offset {expected} is missing")
                records.append(decode_record(offset, data))
                expected += 1
                size += len(data)
                if len(records) >= limit or size >= max_bytes:
                    break
        return records

    def scan(
        self, start: int = 0, stop: int | None = None, where: Where = ANYTHING
    ) -> Iterator[Record]:
        """Wanted records of [start, stop), or up to the end as it is when the scan gets there."""
        start = max(start, 0)
        if not where.anything:
            yield from self._scan_wanted(start, stop, where)
            return
        while stop is None or start < stop:
            limit = _BATCH if stop is None else min(_BATCH, stop - start)
            records = self.read(start, limit)
            if not records:
                return
            yield from records
            start += len(records)

    def _scan_wanted(self, start: int, stop: int | None, where: Where) -> Iterator[Record]:
        while True:
            page = self.page(where, start, stop)
            yield from page.records
            start = page.next
            if start >= (page.end if stop is None else min(stop, page.end)):
                return

    def page(
        self,
        where: Where = ANYTHING,
        start: int = 0,
        stop: int | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> Page:
        """What is wanted of [start, stop), as far as the limits go, in one read transaction.

        It may be nothing yet; `next` says where to go on. RecordDamaged.
        """
        with self._begin(buffers=True) as txn:
            found = Query(self._env, where, self._newest).rows(txn, start, stop, limits)
            records = [row.record or decode_record(row.offset, row.data) for row in found.rows]
        return Page(records, found.next, found.end)

    def packed_page(
        self, where: Where, start: int, stop: int | None, limits: Limits
    ) -> tuple[list[int], list[int], bytes, int, int]:
        """A page as it lies in the log: offsets, sizes, all bytes in one piece, next, end."""
        with self._begin(buffers=True) as txn:
            found = Query(self._env, where, self._newest).rows(txn, start, stop, limits)
            # The map's bytes are only ours within the transaction: this is the one copy of them.
            packed = b"".join(row.data for row in found.rows)
        offsets, sizes = [row.offset for row in found.rows], [len(row.data) for row in found.rows]
        return offsets, sizes, packed, found.next, found.end

    async def follow(
        self, start: int = 0, where: Where = ANYTHING, *, poll: float = 0.05
    ) -> AsyncGenerator[Record, None]:
        """Wanted records from an offset on, as they are committed, for ever.

        Looks again every `poll` seconds where there is nothing new; holds nothing in between.
        """
        while True:
            page = self.page(where, start, limits=_ON_THE_LOOP)
            for record in page.records:
                yield record
            start = page.next
            await asyncio.sleep(poll if start >= page.end else 0)

    @contextlib.contextmanager
    def snapshot(self, seconds: float = SNAPSHOT_SECONDS) -> Iterator["Snapshot"]:
        """The log as it is now, unchanged for at most so many seconds; then SnapshotOver."""
        pinned = Pinned(self._snapshot(buffers=True), seconds, str(self._env.path))
        try:
            yield Snapshot(self._env, pinned)
        finally:
            pinned.end()

    async def wait(self, offset: int, *, seconds: float, poll: float = 0.05) -> bool:
        """Whether an event at `offset` is committed within so many seconds."""
        # LMDB tells nobody of a commit in another process: looking again is all there is.
        for _ in range(max(1, round(seconds / poll))):
            if self.next_offset > offset:
                return True
            await asyncio.sleep(poll)
        return self.next_offset > offset

    def blob(self, digest: str) -> bytes:
        """The blob's bytes, checked against their digest.

        BlobDropped when compaction took it, BlobMissing when it was never there, RecordDamaged.
        """
        key = _blob_key(digest)
        with self._begin() as txn:
            data = txn.get(key, db=self._env.blobs) if key else None
        if data is None:
            raise self._why_absent(digest)
        if blob_digest(data) != digest:
            raise RecordDamaged(f"{self._env.path}: blob {digest} is damaged")
        return bytes(data)

    def _why_absent(self, digest: str) -> LogError:
        tombstone = self.tombstone(digest)
        if tombstone is None:
            return BlobMissing(f"{self._env.path} has no blob {digest}")
        return BlobDropped(
            f"{self._env.path}: picture {digest} was {tombstone} ({tombstone.size} bytes; kept "
            f"were {tombstone.reason})"
            + (
                f": `mmzero log restore {tombstone.archive} RUN --pictures` brings it back"
                if tombstone.archive
                else ""
            )
        )

    def tombstone(self, digest: str) -> Tombstone | None:
        """What compaction left in a blob's place; None for one that it did not drop."""
        key = _blob_key(digest)
        if key is None or self._env.dropped is None:
            return None
        with self._begin() as txn:
            data = txn.get(key, db=self._env.dropped)
        try:
            return decode_tombstone(key, data) if data is not None else None
        except ValueError as error:
            raise RecordDamaged(f"{self._env.path}: {error}") from error

    def has_blob(self, digest: str) -> bool:
        key = _blob_key(digest)
        with self._begin() as txn, txn.cursor(self._env.blobs) as cursor:
            return key is not None and bool(cursor.set_key(key))

    def stats(self) -> LogStats:
        info, stat = self._env.lmdb.info(), self._env.lmdb.stat()
        with self._begin() as txn:
            blobs = txn.stat(self._env.blobs)["entries"]
        on_disk = (self._env.path / "data.mdb").stat().st_blocks * 512
        return LogStats(self.next_offset, blobs, (info["last_pgno"] + 1) * stat["psize"], on_disk)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Any]:
        """One read transaction, for the files of this room. It pins pages for as long."""
        with self._begin(buffers=True) as txn:
            yield txn

    @contextlib.contextmanager
    def _begin(self, *, buffers: bool = False) -> Iterator[Any]:
        with damage_named(self._env), self._snapshot(buffers) as txn:
            yield txn

    def _snapshot(self, buffers: bool) -> Any:
        try:
            return self._env.lmdb.begin(buffers=buffers)
        except lmdb.MapResizedError:  # the writer, another process, has grown the map
            self._env.lmdb.set_mapsize(0)
        except lmdb.ReadersFullError:
            self._env.lmdb.reader_check()  # slots of processes that died
        try:
            return self._env.lmdb.begin(buffers=buffers)
        except lmdb.ReadersFullError as error:
            raise readers_full(self._env.path) from error

    def close(self) -> None:
        self._env.lmdb.close()


class Snapshot(LogReader):
    """A reader whose answers all come from one read transaction. Ends with its `with` block."""

    def __init__(self, environment: Environment, pinned: Pinned) -> None:
        super().__init__(environment)
        self._pinned = pinned

    @contextlib.contextmanager
    def _begin(self, *, buffers: bool = False) -> Iterator[Any]:
        with damage_named(self._env), self._pinned.use() as txn:
            yield txn

    def close(self) -> None:
        """Ends the snapshot; the environment is the reader's."""
        self._pinned.end()


@contextlib.contextmanager
def damage_named(environment: Environment) -> Iterator[None]:
    """LMDB's words for a damaged page as RecordDamaged."""
    try:
        yield
    except (lmdb.CorruptedError, lmdb.PageNotFoundError) as error:
        raise RecordDamaged(
            f"{environment.path}: a page of the file is damaged ({error}); `mmzero log verify` "
            "tells which events it held"
        ) from error


def _blob_key(digest: str) -> bytes | None:
    """None for what cannot be a digest, so that a stranger's word never reaches LMDB as a key."""
    try:
        key = bytes.fromhex(digest)
    except ValueError:
        return None
    return key if len(key) == 32 else None
