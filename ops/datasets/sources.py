"""Where a dataset comes from: one run's log, or the members of a merged collection, one after the
other. Each is read up to an offset that is fixed before the first row, so that a run may go on."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from mmzero_async.config import DrawingKind
from mmzero_async.log.collection import is_collection, open_collection
from mmzero_async.log.interface import View
from mmzero_async.log.reader import LogReader
from mmzero_async.schemas.events import RunStarted
from mmzero_async.schemas.record import encode_record

_LOOKED = 4096  # events at most before a run's start: only who joined may stand there


class _Coder(msgspec.Struct, frozen=True):
    drawing: DrawingKind = "svg"


class Asked(msgspec.Struct, frozen=True):
    """What a run's prompts were made with; read leniently, as logs of any version are."""

    templates: str = "seedling"
    coder: _Coder = _Coder()


@dataclass(frozen=True, slots=True)
class Source:
    """Events [0, stop) of one log."""

    name: str  # of the run; of a collection's member, unique in it
    run: str  # as the log calls itself
    view: View
    stop: int
    first: str  # digest of the first record: two logs of one name are told apart
    asked: Asked

    def figures(self) -> dict[str, Any]:
        """As manifests and cards name it."""
        return {"name": self.name, "run": self.run, "events": self.stop, "first": self.first}


@contextmanager
def sources(folder: Path, stops: dict[str, int] | None = None) -> Iterator[list[Source]]:
    """The logs under a run's folder or a collection's, opened for reading.

    `stops`: where an earlier export of the same logs ended, by name. LogError, CollectionDamaged.
    """
    with ExitStack() as stack:
        if is_collection(folder):
            named = [(m.name, folder / m.name / "log") for m in open_collection(folder).members]
        else:
            named = [("", folder / "log")]
        found = []
        for name, log in named:
            reader = LogReader.open(log)
            stack.callback(reader.close)
            found.append(_source(name or reader.run, reader, stops or {}))
        yield found


def _source(name: str, reader: LogReader, stops: dict[str, int]) -> Source:
    stop = min(stops.get(name, reader.next_offset), reader.next_offset)
    first = ""
    asked = Asked()
    for record in reader.scan(0, min(stop, _LOOKED)):
        if not record.offset:
            first = hashlib.sha256(encode_record(record.envelope)).hexdigest()[:16]
        if record.kind == "run_started":
            event = record.event()
            assert isinstance(event, RunStarted)
            asked = _asked(event.config)
            break
    return Source(name, reader.run, reader, stop, first, asked)


def _asked(config: str) -> Asked:
    try:
        return msgspec.json.decode(config, type=Asked)
    except msgspec.MsgspecError:
        return Asked()
