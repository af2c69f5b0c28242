"""`just bench dataset`: how fast a log becomes a dataset, beside the disk and a bare pyarrow write.

    python -m mmzero_async.ops.bench.dataset              100,000 lineages, some minutes
    python -m mmzero_async.ops.bench.dataset --quick      3,000: the same lines, rougher

One JSON line a figure. A log of lineages with real PNGs is written first, and not timed. The export
is the command's own, in a process of its own; its second time must give the same bytes. Works in a
folder of its own under --folder (default: here) and removes it.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import pyarrow.parquet as pq

from mmzero_async.log.reader import LogReader
from mmzero_async.ops.bench.dataset_log import write_log
from mmzero_async.ops.bench.figures import Figure
from mmzero_async.ops.datasets.columns import schema_of
from mmzero_async.ops.datasets.groups import Walk
from mmzero_async.ops.datasets.manifest import Manifest, read_manifest
from mmzero_async.ops.datasets.options import Options
from mmzero_async.ops.datasets.sinks import ParquetSink
from mmzero_async.ops.datasets.sources import sources
from mmzero_async.projections.lineage import CompleteGroup
from mmzero_async.schemas.events import Rendered

LINEAGES, QUICK = 100_000, 3_000
BLOCK = 8 << 20
SAMPLED = 0.02  # seconds between looks at a process's memory


@dataclass(frozen=True, slots=True)
class Exported:
    manifest: Manifest
    seconds: float
    peak: int  # bytes of memory of its own, without the log's mapped pages


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="benchmark of datasets")
    parser.add_argument("--quick", action="store_true", help="3,000 lineages, rougher")
    parser.add_argument("--folder", type=Path, default=Path(), help="whose disk is measured")
    options = parser.parse_args(argv)
    lineages = QUICK if options.quick else LINEAGES
    with tempfile.TemporaryDirectory(prefix=".bench-dataset-", dir=options.folder) as name:
        for figure in figures(Path(name), lineages):
            print(figure.line(), flush=True)


def figures(folder: Path, lineages: int) -> Iterator[Figure]:
    run = folder / "run"
    write_log(run, lineages)
    walk, pictures, picture_bytes = read_alone(run)
    first = export(run, folder / "one")
    disk = write_rate(folder / "raw", first.manifest.bytes)
    bare = pyarrow_rate(folder / "one", folder / "bare.parquet")
    second = export(run, folder / "two")
    if contents(folder / "one") != contents(folder / "two"):
        raise RuntimeError("two exports of one log are not the same bytes")
    disk = max(disk, write_rate(folder / "raw", first.manifest.bytes))
    loading, reading = load_seconds(folder / "one", first.manifest.rows)
    seconds = min(first.seconds, second.seconds)
    size = first.manifest.bytes
    rate, rows = size / seconds / 1e6, first.manifest.rows
    of = f"{rows} rows, {size / 1e6:.0f} MB, {size / rows / 1e3:.1f} kB a row; better of two"
    yield Figure("dataset_vs_disk", rate, "MB/s", "as many bytes to a file, fsync", disk, of)
    yield Figure("dataset_vs_pyarrow", rate, "MB/s", "a bare write of the same rows", bare, of)
    yield Figure(
        "dataset_lineages",
        lineages / seconds,
        "lineages/s",
        "walking the log alone: events checked, decoded, groups completed",
        lineages / walk,
        "what is left is pictures, rows, duplicates and files",
    )
    yield Figure(
        "dataset_pictures",
        picture_bytes / seconds / 1e6,
        "MB/s",
        "reading the same PNGs from the log and checking their digests alone",
        picture_bytes / pictures / 1e6,
    )
    yield Figure(
        "dataset_load",
        rows / loading,
        "rows/s",
        "pyarrow reading the same files",
        rows / reading,
        "datasets.load_dataset into an empty cache, first and last picture decoded",
    )
    mapped = (run / "log" / "data.mdb").stat().st_size / 1e6
    peak = max(first.peak, second.peak) / 1e6
    yield Figure("dataset_peak_memory", peak, "MB", "the log's size", mapped, "its own pages")


def export(run: Path, out: Path) -> Exported:
    """By the command, in a process of its own; timed from its start to its end."""
    os.sync()
    command = [sys.executable, "-m", "mmzero_async.ops.cli", "dataset", str(run), "--json"]
    began, peak = time.perf_counter(), 0
    process = subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, _own_memory(process.pid))
        time.sleep(SAMPLED)
    seconds = time.perf_counter() - began
    manifest = read_manifest(out)
    if process.returncode or manifest is None:
        raise RuntimeError(f"the export ended with status {process.returncode}")
    return Exported(manifest, seconds, peak)


def _own_memory(pid: int) -> int:
    """Of a process: anonymous resident memory, bytes; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next(
        (int(ln.split()[1]) << 10 for ln in status.splitlines() if ln.startswith("RssAnon:")), 0
    )


def load_seconds(dataset: Path, rows: int) -> tuple[float, float]:
    """Of `datasets.load_dataset` and of pyarrow. RuntimeError for another number of rows."""
    began = time.perf_counter()
    found = datasets.load_dataset(str(dataset), cache_dir=str(dataset.parent / "cache"))["train"]
    if found.num_rows != rows or not all(found[at]["image"].size for at in (0, rows - 1)):
        raise RuntimeError(f"load_dataset gave {found.num_rows} rows of {rows}")
    loading = time.perf_counter() - began
    began = time.perf_counter()
    for shard in sorted((dataset / "data").glob("*.parquet")):
        with pq.ParquetFile(shard) as file:
            for group in range(file.num_row_groups):
                file.read_row_group(group)
    return loading, time.perf_counter() - began


def read_alone(run: Path) -> tuple[float, float, int]:
    """Seconds for the walk, seconds for the pictures, and their bytes."""
    with sources(run) as (source,):
        began = time.perf_counter()
        done = sum(isinstance(it, CompleteGroup) for it in Walk.of(source).complete())
        walk = time.perf_counter() - began
        assert done, "a log without a complete group says nothing"
    reader = LogReader.open(run / "log")
    digests = [
        event.picture
        for record in reader.scan()
        if record.kind == "rendered" and isinstance(event := record.event(), Rendered)
    ]
    began = time.perf_counter()
    size = sum(len(reader.blob(digest)) for digest in digests if digest)
    pictures = time.perf_counter() - began
    reader.close()
    return walk, pictures, size


def write_rate(path: Path, size: int) -> float:
    """MB/s of a file of so many bytes, block by block, on disk at the end."""
    block = os.urandom(BLOCK)
    os.sync()
    began = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(max(1, size // BLOCK)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    rate = max(1, size // BLOCK) * BLOCK / (time.perf_counter() - began) / 1e6
    path.unlink()
    return rate


def pyarrow_rate(dataset: Path, path: Path) -> float:
    """MB/s of writing the finished rows again with the same settings; their reading not timed."""
    sink, spent = ParquetSink(path, schema_of(Options())), 0.0
    for shard in sorted((dataset / "data").glob("*.parquet")):
        with pq.ParquetFile(shard) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                began = time.perf_counter()
                sink.write_table(table)
                spent += time.perf_counter() - began
    began = time.perf_counter()
    sink.close()
    with path.open("rb") as written:
        os.fsync(written.fileno())
    spent += time.perf_counter() - began
    rate = path.stat().st_size / spent / 1e6
    path.unlink()
    return rate


def contents(folder: Path) -> dict[str, str]:
    """Digests of a dataset's files."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found[str(path.relative_to(folder))] = digest
    return found


if __name__ == "__main__":
    main()
