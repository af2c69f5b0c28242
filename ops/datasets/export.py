"""`mmzero dataset`: logs read in order, a folder written; its manifest says that it is whole.

An export that was killed goes on with `resume`: the log is walked again, for which rows there are
follows from it alone, but pictures are read and files written only where none stands yet.
"""

import gc
import hashlib
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import pyarrow as pa

import mmzero_async
from mmzero_async.filelock import FileLock, LockHeld
from mmzero_async.log.drafts import sync
from mmzero_async.ops.datasets.card import card
from mmzero_async.ops.datasets.columns import schema_of, yaml_features
from mmzero_async.ops.datasets.crew import crew
from mmzero_async.ops.datasets.duplicates import Duplicates
from mmzero_async.ops.datasets.groups import SELDOM, Walk
from mmzero_async.ops.datasets.maker import Batch
from mmzero_async.ops.datasets.manifest import (
    CARD,
    MANIFEST,
    PROGRESS,
    Counts,
    Manifest,
    Plan,
    Progress,
    finish,
    read_manifest,
    read_progress,
    split_figures,
)
from mmzero_async.ops.datasets.options import DatasetError, Options
from mmzero_async.ops.datasets.shards import FOLDER, Shard, Shards
from mmzero_async.ops.datasets.sources import Source, sources
from mmzero_async.ops.datasets.tasks import Task, tasks
from mmzero_async.schemas.events import Rendered

LOCK = ".lock"
_SOURCE_BITS = 48  # of an offset; the source's number stands above it
_WORTH = 50_000  # events for which another process is started: it takes a second to be ready
Told = Callable[[int, int], None]  # events looked at, of how many


def export(
    folder: Path,
    out: Path,
    options: Options,
    *,
    resume: bool = False,
    overwrite: bool = False,
    processes: int | None = None,
    told: Told = lambda done, of: None,
) -> tuple[Manifest, bool]:
    """The dataset of a run's or a collection's folder in `out`; whether anything was written.

    `processes` make the rows; 1 is this one alone. By default a large log gets one a core,
    but for the core that this one takes.

    DatasetError: `out` holds something else, or an unfinished export that does not fit. What
    reading a log raises (BlobDropped: a picture was compacted away); then it may be resumed.
    """
    if overwrite and out.is_dir():
        with _locked(out):
            _remove(out)
    earlier = read_progress(out) if resume else None
    made = read_manifest(out) if resume and earlier is None else None
    begun = earlier[0] if earlier else made.plan if made else None
    with sources(folder, begun.stops() if begun else None) as found:
        plan = plan_of(found, options)
        if (there := _there(out, plan, resume)) is not None:
            return there, False
        if earlier is not None and earlier[0] != plan:
            raise DatasetError(
                f"{out} was begun as {earlier[0].command!r} with {earlier[0].software}, now it is "
                f"{plan.command!r} with {plan.software}, or its log is another one: go on as it "
                "was begun, or begin anew with --overwrite"
            )
        out.mkdir(parents=True, exist_ok=True)
        with _locked(out):
            files = earlier[1] if earlier else []
            progress = Progress.resumed(out, plan, files) if earlier else Progress(out, plan)
            with _collecting_seldom():
                count = _processes(processes, sum(source.stop for source in found))
                counts = _write(folder, found, out, options, progress, files, count, told)
            if not counts.rows:
                _remove(out)
                raise DatasetError(f"nothing to write: {_nothing(counts)}")
            whole = sorted(progress.files, key=lambda shard: shard.name)
            splits = split_figures(plan, whole)
            text = card(plan, counts, splits, _features(options, counts))
            manifest = Manifest(
                plan=plan,
                counts=counts,
                splits=splits,
                files=whole,
                card_sha256=hashlib.sha256(text.encode()).hexdigest(),
            )
            finish(out, manifest, text)
    return manifest, True


def plan_of(found: list[Source], options: Options) -> Plan:
    names = " ".join(source.name for source in found)
    words = ["mmzero", "dataset", names, "--kind", options.kind]
    where = str(options.where)
    if where:
        words += ["--where", where]
    if options.format != "parquet":
        words += ["--format", options.format]
    if len(options.splits) > 1:
        words += ["--split", "/".join(f"{s.name}={s.share:g}" for s in options.splits)]
    if not options.deduplicate and options.kind != "trajectories":
        words.append("--no-dedup")
    return Plan(
        sources=[source.figures() for source in found],
        kind=options.kind,
        form=options.format,
        where=where,
        splits={split.name: split.share for split in options.splits},
        deduplicate=options.deduplicate,
        shard_bytes=options.shard_bytes,
        command=shlex.join(words),
        software={"mmzero-async": mmzero_async.__version__, "pyarrow": pa.__version__},
    )


def _write(
    folder: Path,
    found: list[Source],
    out: Path,
    options: Options,
    progress: Progress,
    files: list[Shard],
    processes: int,
    told: Told,
) -> Counts:
    counts, walks = Counts(), [Walk.of(source) for source in found]

    def picture(place: int) -> Rendered:
        offset = place & ((1 << _SOURCE_BITS) - 1)
        return walks[place >> _SOURCE_BITS].recent.picture(offset)

    duplicates = Duplicates(picture)
    shards = Shards(out, options, schema_of(options), progress.done, files)
    starts = [0, *accumulate(source.stop for source in found)]

    def put(batch: Batch) -> None:
        """Every row to its file, but for the duplicates."""
        counts.lineages += batch.lineages
        counts.bare_prompts += batch.bare_prompts
        for made in batch.found:
            counts.groups += 1
            if isinstance(made, str):
                counts.leave_out(made)
                continue
            told(starts[batch.source] + made.offset, starts[-1])
            place = None if made.picture is None else batch.source << _SOURCE_BITS | made.picture
            if made.key is not None and duplicates.seen(made.key, place):
                counts.leave_out("duplicate")
                continue
            counts.row(found[batch.source].name, made.role, made.version, made.offset)
            counts.pictures = max(counts.pictures, made.pictures)
            if shards.skip(made.split):
                continue
            if made.at is None:
                raise batch.unread[made.offset]
            shards.add(made.split, batch.packed, made.at, made.size)
        shards.settle()

    coming = 0  # rows at most that tasks under way may become

    def asked() -> Iterator[Task]:
        nonlocal coming
        for task in tasks(walks, options):
            coming += task.offsets
            names = (split.name for split in options.splits)
            task.bare = frozenset(name for name in names if shards.skips(name) >= coming)
            yield task

    try:
        with crew(processes, folder, walks, options) as made:
            for task, batch in made(asked()):
                put(batch)
                coming -= task.offsets
        shards.close()
        told(starts[-1], starts[-1])
    finally:
        shards.stop()
    return counts


def _processes(asked: int | None, events: int) -> int:
    if asked is not None and asked < 1:
        raise DatasetError(f"--processes {asked}: 1 at least is needed")
    others = len(os.sched_getaffinity(0)) - 1  # this one walks the log and writes meanwhile
    return asked or max(1, min(others, events // _WORTH))


def _nothing(counts: Counts) -> str:
    left_out = ", ".join(f"{n} {reason}" for reason, n in sorted(counts.left_out.items()))
    return (
        f"of {counts.groups} complete groups in {counts.lineages} lineages none became a row "
        f"({left_out or 'none was left out'})"
    )


def _features(options: Options, counts: Counts) -> list[str]:
    """Parquet says by itself what it holds."""
    if options.format == "parquet":
        return []
    return yaml_features(schema_of(options), counts.pictures)


def _there(out: Path, plan: Plan, resume: bool) -> Manifest | None:
    """A finished dataset of this plan that is there already. DatasetError for anything else."""
    manifest = read_manifest(out)
    if manifest is not None:
        if manifest.plan == plan:
            return manifest
        raise DatasetError(
            f"{out} holds another dataset ({manifest.plan.command}, of "
            f"{sum(manifest.plan.stops().values())} events): name another folder, or --overwrite it"
        )
    if (out / PROGRESS).exists():
        if not resume:
            raise DatasetError(
                f"{out} holds an unfinished export: go on with it by --resume, or --overwrite it"
            )
        return None
    if out.exists() and (not out.is_dir() or {path.name for path in out.iterdir()} - {LOCK}):
        raise DatasetError(f"{out} holds something else than a dataset: name another folder")
    return None


def _remove(out: Path) -> None:
    """A dataset of ours, finished or not, and nothing else. For who holds the lock."""
    if not (out / MANIFEST).exists() and not (out / PROGRESS).exists():
        return
    for name in (MANIFEST, CARD):  # the manifest first: what is left is unfinished
        (out / name).unlink(missing_ok=True)
        (out / f".{name}.part").unlink(missing_ok=True)
    shutil.rmtree(out / FOLDER, ignore_errors=True)
    (out / PROGRESS).unlink(missing_ok=True)
    sync(out)


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*SELDOM)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    try:
        lock = FileLock(out / LOCK)
    except LockHeld as error:
        raise DatasetError(f"{out} is being written by process {error.holder}") from None
    try:
        yield
    finally:
        (out / LOCK).unlink(missing_ok=True)
        lock.release()
