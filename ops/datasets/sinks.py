"""Rows to one file: Parquet, or a WebDataset tar. The same rows give the same bytes.

Rows are packed first, some at a time and wherever that may be, and then put into a file in order.
"""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmzero_async.ops.datasets.columns import picture_columns
from mmzero_async.ops.datasets.options import Format

Values = dict[str, Any]  # by column; pictures as {bytes, path}
Packed = Any  # rows: a RecordBatch, or list[bytes] with each row's members of a tar
Piece = tuple[Packed, list[int]]  # some of its rows, ascending


class Sink(Protocol):
    """An open file."""

    def write(self, pieces: Sequence[Piece]) -> None: ...

    def close(self) -> None: ...


def sink(form: Format, path: Path, schema: pa.Schema) -> Sink:
    return ParquetSink(path, schema) if form == "parquet" else TarSink(path)


def pack(form: Format, schema: pa.Schema, rows: Sequence[Values]) -> Packed:
    if form == "parquet":
        arrays = [pa.array([row.get(f.name) for row in rows], f.type) for f in schema]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)
    pictures = picture_columns(schema)
    return [_members(row, pictures, schema.names) for row in rows]


def picked(piece: Piece) -> Piece:
    """The same rows without the others, which it would keep in memory."""
    packed, places = piece
    if len(places) == len(packed):
        return piece
    if isinstance(packed, list):
        return [packed[at] for at in places], list(range(len(places)))
    return packed.take(pa.array(places)), list(range(len(places)))


def suffix(form: Format) -> str:
    return "parquet" if form == "parquet" else "tar"


class ParquetSink:
    """A row group a call."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        leaves = _leaves(schema)
        self._writer = pq.ParquetWriter(
            path,
            schema,
            version="2.6",
            data_page_version="1.0",
            # PNGs do not get smaller, nor do they repeat.
            compression={leaf: "none" if leaf.endswith(".bytes") else "zstd" for leaf in leaves},
            use_dictionary=[leaf for leaf in leaves if not leaf.endswith(".bytes")],
            write_statistics=["offset"],
            write_page_checksum=True,
        )

    def write(self, pieces: Sequence[Piece]) -> None:
        batches = [_rows(packed, places) for packed, places in pieces]
        # In one piece: where a page ends must not depend on where a batch did.
        self.write_table(pa.Table.from_batches(batches, self._schema).combine_chunks())

    def write_table(self, rows: pa.Table) -> None:
        self._writer.write_table(rows)

    def close(self) -> None:
        self._writer.close()


def _rows(packed: Packed, places: list[int]) -> pa.RecordBatch:
    if places[-1] - places[0] == len(places) - 1:
        return packed.slice(places[0], len(places))
    return packed.take(pa.array(places))


def _leaves(schema: pa.Schema) -> list[str]:
    """Paths of the columns as Parquet names them."""
    empty = io.BytesIO()
    pq.write_table(schema.empty_table(), empty)
    columns = pq.ParquetFile(empty).schema
    return [columns.column(i).path for i in range(len(columns))]


class TarSink:
    """A row is `<key>.json` and its pictures: `<key>.png`, or `<key>.0.png`, `<key>.1.png`, ..."""

    def __init__(self, path: Path) -> None:
        self._file, self._size = path.open("wb"), 0

    def write(self, pieces: Sequence[Piece]) -> None:
        for packed, places in pieces:
            for at in places:
                self._size += self._file.write(packed[at])

    def close(self) -> None:
        """Two empty blocks, and up to a whole record."""
        end = self._size + 2 * tarfile.BLOCKSIZE
        self._file.write(bytes(end - self._size + -end % tarfile.RECORDSIZE))
        self._file.close()


def _members(row: Values, pictures: Sequence[str], names: Sequence[str]) -> bytes:
    # What follows the first dot is a file's sort: an id's dots would be taken for it.
    key = "-".join((row["run"], row["id"], f"{row['offset']:012}")).replace(".", "_")
    found: list[bytes] = []
    for column in pictures:
        shown = row.get(column)
        if isinstance(shown, dict):
            found += _member(f"{key}.png", shown["bytes"])
        for i, picture in enumerate(shown if isinstance(shown, list) else []):
            found += _member(f"{key}.{i}.png", picture["bytes"])
    told = {name: row.get(name) for name in names if name not in pictures}
    text = json.dumps(told, ensure_ascii=False, default=_plain).encode()
    return b"".join((*found, *_member(f"{key}.json", text)))


def _member(name: str, data: bytes) -> tuple[bytes, bytes, bytes]:
    """As a tar holds it: head, bytes, blanks up to a whole block."""
    member = tarfile.TarInfo(name)  # no times, no owners
    member.size, member.mode = len(data), 0o644
    head = member.tobuf(tarfile.USTAR_FORMAT)
    return head, data, bytes(-len(data) % tarfile.BLOCKSIZE)


def _plain(value: object) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} in a row")
