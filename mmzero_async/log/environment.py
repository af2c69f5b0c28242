"""The LMDB environment under a log: its databases, keys, format and lock.

Databases: `events` (offset -> record), `sequences` (producer, epoch, sequence -> offset),
`producers` (producer -> epoch, next sequence), `blobs` (digest -> bytes), `dropped` (digest ->
tombstone of a blob that compaction took), `meta`, and `index` (`index.py`), which may be missing.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from mmzero_async.filelock import FileLock, LockHeld, holder_of
from mmzero_async.log.errors import ForeignLog, LogError, LogLocked, LogTorn, ReadersFull
from mmzero_async.log.filesystem import MOUNTINFO, refuse_network
from mmzero_async.log.pages import NotPages, cut_off

MAGIC = b"mmzero-async event log"
FORMAT = 1  # of a log that holds all its blobs
COMPACTED = 2  # of one that has tombstones: a reader that knows none would call it damaged
INDEX_VERSION = 1  # of what `index` holds; entries of another version are not looked at
OFFSET = struct.Struct(">Q")
PRODUCER = struct.Struct(">QQ")  # epoch, sequence (in `producers`: the next one expected)
DROPPED = 2**64 - 1  # in place of an offset: consumed without an event
MAX_READERS = 256
WRITER_LOCK = "writer.lock"
DATABASES = ("events", "sequences", "producers", "blobs", "meta", "dropped")  # the truth
INDEX = "index"  # made from the events; logs of the first writers have none: then readers scan


@dataclass(frozen=True)
class Environment:
    """An open LMDB environment with handles to the databases of a log."""

    lmdb: Any
    events: Any
    sequences: Any
    producers: Any
    blobs: Any
    meta: Any
    dropped: Any | None  # None: an older version wrote the log, nothing is dropped
    index: Any  # None: there is none that we can use
    path: Path
    run: str


def sequence_key(producer: str, epoch: int, sequence: int) -> bytes:
    return producer.encode() + b"\0" + PRODUCER.pack(epoch, sequence)


def open_environment(
    path: Path,
    *,
    write: bool,
    run: str | None = None,
    map_gib: int = 64,
    sync: str = "full",
) -> Environment:
    """Opens the log at a folder; a writer creates it when it is not there.

    ForeignLog when the folder holds something else, a newer format or another run; LogTorn when
    the file's end is missing; ReadersFull. A folder that may not be written is read all the same,
    unless somebody writes the log: LMDB could not tell the writer which pages are being read.
    """
    if not write and not (path / "data.mdb").exists():
        raise LogError(f"no log at {path}: the folder holds no data.mdb")
    if write:
        path.mkdir(parents=True, exist_ok=True)
    _refuse_torn(path / "data.mdb")
    try:
        env = lmdb.open(
            str(path),
            map_size=map_gib << 30,
            max_dbs=len(DATABASES) + 1,
            max_readers=MAX_READERS,
            readonly=not write,
            lock=write or _may_register(path),
            max_spare_txns=int(write),  # the writer keeps a reader slot: nobody can take it away
            metasync=sync == "full",
            sync=sync != "nosync",
            readahead=False,
            meminit=False,
        )
    except lmdb.ReadersFullError as error:
        raise readers_full(path) from error
    except lmdb.Error as error:
        raise ForeignLog(f"{path} cannot be opened as a log: {error}") from error
    try:
        env.reader_check()
        handles = {name: _database(env, name, create=write) for name in DATABASES}
        with env.begin(write=write) as txn:
            stored = _check_meta(txn, handles["meta"], path, run, write=write)
        index = _open_index(env, handles["meta"], write=write)
    except lmdb.ReadersFullError as error:
        env.close()
        raise readers_full(path) from error
    except lmdb.Error as error:
        env.close()
        raise ForeignLog(f"{path} is an LMDB file but no log of ours: {error}") from error
    except LogError:
        env.close()
        raise
    return Environment(lmdb=env, index=index, path=path, run=stored, **handles)


def _open_index(env: Any, meta: Any, *, write: bool) -> Any:
    """The database `index`; None where a reader finds none of a version that it knows."""
    if write:
        return env.open_db(INDEX.encode())
    with env.begin() as txn:
        if txn.get(b"index", db=meta) != OFFSET.pack(INDEX_VERSION):
            return None
    return env.open_db(INDEX.encode(), create=False)


def _database(env: Any, name: str, *, create: bool) -> Any:
    try:
        return env.open_db(name.encode(), create=create)
    except lmdb.NotFoundError:
        if name == "dropped":
            return None
        raise


def _check_meta(txn: Any, meta: Any, path: Path, run: str | None, *, write: bool) -> str:
    magic = txn.get(b"magic", db=meta)
    if magic is None:
        if not write or run is None:
            raise ForeignLog(f"{path} holds no log yet, and no run was named to start one")
        txn.put(b"magic", MAGIC, db=meta)
        txn.put(b"format", OFFSET.pack(FORMAT), db=meta)
        txn.put(b"run", run.encode(), db=meta)
        return run
    if magic != MAGIC:
        raise ForeignLog(f"{path} is no log of ours: its magic is {magic[:32]!r}")
    (found,) = OFFSET.unpack(txn.get(b"format", db=meta))
    if found > COMPACTED:
        raise ForeignLog(
            f"{path} has log format {found}, this version reads up to {COMPACTED}: upgrade it"
        )
    stored = str(txn.get(b"run", db=meta).decode())
    if run is not None and stored != run:
        raise ForeignLog(
            f"{path} is the log of run {stored!r}, not of {run!r}: choose another run folder"
        )
    return stored


def readers_full(path: Path) -> ReadersFull:
    return ReadersFull(
        f"all {MAX_READERS} reader slots of the log at {path} are taken: end some of the processes "
        "that read it (`mmzero log stat` names them); the writer goes on meanwhile"
    )


def _refuse_torn(file: Path) -> None:
    """LMDB would end this process where it reaches behind the file's end."""
    try:
        damage = cut_off(file) if file.exists() else None
    except NotPages:
        return  # LMDB says so too
    if damage is not None:
        raise LogTorn(
            f"{file} is torn, {damage}: bring back the whole file, or a copy made by `mmzero log "
            "backup`; `mmzero log verify` tells what is left"
        )


def _may_register(path: Path) -> bool:
    """Whether a reader can take its slot in LMDB's lock file. LogError when it must and cannot."""
    lock = path / "lock.mdb"
    if os.access(lock if lock.exists() else path, os.W_OK):
        return True
    writer = holder_of(path / WRITER_LOCK)
    if writer is not None:
        raise LogError(
            f"the log at {path} is being written by process {writer}, and this user may not write "
            f"{lock}, where a reader has to register: grant that, or read a copy made by `mmzero "
            "log backup`"
        )
    return False


def lock_for_writing(path: Path, *, mountinfo: Path = MOUNTINFO) -> FileLock:
    """One writer a log. LogLocked while another process holds it; NetworkFileSystem."""
    refuse_network(path, mountinfo)
    try:
        return FileLock(path / WRITER_LOCK)
    except LockHeld as error:
        raise LogLocked(
            f"the log at {path} is being written by process {error.holder}: stop that one, or "
            "choose another run folder"
        ) from None
