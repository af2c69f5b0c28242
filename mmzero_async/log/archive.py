"""`mmzero log archive`: a whole log as Parquet, so exact that the log can be made again from it.

One snapshot is written in bounded memory, also while the run goes on (it pins free pages for as
long), then read back and held against the log entry by entry; only then does the archive appear
under its name. `restore.py` is the way back.
"""

import errno
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mmzero_async.log import manifest as form
from mmzero_async.log.drafts import check_room, draft_of
from mmzero_async.log.environment import DATABASES, DROPPED, OFFSET, Environment
from mmzero_async.log.errors import LogError, LogFull
from mmzero_async.log.listing import write_listing
from mmzero_async.log.manifest import MANIFEST, File, Manifest, content_digests
from mmzero_async.log.parts import GROUP_BYTES, PART_BYTES, Parts
from mmzero_async.log.reader import LogReader


class ArchiveRefused(LogError):
    """The log has damage that an archive would have too, or the archive is not what was written."""


@dataclass(slots=True)
class _Written:
    """What went into the tables: files by sort, and figures."""

    names: dict[str, list[str]]
    events: int = 0
    event_bytes: int = 0
    pictures: int = 0
    picture_bytes: int = 0


def archive(
    reader: LogReader,
    out: Path,
    beside: Sequence[Path] = (),
    *,
    part_bytes: int = PART_BYTES,
    group_bytes: int = GROUP_BYTES,
) -> Manifest:
    """Writes the log to a new folder `out`, with the files `beside` it.

    Raises TargetTaken, ArchiveRefused (the log is damaged), RecordDamaged, LogFull; nothing is left
    behind then.
    """
    environment = reader.environment
    try:
        with draft_of(out) as draft, reader.transaction() as transaction:
            check_room(reader.stats().bytes_used, draft, "an archive")
            written = _write(environment, transaction, draft, part_bytes, group_bytes)
            for path in beside:
                shutil.copyfile(path, draft / path.name)
            written.names["beside"] = [path.name for path in beside]
            manifest = Manifest(
                run=reader.run,
                made=datetime.now(UTC).isoformat(timespec="seconds"),
                events=written.events,
                event_bytes=written.event_bytes,
                pictures=written.pictures,
                picture_bytes=written.picture_bytes,
                contents=content_digests(environment, transaction),
                files=list(_files(draft, written.names)),
            )
            _compare(environment, transaction, draft, manifest)
            write_listing(draft / MANIFEST, manifest)
        return manifest
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LogFull(f"no room for the archive {out}: {error}. Name another disk") from error
        raise


def _write(
    environment: Environment, transaction: Any, draft: Path, part_bytes: int, group_bytes: int
) -> _Written:
    tables = {
        "events": Parts(draft, "events", form.EVENTS, part_bytes, group_bytes),
        # PNGs do not get smaller.
        "pictures": Parts(draft, "pictures", form.PICTURES, part_bytes, group_bytes, "none"),
        "state": Parts(draft, "state", form.STATE, part_bytes, group_bytes),
    }
    written = _Written({})
    for key, data in _cursor(environment, transaction, "events"):
        tables["events"].add(form.event_row(OFFSET.unpack(key)[0], data), len(data))
        written.events += 1
        written.event_bytes += len(data)
    for key, data in _cursor(environment, transaction, "blobs"):
        tables["pictures"].add((key, data), len(data))
        written.pictures += 1
        written.picture_bytes += len(data)
    for database, key, value in _state(environment, transaction):
        tables["state"].add((database, key, value), len(key) + len(value))
    for sort, parts in tables.items():
        parts.close()
        written.names[sort] = parts.names
    return written


def _state(environment: Environment, transaction: Any) -> Iterator[form.Entry]:
    """What cannot be made again from the events: who stands where, what was given up, dropped."""
    for name in ("meta", "producers", "dropped"):
        for key, value in _cursor(environment, transaction, name):
            yield name, key, value
    nowhere = OFFSET.pack(DROPPED)
    for key, value in _cursor(environment, transaction, "sequences"):
        if value == nowhere:
            yield "sequences", key, value


def _cursor(environment: Environment, transaction: Any, name: str) -> Iterator[tuple[bytes, bytes]]:
    handle = getattr(environment, name)
    if handle is None:
        return
    with transaction.cursor(handle) as cursor:
        for key, value in cursor:
            yield bytes(key), bytes(value)


def _files(draft: Path, names: dict[str, list[str]]) -> Iterator[File]:
    for sort, of_sort in names.items():
        for name in of_sort:
            yield form.described(draft / name, sort)


def _compare(environment: Environment, transaction: Any, draft: Path, manifest: Manifest) -> None:
    """Every entry that the archive gives back is the log's, and there are as many."""
    counts: Counter[str] = Counter()
    for name, key, value in form.entries(draft, manifest):
        counts[name] += 1
        if transaction.get(key, db=getattr(environment, name)) != value:
            raise ArchiveRefused(
                f"the log at {environment.path} and what was archived differ in {name} at "
                f"{key.hex()}: look with `mmzero log verify`; nothing was kept"
            )
    for name in DATABASES:
        handle = getattr(environment, name)
        stored = transaction.stat(handle)["entries"] if handle is not None else 0
        if counts[name] != stored:
            raise ArchiveRefused(
                f"{name} of the log at {environment.path} holds {stored} entries, the archive "
                f"{counts[name]}: look with `mmzero log verify`; nothing was kept"
            )
