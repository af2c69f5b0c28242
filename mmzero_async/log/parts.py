"""Rows to Parquet files of bounded size and back, in bounded memory. Knows no log."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

PART_BYTES = 256 << 20  # of values a file
GROUP_BYTES = 8 << 20  # of values a row group: what is held in memory
GROUP_ROWS = 16384
READ_ROWS = 256

Row = tuple[Any, ...]


@dataclass(slots=True)
class Parts:
    """Rows of one sort, written as `<stem>-00000.parquet`, `<stem>-00001.parquet`, ..."""

    folder: Path
    stem: str
    schema: Any
    part_bytes: int = PART_BYTES
    group_bytes: int = GROUP_BYTES
    compression: str = "zstd"
    names: list[str] = field(default_factory=list)
    _writer: Any = None
    _rows: list[Row] = field(default_factory=list)
    _held: int = 0  # bytes in _rows
    _written: int = 0  # bytes in the open file

    def add(self, row: Row, size: int) -> None:
        self._rows.append(row)
        self._held += size
        if self._held >= self.group_bytes or len(self._rows) >= GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        """Writes what is held; one file at least, so that the sort is seen to be empty."""
        if self._rows or not self.names:
            self._flush()
        self._end()

    def _flush(self) -> None:
        if self._writer is None:
            self.names.append(f"{self.stem}-{len(self.names):05}.parquet")
            self._writer = pq.ParquetWriter(
                self.folder / self.names[-1],
                self.schema,
                compression=self.compression,
                use_dictionary=[n for n in ("producer", "kind") if n in self.schema.names],
                write_statistics=[n for n in ("offset",) if n in self.schema.names],
            )
        columns = zip(*self._rows, strict=True) if self._rows else [()] * len(self.schema)
        arrays = [
            pa.array(values, kind.type) for values, kind in zip(columns, self.schema, strict=True)
        ]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self.schema))
        self._written += self._held
        self._rows, self._held = [], 0
        if self._written >= self.part_bytes:
            self._end()

    def _end(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._written = None, 0


def rows(folder: Path, names: Sequence[str], columns: Sequence[str]) -> Iterator[Row]:
    """What was added, in order. pyarrow's own errors for a file that it cannot read."""
    for name in names:
        # Reading ahead would hold a whole file, a batch over groups many large rows.
        with pq.ParquetFile(folder / name, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(READ_ROWS, [group], list(columns)):
                    yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
