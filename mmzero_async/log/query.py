"""One page of events: what a filter wants from an offset on, found in one read transaction.

Every page is bounded in records, bytes and events looked at, and says where the next one begins, so
that no query holds a transaction or a server for long, however little it finds. The secondary index
is used for the part of the log that has one; the rest is scanned.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from mmzero_async.log.environment import OFFSET, Environment
from mmzero_async.log.index import BLOCK, Sought, indexed_blocks, sought_blocks
from mmzero_async.log.where import ANYTHING, Where
from mmzero_async.schemas.record import Record, RecordDamaged, decode_record


class Limits(msgspec.Struct, frozen=True):
    """Of one page."""

    records: int = 512
    bytes: int = 16 << 20  # of records; one record may be more
    looked: int = 8192  # events and blocks looked at


class Row(NamedTuple):
    """A wanted event as it lies in the log. `data` lives as long as its transaction."""

    offset: int
    data: memoryview
    record: Record | None  # decoded, where the filter had to


class Page(NamedTuple):
    """Records in order, the offset from which to go on, and the log's end when it was read."""

    records: list[Record]
    next: int
    end: int


@dataclass(slots=True)
class Rows:
    """A page before it is decoded."""

    rows: list[Row]
    next: int
    end: int


def end_of(txn: Any, environment: Environment) -> int:
    """The number of committed events."""
    with txn.cursor(environment.events) as cursor:
        return int(OFFSET.unpack(cursor.key())[0]) + 1 if cursor.last() else 0


@dataclass(slots=True)
class Query:
    """A filter over an environment. `newest` is shared by the queries of one reader."""

    environment: Environment
    where: Where = ANYTHING
    newest: "NewestVersions" = field(default_factory=lambda: NewestVersions())

    def rows(self, txn: Any, start: int, stop: int | None, limits: Limits) -> Rows:
        """Wanted events of [start, stop). RecordDamaged when one cannot be read.

        No rows and `next` before the end: nothing was found yet, go on from there.
        """
        end = end_of(txn, self.environment)
        stop = end if stop is None else min(stop, end)
        found = Rows([], max(start, 0), end)
        if self.where.staleness is not None and not self.newest.catch_up(
            txn, self.environment, stop, limits
        ):
            return found
        size = 0
        for looked, (after, offset, data) in enumerate(
            self._candidates(txn, found.next, stop), start=1
        ):
            found.next = after
            if data is not None and (row := self._wanted(offset, data)) is not None:
                found.rows.append(row)
                size += len(data)
            if looked >= limits.looked or len(found.rows) >= limits.records or size >= limits.bytes:
                return found
        found.next = max(found.next, stop)
        return found

    def _wanted(self, offset: int, data: memoryview) -> Row | None:
        if self.where.anything:
            return Row(offset, data, None)
        record = decode_record(offset, data)
        wanted = self.where.matches(record, self.newest.before)
        return Row(offset, data, record) if wanted else None

    def _candidates(
        self, txn: Any, start: int, stop: int
    ) -> Iterator[tuple[int, int, memoryview | None]]:
        """(where to go on, offset, record or None for a block that held nothing)."""
        where = self.where
        sought = Sought(frozenset(where.kinds), where.prompts(), where.since_ns, where.until_ns)
        if not sought.anything:
            blocks = min(indexed_blocks(txn, self.environment), -(-stop // BLOCK))
            for block, places in sought_blocks(
                txn, self.environment, sought, start // BLOCK, blocks
            ):
                first = block * BLOCK
                offsets = [first + p for p in places if start <= first + p < stop]
                for offset in offsets:
                    yield offset + 1, offset, self._get(txn, offset)
                yield min(first + BLOCK, stop), first, None
            start = max(start, min(blocks * BLOCK, stop))
        yield from self._scan(txn, start, stop)

    def _get(self, txn: Any, offset: int) -> memoryview:
        data = txn.get(OFFSET.pack(offset), db=self.environment.events)
        if data is None:
            raise RecordDamaged(f"{self.environment.path}: offset {offset} is missing")
        return memoryview(data)

    def _scan(self, txn: Any, start: int, stop: int) -> Iterator[tuple[int, int, memoryview]]:
        with txn.cursor(self.environment.events) as cursor:
            if start >= stop or not cursor.set_range(OFFSET.pack(start)):
                return
            for expected, (key, data) in zip(range(start, stop), cursor, strict=False):
                (offset,) = OFFSET.unpack(key)
                if offset != expected:
                    raise RecordDamaged(f"{self.environment.path}: offset {expected} is missing")
                yield offset + 1, offset, memoryview(data)


class _Step(msgspec.Struct):
    role: str
    version: int


_step: msgspec.msgpack.Decoder[_Step] = msgspec.msgpack.Decoder(_Step)


@dataclass(slots=True)
class NewestVersions:
    """Each role's versions with the offsets of the steps that made them, read as far as needed."""

    _offsets: dict[str, list[int]] = field(default_factory=dict)
    _versions: dict[str, list[int]] = field(default_factory=dict)
    _next: int = 0

    def before(self, role: str, offset: int) -> int:
        """The newest version that a step before the offset made; 0 before the first."""
        count = bisect_left(self._offsets.get(role, []), offset)
        return self._versions[role][count - 1] if count else 0

    def catch_up(self, txn: Any, environment: Environment, stop: int, limits: Limits) -> bool:
        """Reads one page of steps; whether all before `stop` are known."""
        if self._next < stop:
            found = Query(environment, Where(kinds=("step_committed",))).rows(
                txn, self._next, stop, limits
            )
            for row in found.rows:
                assert row.record is not None
                step = _step.decode(row.record.envelope.body)
                self._offsets.setdefault(step.role, []).append(row.offset)
                self._versions.setdefault(step.role, []).append(step.version)
            self._next = found.next
        return self._next >= stop
