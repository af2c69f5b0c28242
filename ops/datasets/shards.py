"""Rows to files of bounded size in each split, written beside the reading.

A file appears under its name when it is whole and on disk, and is then written down; what was
written down before a kill is not made again, its rows are only counted. Where a file ends depends
on the rows alone, so that an export which was killed has the files of one which was not.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from mmzero_async.log.drafts import sync
from mmzero_async.ops.datasets.options import Options
from mmzero_async.ops.datasets.sinks import Packed, Piece, Sink, picked, sink, suffix

FOLDER = "data"
GROUP_BYTES = 8 << 20  # of values that are handed to the writer at once: a row group
GROUP_ROWS = 1024
WAITING = 2  # such groups that may wait for the writer


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """A finished file. `values`: bytes of what it holds, before packing."""

    split: str
    name: str  # relative to the dataset's folder
    rows: int
    values: int
    bytes: int
    sha256: str


@dataclass(slots=True)
class _Open:
    """A split's rows that are not in a finished file yet."""

    index: int = 0  # of the file in the making
    skip: int = 0  # rows that stand in finished files
    pieces: list[Piece] = field(default_factory=list)
    rows: int = 0  # in `pieces`
    held: int = 0  # bytes of their values
    written: int = 0  # bytes given to the file in the making
    count: int = 0  # rows given to it
    sink: Sink | None = None  # the writer's own


class Shards:
    """`add` every row in order, then `close`. Not for two at a time in one folder."""

    def __init__(
        self,
        folder: Path,
        options: Options,
        schema: pa.Schema,
        done: Callable[[Shard], None],
        finished: Iterable[Shard] = (),
    ) -> None:
        self._folder, self._options, self._schema, self._done = folder, options, schema, done
        self._open = {split.name: _Open() for split in options.splits}
        for shard in finished:
            self._open[shard.split].index += 1
            self._open[shard.split].skip += shard.rows
        # One thread, so that files are written in the order of their rows.
        self._writer = ThreadPoolExecutor(1, "dataset-writer")
        self._waiting: deque[Future[None]] = deque()

    def skips(self, split: str) -> int:
        """How many rows that come next stand in finished files."""
        return self._open[split].skip

    def skip(self, split: str) -> bool:
        """Whether the row that comes next does; it is passed over then."""
        state = self._open[split]
        state.skip -= (skipped := state.skip > 0)
        return skipped

    def add(self, split: str, packed: Packed, at: int, size: int) -> None:
        """The row that stands there, of so many bytes. What the disk raises."""
        state = self._open[split]
        if state.pieces and state.pieces[-1][0] is packed:
            state.pieces[-1][1].append(at)
        else:
            state.pieces.append((packed, [at]))
        state.rows, state.held = state.rows + 1, state.held + size
        if state.held >= GROUP_BYTES or state.rows >= GROUP_ROWS:
            self._hand_over(split, state)
            if state.written >= self._options.shard_bytes:
                self._finish(split, state)

    def settle(self) -> None:
        """To be called after the last row of what was packed together: the others may go."""
        for state in self._open.values():
            if state.pieces:
                state.pieces[-1] = picked(state.pieces[-1])

    def close(self) -> None:
        """Writes what is held. A split without rows gets no file: `datasets` would open none."""
        for split, state in self._open.items():
            if state.rows:
                self._hand_over(split, state)
            if state.count:
                self._finish(split, state)
        while self._waiting:
            self._waiting.popleft().result()

    def stop(self) -> None:
        """Leaves what is finished as it is, and drops the rest."""
        self._writer.shutdown(wait=True, cancel_futures=True)

    def _hand_over(self, split: str, state: _Open) -> None:
        pieces, state.pieces = state.pieces, []
        state.written, state.held = state.written + state.held, 0
        state.count, state.rows = state.count + state.rows, 0
        self._later(self._write, state, self._path(split, state.index), pieces)

    def _finish(self, split: str, state: _Open) -> None:
        path = self._path(split, state.index)
        self._later(self._end, split, state, path, state.count, state.written)
        state.index, state.count, state.written = state.index + 1, 0, 0

    def _later(self, step: Callable[..., None], *arguments: Any) -> None:
        self._waiting.append(self._writer.submit(step, *arguments))
        while len(self._waiting) > WAITING:
            self._waiting.popleft().result()

    def _path(self, split: str, index: int) -> Path:
        form = suffix(self._options.format)
        return self._folder / FOLDER / f"{split}-{index:05}.{form}"

    # What follows is done by the writer's thread alone.

    def _write(self, state: _Open, path: Path, pieces: list[Piece]) -> None:
        if state.sink is None:
            path.parent.mkdir(exist_ok=True)
            state.sink = sink(self._options.format, _draft(path), self._schema)
        state.sink.write(pieces)

    def _end(self, split: str, state: _Open, path: Path, rows: int, values: int) -> None:
        assert state.sink is not None
        state.sink.close()
        state.sink = None
        draft = _draft(path)
        sync(draft)
        with draft.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = draft.stat().st_size
        draft.rename(path)
        sync(path.parent)
        name = f"{FOLDER}/{path.name}"
        shard = Shard(split=split, name=name, rows=rows, values=values, bytes=size, sha256=digest)
        self._done(shard)


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")
