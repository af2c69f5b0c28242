"""`mmzero log`: looking after the event log itself. Each command is a few lines over `log/`.

Works on a run that is going on and on one that is over; only `reindex` writes, and needs a log that
nobody else is writing, as do those of `log_retention.py`.
"""

import asyncio
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from mmzero_async.log.backup import back_up
from mmzero_async.log.drafts import draft_of
from mmzero_async.log.errors import LogError
from mmzero_async.log.interface import Reader
from mmzero_async.log.reader import LogReader
from mmzero_async.log.stat import Contents, contents
from mmzero_async.log.verify import MAX_NAMED, Verification
from mmzero_async.log.verify import verify as verify_log
from mmzero_async.log.where import Where, parse_where
from mmzero_async.log.writer import LogWriter
from mmzero_async.ops import scan as scans
from mmzero_async.ops.command_line import say
from mmzero_async.schemas.events import KINDS
from mmzero_async.schemas.record import Record
from mmzero_async.transport.keys import client_keys
from mmzero_async.transport.remote_reader import RemoteReader

app = typer.Typer(
    no_args_is_help=True, help="Look into, verify, back up, archive and compact the event log."
)

_BESIDE = ("config.json", "base_model")  # what makes a folder with a log a run

RunFolder = Annotated[
    Path, typer.Argument(help="a run's folder, its name under runs/, or a log's own folder")
]
RunOrUrl = Annotated[
    str, typer.Argument(help="as RUN elsewhere, or a read server's address, tcp://host:port")
]
KeyFile = Annotated[
    Path | None, typer.Option("--key", help="our secret key file, where the read server has keys")
]
AsJson = Annotated[bool, typer.Option("--json", help="figures for programs")]


def log_folder(path: Path) -> Path:
    """The folder that holds data.mdb. LogError when there is none."""
    for candidate in (path / "log", path, Path("runs") / path / "log"):
        if (candidate / "data.mdb").exists():
            return candidate
    raise LogError(f"no log at {path}, {path}/log nor runs/{path}/log: name a run's folder")


def beside(log: Path) -> list[Path]:
    """What stands beside a run's log and goes where the log goes; nothing for a bare log."""
    found = [log.parent / name for name in _BESIDE if log.name == "log"]
    return [path for path in found if path.exists()]


@contextmanager
def reading(path: Path) -> Iterator[LogReader]:
    reader = LogReader.open(log_folder(path))
    try:
        yield reader
    finally:
        reader.close()


@contextmanager
def reading_anywhere(run: str, key: Path | None = None) -> Iterator[Reader]:
    """A run's folder, or the address of a read server, to which the key file belongs."""
    if "://" not in run:
        with reading(Path(run)) as local:
            yield local
        return
    remote = RemoteReader.open(run, keys=client_keys(key) if key else None)
    try:
        yield remote
    finally:
        remote.close()


@app.command()
def verify(run: RunFolder, as_json: AsJson = False) -> None:
    """Read every byte and check it: checksums, offsets, sequences, blobs, pictures."""
    found = verify_log(log_folder(run))
    if as_json:
        typer.echo(json.dumps(found.figures()))
    else:
        for line in verify_lines(found):
            say(line, "red" if line.startswith("  ") else None)
    if not found.clean:
        raise typer.Exit(1)


def verify_lines(found: Verification) -> list[str]:
    lines = [
        f"log of run {found.run}: {found.events} events, {found.event_bytes / 1e6:.2f} MB; "
        f"{found.blobs} blobs, {found.blob_bytes / 1e6:.2f} MB; "
        + (f"{found.dropped} more dropped by compaction; " if found.dropped else "")
        + f"{found.producers} producers; "
        f"read in {found.seconds:.2f} s",
        *(f"  {problem}" for problem in found.problems),
    ]
    if found.clean:
        return [*lines, "verify: clean, every record, offset, sequence, blob and picture agrees"]
    total = found.counts.total()
    if total > MAX_NAMED:
        lines.append(f"  and {total - MAX_NAMED} more")
    sorts = ", ".join(f"{count} {sort}" for sort, count in found.counts.items())
    first = found.first_bad_offset
    where = "no event" if first is None else f"offset {first}"
    return [*lines, f"verify: {total} problems ({sorts}); first bad offset: {where}"]


@app.command()
def scan(
    run: RunOrUrl,
    where: Annotated[
        str, typer.Option(help="such as 'role=solver version=3.. since=2026-11-24T10:00'")
    ] = "",
    start: Annotated[int, typer.Option("--from", min=0, help="offset to begin with")] = 0,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="0: all")] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on with what comes")] = False,
    key: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Events that a filter wants, a line each. Keys: role, kind, version, staleness, reward,
    outcome, lineage, since, until; see docs/LOG.md."""
    wanted = parse_where(where)
    with reading_anywhere(run, key) as reader:
        if follow:
            with suppress(KeyboardInterrupt):
                asyncio.run(_follow(reader, start, wanted, limit, as_json))
            return
        found = 0
        for found, record in enumerate(reader.scan(start, where=wanted), start=1):
            _tell(record, as_json)
            if found == limit:
                break
    unknown = ", ".join(kind for kind in wanted.kinds if kind not in KINDS)
    if not found and unknown:
        typer.echo(f"nothing; no kind {unknown} is known: {', '.join(sorted(KINDS))}", err=True)


async def _follow(reader: Reader, start: int, wanted: Where, limit: int, as_json: bool) -> None:
    async with aclosing(reader.follow(start, wanted)) as records:
        found = 0
        async for record in records:
            _tell(record, as_json)
            sys.stdout.flush()
            found += 1
            if found == limit:
                return


def _tell(record: Record, as_json: bool) -> None:
    typer.echo(scans.figures(record) if as_json else scans.line(record))


@app.command()
def reindex(run: RunFolder) -> None:
    """Make the secondary index anew, where verify says that it disagrees with the events."""
    folder = log_folder(run)
    with reading(run) as reader:
        name = reader.run
    writer = LogWriter(folder, run=name)
    try:
        whole = writer.reindex()
    finally:
        writer.close()
    if not whole:
        raise LogError(
            f"the index of {folder} ends before an event that is damaged; readers scan from there. "
            "`mmzero log verify` names it"
        )
    typer.echo(f"the index of {folder} is whole again")


@app.command()
def stat(run: RunFolder, as_json: AsJson = False) -> None:
    """Events and bytes by kind, blobs, producers, readers, disk use and free pages."""
    with reading(run) as reader:
        found = contents(reader)
    if as_json:
        typer.echo(json.dumps(found.figures()))
        return
    for line in stat_lines(found):
        typer.echo(line)


def stat_lines(found: Contents) -> list[str]:
    def line(kind: str, count: int, size: int) -> str:
        return f"{kind:18} {count:9} {size / 1e6:11.3f} MB"

    reading = [r for r in found.readers if r.commits_behind is not None]
    slowest = max(reading, key=lambda r: r.commits_behind or 0, default=None)
    behind = (slowest and slowest.commits_behind) or 0
    return [
        f"log of run {found.run}",
        *(line(kind, n, found.bytes[kind]) for kind, n in found.events.most_common()),
        line("all events", found.events.total(), found.bytes.total()),
        line("blobs", found.blobs, found.blob_bytes),
        *(
            f"{count} blobs dropped by compaction, "
            + (f"archive {archive}" if archive else "kept in no archive")
            for archive, count in sorted(found.dropped.items())
        ),
        *(
            f"producer {name}: epoch {epoch}, next sequence {sequence}"
            for name, (epoch, sequence) in sorted(found.producers.items())
        ),
        f"on disk {found.disk_bytes / 1e6:.2f} MB: {found.used_pages} pages used, "
        f"{found.free_pages} free, of {found.page_size} bytes",
        f"{len(found.readers)} reader slots taken; the slowest reader is "
        f"{behind} commits behind"
        + (
            f" (process {slowest.process}; it pins {slowest.pinned_bytes / 1e6:.2f} MB)"
            if slowest and behind
            else ""
        ),
        f"the disk has {found.disk_free_bytes / 1e9:.2f} GB free, {found.disk_free_share:.1%}",
    ]


@app.command()
def backup(
    run: RunFolder,
    out: Annotated[Path, typer.Argument(help="a folder that does not exist yet")],
) -> None:
    """Copy the log, compacted and verified, while the run goes on; OUT is a run's folder too."""
    with draft_of(out) as draft:
        with reading(run) as reader:
            found = back_up(reader, draft / "log")
        for path in beside(log_folder(run)):
            shutil.copy2(path, draft / path.name)
    typer.echo(
        f"{found.events} events and {found.blobs} blobs copied to {out} and verified; checkpoints "
        f"are not in it. Look: mmzero status {out}"
    )
