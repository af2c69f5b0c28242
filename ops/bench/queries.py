"""Finding events: by the secondary index beside scanning, and over the network beside the files."""

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count, islice
from pathlib import Path

from mmzero_async.config import Config
from mmzero_async.log.interface import Reader
from mmzero_async.log.reader import LogReader
from mmzero_async.log.where import ANYTHING, Where, parse_where
from mmzero_async.ops.bench.figures import Figure, rates
from mmzero_async.ops.bench.ingest import serving
from mmzero_async.ops.bench.stores import Item, OurLog
from mmzero_async.ops.bench.traffic import Lineages
from mmzero_async.schemas.about import lineages_of
from mmzero_async.schemas.events import encode_event, kind_of
from mmzero_async.transport.remote_reader import RemoteReader

EVENTS = 40_000
TURNS = 5
_MS = 1000.0


def queries(folder: Path, scale: float, events: int = EVENTS) -> Iterator[Figure]:
    """Over one log of mixed traffic, every lineage its own."""
    run = folder / "queried"
    run.mkdir()
    (run / "config.json").write_text(Config().to_json())
    _fill(run, round(events * max(scale, 0.1)))
    with closing(LogReader.open(run / "log")) as reader:
        yield from _by_index(reader, scale)
        with serving(run, "log_reader", "log.read.url") as (_, url):
            yield from _remote(reader, url, scale)
    shutil.rmtree(run)


def _by_index(reader: LogReader, scale: float) -> Iterator[Figure]:
    size = reader.next_offset
    scanning = LogReader(dataclasses.replace(reader.environment, index=None))
    late = reader.get(size * 49 // 50).envelope.time_ns
    middle = next(reader.scan(size // 2, where=parse_where("kind=proposed")))
    lineages = tuple(lineages_of(middle.event()))
    for name, where in (
        ("query_lineage", Where(lineages=lineages)),
        ("query_kind", parse_where("kind=proposed")),
        ("query_last_50th", Where(since_ns=late)),
    ):
        found = rates(
            {"index": _reading(reader, where), "scan": _reading(scanning, where)},
            1.5 * scale,
            TURNS,
        )
        wanted = _reading(reader, where)()
        note = f"{wanted} of {size} events, all of them read with checksum and envelope"
        ours, rival = (_MS * wanted / found[way] for way in ("index", "scan"))
        yield Figure(name, ours, "ms", "the same without the index", rival, note)


def _remote(near: LogReader, url: str, scale: float) -> Iterator[Figure]:
    with closing(RemoteReader.open(url)) as far:
        for name, where, note in (
            ("replay_remote", ANYTHING, "loopback, a server process, pages of 4 MiB"),
            ("replay_remote_filtered", parse_where("role=solver"), "the server filters"),
        ):
            found = rates(
                {"far": _bytes(far, where), "near": _bytes(near, where)}, 2 * scale, TURNS
            )
            rival = "the local reader"
            yield Figure(name, found["far"] / 1e6, "MB/s", rival, found["near"] / 1e6, note)


def _reading(reader: Reader, where: Where) -> Callable[[], int]:
    return lambda: sum(1 for _ in reader.scan(where=where))


def _bytes(reader: Reader, where: Where) -> Callable[[], int]:
    return lambda: sum(len(record.envelope.body) for record in reader.scan(where=where))


def _fill(run: Path, events: int) -> None:
    store, make = OurLog(run, sync="nosync"), Lineages()
    items = (
        Item(encode_event(event), None, kind_of(event))
        for prompt in count()
        for event, _ in make.make(prompt).all()
    )
    while events > 0:
        store.append(list(islice(items, 64)))
        events -= 64
    store.close()
