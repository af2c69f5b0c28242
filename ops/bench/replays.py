"""Reading a log again: our reader, with checksum and decoding, beside LMDB's bare cursor."""

import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from mmzero_async.log.reader import LogReader
from mmzero_async.ops.bench.figures import Figure, endlessly, rates
from mmzero_async.ops.bench.stores import Item, OurLog
from mmzero_async.ops.bench.traffic import SIZES, mixed_items, values

TURNS = 5
BYTES = 48e6  # of a log: all of it stays in the page cache
RIVAL = "bare LMDB cursor over the same records, values copied"


def replays(folder: Path, scale: float) -> Iterator[Figure]:
    """Envelopes of every size, then mixed traffic with its events decoded as well."""
    for size, number in SIZES.items():
        items = [Item(value) for value in values(number)]
        ours, bare = replay_rates(folder, items, scale, events=False)
        note = "checksum and envelope; bodies stay encoded"
        yield Figure(f"replay_{size}", ours, "MB/s", RIVAL, bare, note)
    for name, events, note in (
        ("replay_envelopes_vs_bare_lmdb", False, "mixed traffic; bodies stay encoded"),
        ("replay_vs_bare_lmdb", True, "mixed traffic; every event decoded"),
    ):
        ours, bare = replay_rates(folder, mixed_items(), scale, events=events)
        yield Figure(name, ours, "MB/s", RIVAL, bare, note)


def replay_rates(
    folder: Path, items: Sequence[Item], scale: float, *, events: bool
) -> tuple[float, float]:
    """MB/s of our reader and of the cursor, in turns. `events`: bodies are decoded too."""
    _fill(folder, items, BYTES * max(scale, 0.2))
    reader = LogReader.open(folder / "log")
    environment = reader.environment

    def ours() -> int:
        size = 0
        for record in reader.scan():
            size += len(record.envelope.body)
            if events:
                record.event()
        return size

    def bare() -> int:
        with environment.lmdb.begin() as txn, txn.cursor(environment.events) as cursor:
            return sum(len(value) for value in cursor.iternext(keys=False, values=True))

    bare()  # into the page cache
    found = rates({"ours": ours, "bare": bare}, 1.8 * scale, TURNS)
    reader.close()
    shutil.rmtree(folder / "log")
    return found["ours"] / 1e6, found["bare"] / 1e6


def _fill(folder: Path, items: Sequence[Item], size: float) -> None:
    store, source = OurLog(folder, sync="nosync"), endlessly(items)
    while size > 0:
        batch = list(islice(source, 64))
        store.append(batch)
        size -= sum(len(item.body) for item in batch)
    store.close()
