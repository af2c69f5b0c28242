"""`mmzero log archive | restore | compact`: keeps a log from growing for ever, and the way back."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmzero_async.filelock import FileLock, LockHeld
from mmzero_async.log.errors import LogError, LogLocked
from mmzero_async.log.writer import LogWriter
from mmzero_async.ops.log_commands import RunFolder, beside, log_folder, reading
from mmzero_async.projections.retention import Keep, in_words, needed_pictures

if TYPE_CHECKING:
    from mmzero_async.log.compact import Plan

app = typer.Typer()
KEEP_STEPS = 10

ArchiveFolder = Annotated[Path, typer.Argument(help="a folder that `mmzero log archive` wrote")]


@app.command()
def archive(
    run: RunFolder,
    out: Annotated[Path, typer.Argument(help="a folder that does not exist yet")],
) -> None:
    """Write every record and picture as Parquet, read back and compared, while the run goes on."""
    from mmzero_async.log.archive import archive as archive_log

    with reading(run) as reader:
        made = archive_log(reader, out, beside(log_folder(run)))
    size = sum(file.bytes for file in made.files)
    typer.echo(
        f"{made.events} events and {made.pictures} pictures ({made.picture_bytes / 1e6:.2f} MB) "
        f"archived to {out} in {len(made.files)} files, {size / 1e6:.2f} MB, and compared with the "
        f"log. The way back: mmzero log restore {out} RUN"
    )


@app.command()
def restore(
    archive: ArchiveFolder,
    run: Annotated[Path, typer.Argument(help="a run's folder that does not exist yet")],
    pictures: Annotated[
        bool, typer.Option("--pictures", help="put dropped pictures back into a run that exists")
    ] = False,
) -> None:
    """Make the log again from an archive, bit by bit; or bring back what compaction dropped."""
    from mmzero_async.log.restore import restore as restore_log
    from mmzero_async.log.restore import restore_pictures

    if not pictures:
        made = restore_log(archive, run)
        typer.echo(
            f"{made.events} events and {made.pictures} pictures restored to {run}, the same to the "
            "bit; checkpoints are in no archive"
        )
        return
    log = log_folder(run)
    with nobody_drives(log):
        with reading(run) as reader:
            name = reader.run
        writer = LogWriter(log, run=name)
        try:
            count = restore_pictures(archive, writer)
        finally:
            writer.close()
    typer.echo(f"{count} pictures put back into {log}")


@app.command()
def compact(
    run: RunFolder,
    keep_pictures: Annotated[
        str, typer.Option(help="of each role's newest N steps, of all steps (trained), or none")
    ] = str(KEEP_STEPS),
    archive: Annotated[
        Path | None,
        typer.Option(help="an archive that holds what is dropped; written if it is not there"),
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="drop for good, without an archive")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would go")] = False,
) -> None:
    """Drop pictures that nothing needs and make the file smaller; every event stays. Needs the run
    to be stopped. Pictures of open work and pending groups always stay."""
    from mmzero_async.log import compact as compaction

    keep = _keep(keep_pictures)
    if archive is None and not (drop or dry_run):
        raise compaction.CompactionRefused(
            "say where the dropped pictures are kept with --archive DIR (written if it is not "
            "there), or that they shall be gone for good with --drop; --dry-run only looks"
        )
    log = log_folder(run)
    with nobody_drives(log), compaction.compacting(log) as writer:
        reader = writer.reader()
        planned = compaction.plan(reader, needed_pictures(reader, keep))
        typer.echo(_told(planned, keep, dry_run))
        if dry_run:
            return
        if archive is not None:
            compaction.ensure_archived(reader, planned, archive, beside(log))
        done = compaction.compact(writer, planned, kept=in_words(keep), archived=archive)
    where = f"archive {archive}" if archive is not None else "in no archive, gone for good"
    typer.echo(
        f"data.mdb {done.before / 1e6:.2f} MB before, {done.after / 1e6:.2f} MB after; what was "
        f"dropped is {where}"
    )


def _keep(text: str) -> Keep:
    if text == "trained":
        return "trained"
    if text == "none":
        return 0
    if text.isdecimal():
        return int(text)
    raise LogError(f"--keep-pictures {text}: say a number of steps, none or trained")


def _told(planned: "Plan", keep: Keep, dry_run: bool) -> str:
    verb = "would be dropped" if dry_run else "to be dropped"
    return (
        f"{len(planned.drop)} pictures, {planned.drop_bytes / 1e6:.2f} MB, {verb}; "
        f"{planned.kept} kept, {planned.kept_bytes / 1e6:.2f} MB: {in_words(keep)}"
    )


@contextmanager
def nobody_drives(log: Path) -> Iterator[None]:
    """Keeps `mmzero run` from starting meanwhile. LogLocked while it drives the run."""
    if log.name != "log" or not (log.parent / "config.json").exists():
        yield
        return
    try:
        lock = FileLock(log.parent / "run.lock")
    except LockHeld as error:
        raise LogLocked(
            f"{log.parent} is being driven by process {error.holder}: stop the run first (Ctrl-C "
            "there); it goes on afterwards where its log ends"
        ) from None
    try:
        yield
    finally:
        lock.release()
