"""Appends a second, each batch on disk before it is counted, of our log and of its rivals."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from mmzero_async.ops.bench.figures import Figure, endlessly, rate
from mmzero_async.ops.bench.stores import OURS, STORES, Item, Store
from mmzero_async.ops.bench.traffic import SIZES, mixed_items, values

BATCHES = (1, 16, 256)
TURNS = 2  # on fresh files, the stores one after another: what else goes on slows all of them
NAMES = {
    "bare LMDB": "append_vs_bare_lmdb",
    "raw file + fdatasync": "append_vs_raw_file",
    "SQLite WAL, synchronous=FULL": "append_vs_sqlite_wal",
}


def appends(folder: Path, scale: float) -> Iterator[Figure]:
    """Every size in every batch, then mixed traffic with the best batch of each store."""
    for size, number in SIZES.items():
        items = [Item(value) for value in values(number)]
        for batch in BATCHES:
            rates = append_rates(folder, items, batch, 0.4 * scale)
            for rival in NAMES:
                name = f"append_{size}_batch_{batch}"
                yield Figure(name, rates[OURS], "events/s", rival, rates[rival])
    items, best = mixed_items(), dict.fromkeys(STORES, (0.0, 0))
    for batch in BATCHES[1:]:
        for store, found in append_rates(folder, items, batch, scale).items():
            best[store] = max(best[store], (found, batch))
    mean = sum(item.size for item in items) / len(items)
    for rival, name in NAMES.items():
        note = f"mixed traffic of {mean:.0f} bytes, batches of {best[OURS][1]} and {best[rival][1]}"
        yield Figure(name, best[OURS][0], "events/s", rival, best[rival][0], note)


def append_rates(
    folder: Path, items: Sequence[Item], batch: int, seconds: float
) -> dict[str, float]:
    """Events a second of each store."""
    done, spent = dict.fromkeys(STORES, 0), dict.fromkeys(STORES, 0.0)
    turns = TURNS if seconds >= 0.1 else 1
    for _ in range(turns):
        for name, make in STORES.items():
            place = folder / "store"
            place.mkdir()
            store = make(place)
            count, passed = rate(_appending(store, endlessly(items), batch), seconds / turns)
            store.close()
            shutil.rmtree(place)
            done[name] += count
            spent[name] += passed
    return {name: done[name] / spent[name] for name in STORES}


def _appending(store: Store, source: Iterator[Item], batch: int) -> Callable[[], int]:
    def step() -> int:
        store.append(list(islice(source, batch)))
        return batch

    return step
