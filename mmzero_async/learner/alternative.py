"""A finished log under other settings: which groups its learner would have had, and when.

Its generations, its own rejections that no setting changes, and the moments of its steps are the
log's; windows, rejections and what is consumed are those of a configuration. Knows no weights.
"""

from collections.abc import Callable

from mmzero_async.config import Config
from mmzero_async.learner.rebuild import NOT_FROM_THE_LOG
from mmzero_async.learner.scoring import Scored
from mmzero_async.learner.window import Window
from mmzero_async.learner.windows import Candidates, Events
from mmzero_async.projections.admission import role_learning
from mmzero_async.projections.lineage import CompleteGroup
from mmzero_async.projections.pipeline import Pipeline
from mmzero_async.projections.schedule import OUT_OF_PHASE
from mmzero_async.schemas.events import GroupRejected, Rewarded, Role, StepCommitted, UnknownEvent
from mmzero_async.schemas.record import Record

AS_IT_WAS = (*NOT_FROM_THE_LOG, OUT_OF_PHASE)  # rejections that are the run's under any settings
REPLACED = UnknownEvent(kind="replaced", body=b"")


class Alternative:
    """Feed every record in offset order to `apply`; `take` is asked in the place of each step."""

    def __init__(
        self, config: Config, events: Events, take: Callable[[StepCommitted], None]
    ) -> None:
        self.config, self.events, self._take = config, events, take
        self.pipeline = Pipeline()
        self.candidates = Candidates(config)
        self._settled: set[tuple[Role, str]] = set()  # groups that the run was done with

    def apply(self, record: Record) -> list[CompleteGroup]:
        """Returns the groups that the event completed."""
        event = record.event()
        match event:
            case StepCommitted():
                self._take(event)
                self.pipeline.schedule.apply(event)
                self._settled.update((event.role, group) for group in event.groups)
                event = REPLACED
            case GroupRejected() if event.reason not in AS_IT_WAS:
                self._settled.add((event.role, event.group))
                event = REPLACED
            case Rewarded():
                event = REPLACED
            case _:
                pass
        return self.pipeline.apply(record.offset, event)[1]

    def reject(self) -> list[GroupRejected]:
        """What the filters refuse of the groups that are ready; they are gone then."""
        rejected = []
        for rejection in self.candidates.refresh(self.pipeline, self.events):
            # When the run's learner saw a group, in its phase or after, its own events say.
            seen = (rejection.role, rejection.group) in self._settled
            if rejection.reason != OUT_OF_PHASE or seen:
                self.pipeline.book.apply(rejection)
                rejected.append(rejection)
        return rejected

    def missing(self, role: Role) -> str:
        """Why there is no window for a step of the role; "" when there is one."""
        ready = len(self.candidates.passed[role])
        wanted = role_learning(self.config.learner, role).groups
        return f"{ready} groups of the {wanted} it needs" if ready < wanted else ""

    def window(self, role: Role) -> tuple[Window, list[Scored]]:
        return self.candidates.window(role, self.events)

    def commit(self, made: StepCommitted) -> None:
        self.pipeline.book.apply(made)
        self.pipeline.policies.apply(made)
