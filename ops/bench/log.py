"""`just bench log`: what the event log does a second, beside its rivals on the same disk.

    python -m mmzero_async.ops.bench.log              some two minutes
    python -m mmzero_async.ops.bench.log --quick      half a minute: the same lines, rougher

One JSON line a figure: appends synced before they are counted, replay with checksum and decoding,
queries with the secondary index and over the network, and acknowledged ingestion through ZeroMQ.
Works in a folder of its own under --folder (default: here) and removes it. Stores take turns, so
that a busy machine slows all of them alike.
"""

import argparse
import tempfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from mmzero_async.ops.bench.appends import appends
from mmzero_async.ops.bench.ingest import ingestion
from mmzero_async.ops.bench.queries import queries
from mmzero_async.ops.bench.replays import replays

QUICK = 0.1  # of the time that each measurement takes otherwise


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="benchmark of the event log")
    parser.add_argument("--quick", action="store_true", help="half a minute, rougher")
    parser.add_argument("--folder", type=Path, default=Path(), help="whose disk is measured")
    options = parser.parse_args(argv)
    scale = QUICK if options.quick else 1.0
    with tempfile.TemporaryDirectory(prefix=".bench-log-", dir=options.folder) as name:
        folder = Path(name)
        for figure in chain(
            appends(folder, scale),
            replays(folder, scale),
            queries(folder, scale),
            ingestion(folder, scale),
        ):
            print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
