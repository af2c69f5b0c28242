"""The whole pipeline as one state, fed record by record: lineage, groups, policies, pace, schedule.

The log server asks it for due work, the learner for ready groups, the command line for counts:
three readers, one state machine.
"""

from dataclasses import dataclass, field

from mmzero_async.projections.groups import GroupBook, Policies
from mmzero_async.projections.lineage import CompleteGroup, Lineage
from mmzero_async.projections.pace import Pace
from mmzero_async.projections.schedule import Schedule
from mmzero_async.projections.settings import settings_of
from mmzero_async.schemas.events import AnyEvent, RunFinished, RunStarted
from mmzero_async.schemas.work import Work


@dataclass(slots=True)
class Pipeline:
    lineage: Lineage = field(default_factory=Lineage)
    book: GroupBook = field(default_factory=GroupBook)
    policies: Policies = field(default_factory=Policies)
    pace: Pace = field(default_factory=Pace)
    schedule: Schedule = field(default_factory=Schedule)
    started: RunStarted | None = None
    finished: RunFinished | None = None
    next_offset: int = 0

    def apply(self, offset: int, event: AnyEvent) -> tuple[list[Work], list[CompleteGroup]]:
        """Events in offset order; returns the work that falls due and the groups completed."""
        if offset != self.next_offset:
            raise ValueError(f"expected the event at offset {self.next_offset}, got {offset}")
        self.next_offset = offset + 1
        match event:
            case RunStarted():
                self.started = event
                settings = settings_of(event)
                self.lineage.configure(settings)
                self.schedule.configure(settings)
            case RunFinished():
                self.finished = event
            case _:
                pass
        due, complete = self.lineage.apply(offset, event)
        self.book.add(complete)
        self.book.apply(event)
        self.policies.apply(event)
        self.pace.apply(event)
        self.schedule.apply(event)
        return due, complete
