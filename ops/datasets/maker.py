"""From a task to rows that are ready for a file: the costly part of an export, of which any number
of processes may do some. What is left out as a duplicate is decided afterwards, in order."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from mmzero_async.log.errors import LogError
from mmzero_async.ops.datasets.chosen import Chosen
from mmzero_async.ops.datasets.columns import picture_columns, schema_of
from mmzero_async.ops.datasets.duplicates import key_of
from mmzero_async.ops.datasets.groups import Walk
from mmzero_async.ops.datasets.options import Options
from mmzero_async.ops.datasets.prompts import Prompts
from mmzero_async.ops.datasets.rows import Picture, Row
from mmzero_async.ops.datasets.sinks import Packed, Values, pack
from mmzero_async.ops.datasets.splits import split_of
from mmzero_async.ops.datasets.tasks import Task
from mmzero_async.schemas.record import RecordDamaged

_UNREAD = (LogError, RecordDamaged)


class Made(NamedTuple):
    """One row: what has to be known of it to put it into its place. Pickled in no time."""

    offset: int
    split: str
    role: str
    version: int
    key: int | None  # of its words; None where nothing is deduplicated
    picture: int | None  # offset of the picture that it shows
    pictures: int  # in its column that has most
    size: int = 0
    at: int | None = None  # its place in what is packed; None for a row that is only counted


@dataclass(slots=True)
class Batch:
    """What one task became, in its order."""

    source: int
    lineages: int
    found: list[Made | str] = field(default_factory=list)  # or why a group became no row
    bare_prompts: int = 0
    unread: dict[int, Exception] = field(default_factory=dict)  # by offset: a picture that is gone
    packed: Packed = field(default_factory=list)


class Maker:
    """Makes the tasks of some sources, in any order."""

    def __init__(self, walks: Sequence[Walk], options: Options) -> None:
        self._options, self._schema = options, schema_of(options)
        self._pictures = picture_columns(self._schema)
        self._chosen = [Chosen(walk, options, Prompts.of(walk.source.asked)) for walk in walks]

    def make(self, task: Task) -> Batch:
        """What reading a log raises, but for pictures: these may turn out not to be wanted."""
        chosen = self._chosen[task.source]
        batch, ready = Batch(task.source, task.lineages), list[Values]()
        bare = chosen.prompts.bare
        for item in task.items:
            for found in chosen.of(item):
                if isinstance(found, str):
                    batch.found.append(found)
                else:
                    batch.found.append(self._made(task, batch, ready, *found))
        batch.bare_prompts = chosen.prompts.bare - bare
        batch.packed = pack(self._options.format, self._schema, ready)
        return batch

    def _made(self, task: Task, batch: Batch, ready: list[Values], offset: int, row: Row) -> Made:
        source, options = self._chosen[task.source].walk.source, self._options
        split = split_of(source.name, row.lineage, options.splits)
        key = key_of(row.words) if options.deduplicate else None
        count = max((_count(row.values.get(name)) for name in self._pictures), default=0)
        told = (offset, split, row.role, row.version, key, row.picture, count)
        if split in task.bare:
            return Made(*told)
        values = {
            "id": row.id,
            "run": source.name,
            "lineage": row.lineage,
            "offset": offset,
            **row.values,
        }
        try:
            for name in self._pictures:
                values[name] = _shown(values.get(name), source.view.blob)
        except _UNREAD as error:
            batch.unread[offset] = error
            return Made(*told)
        ready.append(values)
        return Made(*told, size=size_of(values), at=len(ready) - 1)


def _count(value: object) -> int:
    return len(value) if isinstance(value, list) else int(value is not None)


def _shown(value: Any, blob: Any) -> Any:
    if isinstance(value, Picture):
        return {"bytes": blob(value.digest), "path": value.name}
    if isinstance(value, list) and value and isinstance(value[0], Picture):
        return [{"bytes": blob(p.digest), "path": p.name} for p in value]
    return value


def size_of(value: Any) -> int:
    """Bytes of a value, roughly, and the same whenever it is asked."""
    sort = type(value)
    if sort is str or sort is bytes:
        return len(value)
    if sort is dict:
        return sum(map(size_of, value.values()))
    if sort is list:
        return sum(map(size_of, value))
    return value.nbytes if sort is np.ndarray else 8
