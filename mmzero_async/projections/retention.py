"""Which pictures training and replay may still ask for, from the log alone.

Needed are the pictures in the lineage of what is open or pending (work that is due, groups that are
neither trained nor rejected), and of the groups that the steps which are to be kept replayable
consumed. All else compaction may drop; the events themselves are never dropped.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from mmzero_async.log.reader import LogReader
from mmzero_async.log.verify import named_blobs
from mmzero_async.projections.pipeline import Pipeline
from mmzero_async.schemas.events import ROLES, Role, StepCommitted, UnknownEvent
from mmzero_async.schemas.record import Record

Keep = int | Literal["trained"]  # the newest N steps a role, or all of them


def in_words(keep: Keep) -> str:
    """What is kept, for tombstones and people."""
    if keep == "trained":
        return "pending groups' pictures and those of every step"
    if keep == 0:
        return "pending groups' pictures"
    return f"pending groups' pictures and those of each role's newest {keep} steps"


@dataclass(slots=True)
class Retention:
    """Feed every record in offset order to `apply`; then `offsets` are the events that need theirs.

    Memory: what is open, and 8 bytes an event of the steps that are kept.
    """

    keep: Keep
    pipeline: Pipeline = field(default_factory=Pipeline)
    unknown: set[str] = field(default_factory=set)  # kinds that this version does not know
    _steps: dict[Role, deque[tuple[int, ...]]] = field(init=False)

    def __post_init__(self) -> None:
        limit = None if self.keep == "trained" else self.keep
        self._steps = {role: deque(maxlen=limit) for role in ROLES}

    def apply(self, record: Record) -> None:
        event = record.event()
        match event:
            case StepCommitted():
                ready = self.pipeline.book.ready[event.role]
                groups = [ready[group].offsets for group in event.groups if group in ready]
                consumed = {offset for offsets in groups for offset in offsets}
                self._steps[event.role].append(tuple(consumed.union(event.offsets)))
            case UnknownEvent():
                self.unknown.add(event.kind)
            case _:
                pass
        self.pipeline.apply(record.offset, event)

    def offsets(self) -> Iterator[int]:
        """Of the events whose pictures are needed; some may come twice."""
        for role in ROLES:
            for group in self.pipeline.book.ready[role].values():
                yield from group.offsets
            for step in self._steps[role]:
                yield from step
        for tree in self.pipeline.lineage.trees.values():
            yield from tree.offsets()


def needed_pictures(reader: LogReader, keep: Keep) -> set[str]:
    """Digests. ValueError when the log holds events of a newer version, which may need any."""
    retention = Retention(keep)
    for record in reader.scan():
        retention.apply(record)
    if retention.unknown:
        raise ValueError(
            f"{reader.environment.path} holds events of kinds that this version does not know "
            f"({', '.join(sorted(retention.unknown))}), which may need any picture: compact it "
            "with the version that wrote them"
        )
    # A blind probe outlives its tree, and may show a picture of another.
    due = {work.picture for work in retention.pipeline.lineage.open.values() if work.picture}
    return due.union(pictures_at(reader, retention.offsets()))


def pictures_at(reader: LogReader, offsets: Iterable[int]) -> Iterator[str]:
    for offset in sorted(set(offsets)):
        yield from named_blobs(reader.get(offset).event())
