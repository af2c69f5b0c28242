"""Appends a second, each batch on disk before it is counted, of our log and of its rivals."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from mmzero_async.ops.bench.figures import Figure, endlessly, rates
from mmzero_async.ops.bench.redis_streams import RedisMissing, RedisStreams, server_binary
from mmzero_async.ops.bench.redis_streams import version as redis_version
from mmzero_async.ops.bench.stores import (
    BareLmdb,
    Item,
    OurLog,
    RawFile,
    SqliteWal,
    Store,
    TwoFlushes,
)
from mmzero_async.ops.bench.traffic import SIZES, mixed_items, values

BATCHES = (1, 16, 256)
TURNS = 5
UNIT = "events/s"
OURS = "mmzero log"
RAW = "raw file + fdatasync"
TWO_FLUSHES = "raw file, data flushed and then a root"
REDIS = "Redis Streams, appendfsync always"
STORES: dict[str, Callable[[Path], Store]] = {
    OURS: OurLog,
    "bare LMDB": BareLmdb,
    RAW: RawFile,
    "SQLite WAL, synchronous=FULL": SqliteWal,
    REDIS: RedisStreams,
    TWO_FLUSHES: TwoFlushes,
}
NAMES = {
    "bare LMDB": "append_vs_bare_lmdb",
    RAW: "append_vs_raw_file",
    "SQLite WAL, synchronous=FULL": "append_vs_sqlite_wal",
    REDIS: "append_vs_redis_streams",
}


def appends(folder: Path, scale: float) -> Iterator[Figure]:
    """Every size in every batch, then mixed traffic with the best batch of each store."""
    missing = _missing()
    stores = [store for store in (OURS, *NAMES) if store not in missing]
    rivals = [rival for rival in NAMES if rival not in missing]
    for size, number in SIZES.items():
        items = [Item(value) for value in values(number)]
        for batch in BATCHES:
            found = append_rates(folder, items, batch, 0.4 * scale, stores)
            for rival in rivals:
                name = f"append_{size}_batch_{batch}"
                yield Figure(name, found[OURS], UNIT, rival, found[rival])
    small = [Item(value) for value in values(SIZES["1kB"])]
    found = append_rates(folder, small, 1, 0.8 * scale, [OURS, TWO_FLUSHES])
    note = "1 kB a commit; LMDB cannot promise it with fewer flushes: docs/LOG.md"
    yield Figure(
        "append_one_vs_two_flushes", found[OURS], UNIT, TWO_FLUSHES, found[TWO_FLUSHES], note
    )
    items, best = mixed_items(), dict.fromkeys(stores, (0.0, 0))
    for batch in BATCHES[1:]:
        for store, rate in append_rates(folder, items, batch, scale, stores).items():
            best[store] = max(best[store], (rate, batch))
    mean = sum(item.size for item in items) / len(items)
    for rival in rivals:
        note = f"mixed traffic of {mean:.0f} bytes, batches of {best[OURS][1]} and {best[rival][1]}"
        if rival == REDIS:
            note += f"; Redis {redis_version()}"
        yield Figure(NAMES[rival], best[OURS][0], UNIT, rival, best[rival][0], note)
    for rival, why in missing.items():
        yield Figure(NAMES[rival], None, UNIT, rival, None, f"not measured: {why}")


def _missing() -> dict[str, str]:
    """Stores that cannot be had here, and why."""
    try:
        server_binary()
    except RedisMissing as error:
        return {REDIS: str(error)}
    return {}


def append_rates(
    folder: Path, items: Sequence[Item], batch: int, seconds: float, stores: Sequence[str]
) -> dict[str, float]:
    """Events a second of each store, on fresh files."""
    opened: dict[str, Store] = {}
    try:
        for number, name in enumerate(stores):
            place = folder / f"store-{number}"
            place.mkdir()
            opened[name] = STORES[name](place)
        steps = {n: _appending(store, endlessly(items), batch) for n, store in opened.items()}
        return rates(steps, seconds, TURNS if seconds >= 0.02 else 1)
    finally:
        for number, store in enumerate(opened.values()):
            store.close()
            shutil.rmtree(folder / f"store-{number}")


def _appending(store: Store, source: Iterator[Item], batch: int) -> Callable[[], int]:
    def step() -> int:
        store.append(list(islice(source, batch)))
        return batch

    return step
