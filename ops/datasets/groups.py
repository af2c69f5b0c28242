"""From records in order to complete groups with their events and fates, in bounded memory.

Completeness is the lineage's word (projections/lineage.py). The newest records are kept, within a
budget of bytes; an older one that a group still needs is read from the log again.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mmzero_async.log.interface import View
from mmzero_async.ops.datasets.fates import Fates, Found, Index
from mmzero_async.ops.datasets.sources import Source
from mmzero_async.projections.copies import Copies
from mmzero_async.projections.lineage import CompleteGroup, Lineage
from mmzero_async.schemas.events import (
    Answered,
    AnyEvent,
    Coded,
    Probed,
    Proposal,
    Proposed,
    Question,
    Rendered,
    Rewarded,
)
from mmzero_async.schemas.ids import indices, root
from mmzero_async.schemas.record import Record

KEPT_BYTES = 64 << 20  # of encoded events
# For gc: events hold no cycles, and looking for some in all that are remembered takes a third of
# the time.
SELDOM = (200_000, 50, 100)
_CLOSE = 4  # records passed over for one that is wanted: a look-up costs as much
_GROWS = frozenset({"proposed", "coded", "rendered", "answered", "work_abandoned"})

Generated = Proposed | Coded | Answered | Probed


class Recent:
    """Events by offset: the newest from memory, the others from the log."""

    def __init__(self, view: View, budget: int) -> None:
        self._view, self._budget, self._held = view, budget, 0
        self._kept: OrderedDict[int, tuple[Record, AnyEvent]] = OrderedDict()

    def add(self, record: Record, event: AnyEvent) -> None:
        self._kept[record.offset] = record, event
        self._held += len(record.envelope.body)
        while self._held > self._budget and len(self._kept) > 1:
            _, (gone, _) = self._kept.popitem(last=False)
            self._held -= len(gone.envelope.body)

    def load(self, offsets: Iterable[int]) -> None:
        """What is wanted soon, in one go where it lies close together."""
        missing = sorted(set(offsets) - self._kept.keys())
        if not missing or missing[-1] - missing[0] > _CLOSE * len(missing):
            return
        wanted = set(missing)
        for record in self._view.scan(missing[0], missing[-1] + 1):
            if record.offset in wanted:
                self.add(record, record.event())

    def of(self, offset: int) -> AnyEvent:
        found = self._kept.get(offset)
        return found[1] if found is not None else self._view.get(offset).event()

    def record(self, offset: int) -> Record:
        found = self._kept.get(offset)
        return found[0] if found is not None else self._view.get(offset)

    def picture(self, offset: int) -> Rendered:
        """The event of a picture that stands there."""
        event = self.of(offset)
        assert isinstance(event, Rendered)
        return event


@dataclass(slots=True)
class Group:
    """A complete group: the events that it is made of, by what they are about, with offsets."""

    complete: CompleteGroup
    fate: Found
    main: Generated  # the samples that are compared
    offset: int  # of `main`
    proposed: Proposed
    coded: dict[str, Coded] = field(default_factory=dict)
    rendered: dict[str, Rendered] = field(default_factory=dict)
    answered: dict[tuple[str, Question], Answered] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)  # of Rendered, by drawing

    @property
    def id(self) -> str:
        return self.complete.id

    @property
    def rewards(self) -> list[float] | None:
        """As they were trained on, one a sample; None for a group that no step took."""
        return self.fate.event.rewards if isinstance(self.fate.event, Rewarded) else None

    def proposal(self, lineage: str) -> Proposal | None:
        """That a proposal's or a drawing's id descends from."""
        place = indices(lineage)
        return self.proposed.outcomes[place[1]].proposal if len(place) > 1 else None


@dataclass(slots=True)
class Walk:
    """One source from its first event to its end. `groups` and `lineages` are walked once."""

    source: Source
    fates: Fates
    recent: Recent
    lineage: Lineage = field(default_factory=Lineage)

    @classmethod
    def of(cls, source: Source) -> "Walk":
        index = Index.of(source.view, source.stop)
        walk = cls(source, Fates(source.view, index), Recent(source.view, KEPT_BYTES))
        # Copies decide about rewards, and these are in the log already.
        walk.lineage.copies = Copies(memory=0)
        return walk

    def complete(self) -> Iterator[CompleteGroup | Record]:
        """Groups in the order in which they become complete; probes as they come."""
        for record in self.source.view.scan(0, self.source.stop):
            if record.kind == "probed":
                yield record
            if record.kind not in _GROWS:
                continue
            event = record.event()
            if record.kind != "work_abandoned":
                self.recent.add(record, event)
            yield from self.lineage.apply(record.offset, event)[1]

    def group(self, complete: CompleteGroup) -> Group:
        """A complete group with its events."""
        found = [(offset, self.recent.of(offset)) for offset in complete.offsets]
        proposed = found[0][1]
        assert isinstance(proposed, Proposed), "a tree begins with its proposals"
        fate = self.fates.of(complete.role, complete.id)
        group = Group(complete, fate, proposed, found[0][0], proposed)
        for offset, event in found:
            match event:
                case Coded():
                    group.coded[event.proposal] = event
                    if event.proposal == complete.id:
                        group.main, group.offset = event, offset
                case Rendered():
                    group.rendered[event.drawing] = event
                    group.offsets[event.drawing] = offset
                case Answered():
                    group.answered[event.drawing, event.question] = event
                    if (event.drawing, event.question) == (complete.id, "hard"):
                        group.main, group.offset = event, offset
                case _:
                    pass
        return group


def lineage_of(event: AnyEvent) -> str:
    """`g12` of an event that a tree consists of."""
    match event:
        case Proposed():
            return event.group
        case Coded():
            return root(event.proposal)
        case Rendered() | Answered() | Probed():
            return root(event.drawing)
        case _:
            raise TypeError(f"{type(event).__name__} belongs to no tree")
