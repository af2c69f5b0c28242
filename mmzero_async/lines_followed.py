"""Reads the JSON lines of a process as they are written, across the files that it begins and drops.

For who shows them (`mmzero tail`) and who sends them to another host.
"""

import contextlib
import itertools
import json
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from mmzero_async.telemetry import generation

Line = dict[str, Any]


class Place(msgspec.Struct, frozen=True, array_like=True):
    """How far a process's lines were read."""

    inode: int
    offset: int


class Followed:
    """One process's lines.

    The file read last is kept open: so it is told from all others for sure, and is read to its end
    though it bears another name by now.

    Args:
        begin: where an earlier one stopped; the oldest line that is there, if its file is gone.
    """

    def __init__(self, path: Path, begin: Place | None = None) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        if begin is not None:
            self._resume(begin)

    def last(self, wanted: Callable[[Line], bool], count: int) -> list[Line]:
        """The last lines that are there, in the order of writing; `new` goes on after them."""
        files = self._newer()
        found: list[Line] = []
        for file in reversed(files):
            if file is files[-1] or len(found) < count:
                found[:0] = deque(filter(wanted, _parsed(_lines(file))), count - len(found))
        if files:
            self._keep(files.pop())
        for file in files:
            file.close()
        return found

    def new(self) -> Iterator[Line]:
        """What was written since the last call. Lines in files that were dropped since are lost."""
        return _parsed(self.written())

    def written(self) -> Generator[bytes, None, None]:
        """As `new`, each line as it is on disk. Whoever stops early goes on there next time."""
        if self._file is not None:
            yield from _lines(self._file)
        newer = self._newer()
        try:
            while newer:
                if self._file is not None:
                    yield from _lines(self._file)  # what came before its successor did
                file = newer.pop(0)
                self._keep(file)
                yield from _lines(file)
        finally:
            for file in newer:
                file.close()

    @property
    def place(self) -> Place | None:
        """Behind the line that was read last; None before the first."""
        if self._file is None:
            return None
        return Place(os.fstat(self._file.fileno()).st_ino, self._file.tell())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _resume(self, begin: Place) -> None:
        for file in self._newer():
            status = os.fstat(file.fileno())
            if (
                self._file is None
                and status.st_ino == begin.inode
                and begin.offset <= status.st_size
            ):
                file.seek(begin.offset)
                self._file = file
            else:
                file.close()

    def _keep(self, file: BinaryIO) -> None:
        self.close()
        self._file = file

    def _newer(self) -> list[BinaryIO]:
        """Those younger than the one that is open, open too, the oldest first.

        Looked for from the newest to the oldest: if one is renamed meanwhile it is met twice, and
        none is missed but what is newer still.
        """
        found: list[BinaryIO] = []
        with contextlib.suppress(FileNotFoundError):
            for number in itertools.count():
                file = generation(self._path, number).open("rb")
                if self._file is not None and _same(file, self._file):
                    file.close()
                    break
                if found and _same(file, found[-1]):
                    file.close()
                    continue
                found.append(file)
        return found[::-1]


def _same(one: BinaryIO, other: BinaryIO) -> bool:
    return os.path.sameopenfile(one.fileno(), other.fileno())


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Complete lines from where the file stands."""
    while raw := file.readline():
        if not raw.endswith(b"\n"):
            file.seek(-len(raw), os.SEEK_CUR)
            return
        yield raw


def _parsed(lines: Iterator[bytes]) -> Iterator[Line]:
    """One that is no JSON object is skipped."""
    for raw in lines:
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        if isinstance(line, dict):
            yield line
