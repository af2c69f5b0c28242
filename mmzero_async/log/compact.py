"""`mmzero log compact`: drops pictures that nobody needs any more, and makes the file smaller.

Events stay, every one. A dropped picture leaves a tombstone that says when, why and which archive
holds it. Dropping is a transaction and the smaller file takes the old one's place at one moment:
killed anywhere, the log is whole. Knows no roles: who needs which picture is told to it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mmzero_async.log.archive import archive
from mmzero_async.log.drafts import check_room
from mmzero_async.log.environment import lock_for_writing
from mmzero_async.log.errors import ForeignLog, LogError
from mmzero_async.log.manifest import open_archive, picture_digests
from mmzero_async.log.reader import LogReader
from mmzero_async.log.takeover import refuse_openers, shrink
from mmzero_async.log.verify import verify
from mmzero_async.log.writer import LogWriter

_BATCH = 4096  # pictures a transaction


class CompactionRefused(LogError):
    """What is to be dropped is in no archive, or the log has damage."""


@dataclass(slots=True)
class Plan:
    """Which pictures go, by key, and what stays."""

    drop: list[bytes] = field(default_factory=list)
    drop_bytes: int = 0
    kept: int = 0
    kept_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Compacted:
    """Bytes of data.mdb."""

    before: int
    after: int


@contextmanager
def compacting(log: Path) -> Iterator[LogWriter]:
    """A log that nobody else has open, for as long as the block lasts.

    LogLocked while a log server writes it, LogInUse while anybody reads it; CompactionRefused when
    the log has damage, which must be looked at before anything is dropped.
    """
    lock_for_writing(log).release()
    refuse_openers(log)
    found = verify(log)
    if not found.clean:
        raise CompactionRefused(
            f"the log at {log} has damage ({found.problems[0]}): look with `mmzero log verify`; "
            "nothing was changed"
        )
    size = (log / "data.mdb").stat().st_size
    writer = LogWriter(log, run=found.run, map_gib=max(64, (2 * size >> 30) + 1))
    try:
        yield writer
    finally:
        writer.close()


def plan(reader: LogReader, needed: set[str]) -> Plan:
    """Everything goes but what is needed (digests)."""
    found = Plan()
    environment = reader.environment
    with reader.transaction() as transaction, transaction.cursor(environment.blobs) as cursor:
        for key, data in cursor:
            if bytes(key).hex() in needed:
                found.kept += 1
                found.kept_bytes += len(data)
            else:
                found.drop.append(bytes(key))
                found.drop_bytes += len(data)
    return found


def ensure_archived(reader: LogReader, planned: Plan, folder: Path, beside: list[Path]) -> None:
    """Every picture that is to go is in the archive; a folder that does not exist is written.

    CompactionRefused, ForeignLog for another run's archive, and what `archive` raises.
    """
    if not folder.exists():
        archive(reader, folder, beside)
        return
    manifest = open_archive(folder)
    if manifest.run != reader.run:
        raise ForeignLog(f"{folder} is the archive of run {manifest.run!r}, not of {reader.run!r}")
    missing = set(planned.drop).difference(picture_digests(folder, manifest))
    if missing:
        raise CompactionRefused(
            f"{len(missing)} of {len(planned.drop)} pictures that are to be dropped are not in the "
            f"archive {folder}, {min(missing).hex()} among them: name a folder that does not exist "
            "yet and the log is archived there, or say --drop; nothing was changed"
        )


def compact(writer: LogWriter, planned: Plan, *, kept: str, archived: Path | None) -> Compacted:
    """Drops what is planned and shrinks the file; `kept` says in words what was not dropped.

    Closes the writer. LogFull; LogInUse when somebody opened the log meanwhile: what was dropped by
    then stays dropped, its pages are used again, and compacting once more makes the file smaller.
    """
    reader = writer.reader()
    file = reader.environment.path / "data.mdb"
    before = file.stat().st_size
    where = str(archived.resolve()) if archived is not None else ""
    try:
        room = "free disk space and compact again; nothing was changed"
        check_room(max(0, before - planned.drop_bytes), file.parent, "the compacted copy", room)
        for start in range(0, len(planned.drop), _BATCH):
            writer.drop_blobs(planned.drop[start : start + _BATCH], kept, where)
        shrink(reader.environment)
    finally:
        writer.close()  # what it shows is the old file from now on
    return Compacted(before, file.stat().st_size)
