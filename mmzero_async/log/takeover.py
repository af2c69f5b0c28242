"""A compacted copy takes the place of a log's data.mdb, at one moment, whatever dies when.

The copy goes on with the commit number of the file that it replaces. LMDB's lock file outlives the
swap as long as any process has the log open, and tells the next writer which of the two meta pages
is the newest by that number: with a copy's own (it begins at 1) the writer could start from the
empty page beside it. Both meta pages get the whole state, one commit apart.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmzero_async.log.backup import copy_compacted
from mmzero_async.log.drafts import COMPACTING, clear_compacting, sync
from mmzero_async.log.environment import Environment
from mmzero_async.log.errors import LogError
from mmzero_async.log.pages import HEADER, Pages
from mmzero_async.log.verify import verify

_NUMBER_AND_PAD = struct.Struct("<QH")  # of a page's header
_COMMIT = struct.Struct("<Q")  # the last field of a meta page
_META_BYTES = 136
_FLOCK = struct.Struct("hhqqi4x")  # struct flock on 64-bit Linux: type, whence, start, length, pid


class LogInUse(LogError):
    """Another process has the log open."""


def shrink(environment: Environment) -> None:
    """Puts a verified copy without free pages in the file's place.

    Only for who holds the writer's lock; close the environment afterwards, it shows the old file.
    LogInUse, LogFull, LogError when the copy does not verify: then the old file stays.
    """
    log = environment.path
    clear_compacting(log)
    draft = log / COMPACTING
    try:
        draft.mkdir()
        copy_compacted(environment, draft)
        renumber(draft / "data.mdb", environment.lmdb.info()["last_txnid"])
        found = verify(draft)
        if not found.clean:
            raise LogError(
                f"the compacted copy of {log} does not verify ({found.problems[0]}): the log stays "
                "as it was; look with `mmzero log verify`"
            )
        sync(draft / "data.mdb")
        with alone(log):
            (draft / "data.mdb").rename(log / "data.mdb")
            sync(log)
    finally:
        clear_compacting(log)


def renumber(file: Path, commit: int) -> None:
    """Makes a fresh copy's state that of `commit`; the other meta page gets the commit before."""
    pages = Pages(file)
    try:
        newest = pages.newest().transaction
        size = pages.page_size
        state = pages.read(newest % 2)[: HEADER.size + _META_BYTES]
    finally:
        pages.close()
    with file.open("r+b") as data:
        for number in (commit - 1, commit):
            place = number % 2
            head = _NUMBER_AND_PAD.pack(place, 0)
            body = state[len(head) : -_COMMIT.size] + _COMMIT.pack(number)
            data.seek(place * size)
            data.write(head + body)


@contextmanager
def alone(log: Path) -> Iterator[None]:
    """While it lasts no other process has the log open, and who wants to open it waits. LogInUse.

    Takes the lock by which LMDB itself knows its first opener. Releasing it ends this process's
    own share too: close the environment next.
    """
    with (log / "lock.mdb").open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
        except OSError:
            raise _in_use(log) from None
        yield


def refuse_openers(log: Path) -> None:
    """LogInUse when another process has the log open. Before this process opens it."""
    try:
        with (log / "lock.mdb").open("r+b") as file:
            if _holder(file.fileno()) is not None:
                raise _in_use(log)
    except FileNotFoundError:
        return


def _in_use(log: Path) -> LogInUse:
    with (log / "lock.mdb").open("r+b") as file:
        holder = _holder(file.fileno())
    return LogInUse(
        f"the log at {log} is open in process {holder or 'unknown'}: wait until it is done, or end "
        "it, and compact again; nothing is lost"
    )


def _holder(descriptor: int) -> int | None:
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else pid
