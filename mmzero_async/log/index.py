"""The secondary index: where events of a kind and of a lineage lie, and when a block was written.

One summary for each full block of 256 offsets, written by the transaction that fills the block;
the open block at the end has none and is scanned. Database `index`, all keys end in the block's
number (u64, big-endian):

    k <kind> 0   positions in the block, a byte each      g <prompt u64>   the same, of a lineage
    u            those of kinds too long for a key        *                of events about very many
    t            earliest and latest time_ns (i64, i64)

A function of the events alone: verified against them, and rebuilt when it is missing or of another
version. No promise of the log rests on it.
"""

import struct
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import merge
from itertools import groupby
from typing import Any, TypeAlias

from mmzero_async.log.environment import INDEX_VERSION, OFFSET, Environment
from mmzero_async.schemas.about import prompts_of
from mmzero_async.schemas.record import Envelope, RecordDamaged, decode_record

BLOCK = 256  # a position fits into a byte
TIMES = struct.Struct(">qq")
BY_TIME, LONG_KIND, MANY = b"t", b"u", b"*"
_LONGEST_KIND = 100  # bytes; LMDB's keys end at 511
_MOST_PROMPTS = 256  # of one event; a stranger's event must not cost thousands of entries
_EARLIEST, _LATEST = -(2**63), 2**63 - 1
_AT_ONCE = 64  # blocks a transaction when an old log gets its index


# What the index knows of one event: the prefixes of its keys, and its time. A bare tuple, since one
# is made for every event that is appended.
Indexed: TypeAlias = tuple[tuple[bytes, ...], int]


def indexed(envelope: Envelope) -> Indexed:
    prompts = prompts_of(envelope.body)
    kind = kind_prefix(envelope.kind)
    if len(prompts) > _MOST_PROMPTS:
        return (kind, MANY), envelope.time_ns
    return (kind, *map(lineage_prefix, prompts)), envelope.time_ns


@lru_cache(1 << 8)
def kind_prefix(kind: str) -> bytes:
    name = kind.encode("utf-8", "replace")
    return LONG_KIND if len(name) > _LONGEST_KIND or b"\0" in name else b"k" + name + b"\0"


@lru_cache(1 << 12)
def lineage_prefix(prompt: int) -> bytes:
    return b"g" + OFFSET.pack(prompt)


def summary(block: int, events: Sequence[Indexed]) -> dict[bytes, bytes]:
    """All entries of a full block, whose events these are in order."""
    places: defaultdict[bytes, bytearray] = defaultdict(bytearray)
    for position, (prefixes, _) in enumerate(events):
        for prefix in prefixes:
            places[prefix].append(position)
    number = OFFSET.pack(block)
    times = [min(max(time_ns, _EARLIEST), _LATEST) for _, time_ns in events]
    entries = {prefix + number: bytes(found) for prefix, found in places.items()}
    entries[BY_TIME + number] = TIMES.pack(min(times), max(times))
    return entries


def block_of_key(key: bytes) -> int:
    """-1 for what cannot be a key of the index."""
    return int(OFFSET.unpack(key[-OFFSET.size :])[0]) if len(key) > OFFSET.size else -1


# --- writing ----------------------------------------------------------------------------------


class Indexer:
    """The writer's part: keeps the open block in mind and writes the summary of each full one."""

    def __init__(self, environment: Environment, block: int, events: list[Indexed]) -> None:
        self._env = environment
        self._block, self._open = block, events  # the open block's number, and what is in it

    def write(self, txn: Any, events: list[Indexed]) -> None:
        """Summaries of the blocks that these events fill. Changes nothing here: see `keep`."""
        if len(self._open) + len(events) >= BLOCK:
            held = self._open + events
            for i in range(len(held) // BLOCK):
                full = held[i * BLOCK : (i + 1) * BLOCK]
                _put_summary(txn, self._env, self._block + i, full)

    def keep(self, events: list[Indexed]) -> None:
        """Once the transaction that they were written in is committed."""
        self._open += events
        if len(self._open) >= BLOCK:
            full = len(self._open) // BLOCK
            self._block += full
            del self._open[: full * BLOCK]


def resume(environment: Environment) -> Indexer:
    """Brings the index up to the log's end: all of it for a log that had none.

    RecordDamaged when an event cannot be read; LMDB's errors when there is no room.
    """
    block = _begin_index(environment)
    while True:
        with environment.lmdb.begin(write=True, buffers=True) as txn:
            for _ in range(_AT_ONCE):
                events = _events_of(txn, environment, block)
                if len(events) < BLOCK:
                    return Indexer(environment, block, events)
                _put_summary(txn, environment, block, events)
                block += 1


def forget(environment: Environment) -> None:
    """Empties the index, in one transaction; `resume` makes it anew."""
    with environment.lmdb.begin(write=True) as txn:
        txn.drop(environment.index, delete=False)


def _begin_index(environment: Environment) -> int:
    """The first block without a summary, when entries of another version are gone."""
    with environment.lmdb.begin(write=True) as txn:
        if txn.get(b"index", db=environment.meta) != OFFSET.pack(INDEX_VERSION):
            txn.drop(environment.index, delete=False)
            txn.put(b"index", OFFSET.pack(INDEX_VERSION), db=environment.meta)
        return indexed_blocks(txn, environment)


def _events_of(txn: Any, environment: Environment, block: int) -> list[Indexed]:
    found: list[Indexed] = []
    with txn.cursor(environment.events) as cursor:
        cursor.set_range(OFFSET.pack(block * BLOCK))
        for key, data in cursor:
            (offset,) = OFFSET.unpack(key)
            if offset != block * BLOCK + len(found):
                raise RecordDamaged(f"{environment.path}: the offset before {offset} is missing")
            found.append(indexed(decode_record(offset, data).envelope))
            if len(found) == BLOCK:
                break
    return found


def _put_summary(txn: Any, environment: Environment, block: int, events: Sequence[Indexed]) -> None:
    for key, value in summary(block, events).items():
        txn.put(key, value, db=environment.index)


# --- looking up -------------------------------------------------------------------------------


def indexed_blocks(txn: Any, environment: Environment) -> int:
    """How many blocks, from the first one on, have a summary."""
    if environment.index is None:
        return 0
    with txn.cursor(environment.index) as cursor:
        found = cursor.set_range(BY_TIME + b"\xff" * 9)
        if not (cursor.prev() if found else cursor.last()):
            return 0
        key = bytes(cursor.key())
        return block_of_key(key) + 1 if key[:1] == BY_TIME else 0


@dataclass(frozen=True, slots=True)
class Sought:
    """What the index can narrow down: one of these kinds, these prompts, and this time."""

    kinds: frozenset[str] = frozenset()  # empty: any
    prompts: frozenset[int] = frozenset()
    since_ns: int | None = None
    until_ns: int | None = None

    @property
    def timed(self) -> bool:
        return self.since_ns is not None or self.until_ns is not None

    def may_hold(self, earliest: int, latest: int) -> bool:
        """Whether something wanted can lie in a block that was written between these times."""
        # The bounds stand for all times beyond them too.
        return not (
            (self.since_ns is not None and latest < min(self.since_ns, _LATEST))
            or (self.until_ns is not None and earliest > max(self.until_ns, _EARLIEST))
        )

    @property
    def anything(self) -> bool:
        return not self.kinds and not self.prompts and not self.timed


EVERY_POSITION = bytes(range(BLOCK))


def sought_blocks(
    txn: Any, environment: Environment, sought: Sought, first: int, last: int
) -> Iterator[tuple[int, bytes]]:
    """Blocks of [first, last) in order, each with the positions where what is sought may be.

    A block may come without positions: looking cost something all the same.
    """
    kinds = [kind_prefix(kind) for kind in sought.kinds]
    lineages = [*map(lineage_prefix, sought.prompts), *([MANY] if sought.prompts else [])]

    def get(prefix: bytes, block: int) -> bytes:
        return bytes(txn.get(prefix + OFFSET.pack(block), db=environment.index) or b"")

    def walk(prefix: bytes) -> Iterator[tuple[int, bytes]]:
        return _walk(txn, environment, prefix, first, last)

    for block, places in _united(walk, lineages or kinds or [BY_TIME]):
        if sought.timed and not sought.may_hold(*TIMES.unpack(get(BY_TIME, block))):
            yield block, b""
            continue
        if lineages and kinds:
            places &= {position for prefix in kinds for position in get(prefix, block)}
        yield block, bytes(sorted(places)) if lineages or kinds else EVERY_POSITION


def _united(
    walk: Callable[[bytes], Iterator[tuple[int, bytes]]], prefixes: list[bytes]
) -> Iterator[tuple[int, set[int]]]:
    merged = merge(*map(walk, prefixes))
    for block, found in groupby(merged, key=lambda entry: entry[0]):
        yield block, {position for _, places in found for position in places}


def _walk(
    txn: Any, environment: Environment, prefix: bytes, first: int, last: int
) -> Iterator[tuple[int, bytes]]:
    with txn.cursor(environment.index) as cursor:
        if not cursor.set_range(prefix + OFFSET.pack(first)):
            return
        for key, value in cursor:
            block = block_of_key(key)
            if key[: len(prefix)] != prefix or block >= last:
                return
            yield block, bytes(value)
