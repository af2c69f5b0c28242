"""`mmzero log backup`: a whole, compact and checked copy of a log, also while a writer goes on.

LMDB copies one snapshot: the copy holds every event that was acknowledged when it began. It appears
under its name only when it is on disk and verified, so that half a copy is never taken for one.
"""

import errno
import os
from pathlib import Path

import lmdb

from mmzero_async.log.drafts import check_room, draft_of
from mmzero_async.log.environment import Environment
from mmzero_async.log.errors import LogError, LogFull
from mmzero_async.log.reader import LogReader
from mmzero_async.log.verify import Verification, verify


class BackupRefused(LogError):
    """The copy could not be made, or holds damage."""


def back_up(reader: LogReader, target: Path) -> Verification:
    """Copies the log to a new folder `target` and verifies the copy.

    BackupRefused when the copy does not verify, TargetTaken, LogFull when the disk is too small.
    Nothing is left behind then.
    """
    with draft_of(target) as draft:
        check_room(reader.stats().bytes_used, target.parent, "a copy")
        copy_compacted(reader.environment, draft)
        found = verify(draft)
        if not found.clean:
            raise BackupRefused(
                f"the log at {reader.environment.path} has damage, which its copy would have too "
                f"({found.problems[0]}): look with `mmzero log verify`; nothing was kept"
            )
    return found


def copy_compacted(environment: Environment, folder: Path) -> None:
    """A copy of the newest snapshot in an empty folder, without free pages. LogFull."""
    try:
        environment.lmdb.copy(str(folder), compact=True)
    except (lmdb.Error, OSError) as error:
        text = f"{environment.path} could not be copied to {folder.parent}: {error}"
        if os.strerror(errno.ENOSPC) in str(error):
            raise LogFull(f"{text}. Name a folder on another disk") from error
        raise BackupRefused(f"{text}. `mmzero log verify` tells whether it is damaged") from error
