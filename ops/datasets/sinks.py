"""Rows to one file: Parquet, or a WebDataset tar. The same rows give the same bytes."""

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


class Sink(Protocol):
    """An open file."""

    def write(self, rows: Sequence[Values]) -> None: ...

    def close(self) -> None: ...


def sink(form: Format, path: Path, schema: pa.Schema) -> Sink:
    return ParquetSink(path, schema) if form == "parquet" else TarSink(path, schema)


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

    def write(self, rows: Sequence[Values]) -> None:
        arrays = [pa.array([row.get(f.name) for row in rows], f.type) for f in self._schema]
        self.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def write_table(self, rows: pa.Table) -> None:
        self._writer.write_table(rows)

    def close(self) -> None:
        self._writer.close()


def _leaves(schema: pa.Schema) -> list[str]:
    """Paths of the columns as Parquet names them."""
    empty = io.BytesIO()
    pq.write_table(schema.empty_table(), empty)
    columns = pq.ParquetFile(empty).schema
    return [columns.column(i).path for i in range(len(columns))]


class TarSink:
    """A row is `<key>.json` and its pictures: `<key>.png`, or `<key>.0.png`, `<key>.1.png`, ..."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        self._pictures = picture_columns(schema)
        self._names = schema.names

    def write(self, rows: Sequence[Values]) -> None:
        for row in rows:
            # What follows the first dot is a file's sort: an id's dots would be taken for it.
            key = "-".join((row["run"], row["id"], f"{row['offset']:012}")).replace(".", "_")
            for column in self._pictures:
                shown = row.get(column)
                if isinstance(shown, dict):
                    self._add(f"{key}.png", shown["bytes"])
                for i, picture in enumerate(shown if isinstance(shown, list) else []):
                    self._add(f"{key}.{i}.png", picture["bytes"])
            told = {n: row.get(n) for n in self._names if n not in self._pictures}
            self._add(f"{key}.json", json.dumps(told, ensure_ascii=False, default=_plain).encode())

    def _add(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)  # no times, no owners
        member.size, member.mode = len(data), 0o644
        self._tar.addfile(member, io.BytesIO(data))

    def close(self) -> None:
        self._tar.close()


def _plain(value: object) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} in a row")
