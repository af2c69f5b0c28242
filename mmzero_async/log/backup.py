"""`mmzero log backup`: a whole, compact and checked copy of a log, also while a writer goes on.

LMDB copies one snapshot: the copy holds every event that was acknowledged when it began. It appears
under its name only when it is on disk and verified, so that half a copy is never taken for one.
"""

import errno
import os
import shutil
from pathlib import Path

import lmdb

from mmzero_async.log.errors import LogError, LogFull
from mmzero_async.log.reader import LogReader
from mmzero_async.log.verify import Verification, verify


class BackupRefused(LogError):
    """The target is taken, or the copy could not be made."""


def back_up(reader: LogReader, target: Path) -> Verification:
    """Copies the log to a new folder `target` and verifies the copy.

    BackupRefused when the target exists or the copy does not verify; LogFull when the disk is too
    small. Nothing is left behind then.
    """
    if target.exists() or target.is_symlink():
        raise BackupRefused(f"{target} exists already: name a folder that does not, or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    _check_room(reader, target.parent)
    draft = target.with_name(f".{target.name}.draft.{os.getpid()}")
    try:
        draft.mkdir()
        _copy(reader, draft)
        found = verify(draft)
        if not found.clean:
            raise BackupRefused(
                f"the log at {reader.environment.path} has damage, which its copy would have too "
                f"({found.problems[0]}): look with `mmzero log verify`; nothing was kept"
            )
        _sync(draft / "data.mdb")
        draft.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return found


def _check_room(reader: LogReader, folder: Path) -> None:
    needed, free = reader.stats().bytes_used, shutil.disk_usage(folder).free
    if needed > free:
        raise LogFull(
            f"a copy may need {needed / 1e6:.0f} MB, {folder} has {free / 1e6:.0f} MB free: name a "
            "folder on another disk"
        )


def _copy(reader: LogReader, draft: Path) -> None:
    source = reader.environment.path
    try:
        reader.environment.lmdb.copy(str(draft), compact=True)
    except (lmdb.Error, OSError) as error:
        text = f"{source} could not be copied to {draft.parent}: {error}"
        if os.strerror(errno.ENOSPC) in str(error):
            raise LogFull(f"{text}. Name a folder on another disk") from error
        raise BackupRefused(f"{text}. `mmzero log verify` tells whether it is damaged") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
