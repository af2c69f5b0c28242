"""`mmzero log restore`: from an archive to the log it was made from, bit by bit; or only pictures.

A whole log appears under its name when its databases have the digests that the archived one had.
"""

import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import lmdb

from mmzero_async.log.drafts import check_room, draft_of
from mmzero_async.log.environment import Environment, open_environment
from mmzero_async.log.errors import ForeignLog, LogFull
from mmzero_async.log.index import resume
from mmzero_async.log.manifest import (
    ArchiveDamaged,
    Entry,
    Manifest,
    content_digests,
    entries,
    open_archive,
    pictures,
)
from mmzero_async.log.writer import LogWriter, is_full
from mmzero_async.schemas.blobs import blob_digest

_BATCH_ENTRIES = 4096
_BATCH_BYTES = 32 << 20


def restore(archive: Path, run: Path) -> Manifest:
    """Makes the folder `run` with `log/` in it, and what stood beside the log.

    TargetTaken, LogFull; ArchiveDamaged when a file, or what came of all, is not what was archived.
    """
    manifest = open_archive(archive)
    with draft_of(run) as draft:
        needed = 2 * (manifest.event_bytes + manifest.picture_bytes)
        check_room(needed, draft, "the log")
        _write(draft / "log", archive, manifest, map_gib=max(64, (2 * needed >> 30) + 1))
        for name in manifest.names("beside"):
            shutil.copyfile(archive / name, draft / name)
    return manifest


def _write(log: Path, archive: Path, manifest: Manifest, map_gib: int) -> None:
    environment = open_environment(
        log, write=True, run=manifest.run, map_gib=map_gib, sync="nosync"
    )
    try:
        for batch in _batches(entries(archive, manifest)):
            _put(environment, batch)
        environment.lmdb.sync(True)
        with environment.lmdb.begin(buffers=True) as transaction:
            found = content_digests(environment, transaction)
        resume(environment)  # the secondary index follows from the events
        environment.lmdb.sync(True)
    except (lmdb.Error, OSError) as error:
        if is_full(error):
            raise LogFull(f"no room for the log at {log}: {error}. Name another disk") from error
        raise
    finally:
        environment.lmdb.close()
    wrong = [name for name, digest in found.items() if manifest.contents.get(name) != digest]
    if wrong:
        raise ArchiveDamaged(
            f"{archive} gives a log whose {', '.join(wrong)} differ from what was archived: its "
            "manifest and its files do not belong together; nothing was kept"
        )


def _put(environment: Environment, batch: list[Entry]) -> None:
    with environment.lmdb.begin(write=True) as transaction:
        for name, key, value in batch:
            transaction.put(key, value, db=getattr(environment, name))


def _batches(found: Iterator[Entry]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    size = 0
    for entry in found:
        batch.append(entry)
        size += len(entry[2])
        if size >= _BATCH_BYTES or len(batch) >= _BATCH_ENTRIES:
            yield batch
            batch, size = [], 0
    yield batch


def restore_pictures(archive: Path, writer: LogWriter) -> int:
    """Puts back what compaction dropped and the archive holds; how many pictures. LogFull.

    ForeignLog when the archive is another run's; ArchiveDamaged.
    """
    manifest = open_archive(archive)
    if manifest.run != writer.reader().run:
        raise ForeignLog(
            f"{archive} is the archive of run {manifest.run!r}, not of {writer.reader().run!r}"
        )
    count, held = 0, pictures(archive, manifest)
    while batch := dict(islice(held, 64)):
        for key, data in batch.items():
            if blob_digest(data) != key.hex():
                raise ArchiveDamaged(f"{archive}: its picture {key.hex()} has another digest")
        count += writer.put_back(batch)
    return count
