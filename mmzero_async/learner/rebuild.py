"""Rewards and windows again from raw events, held against what the learner committed.

A window is a pure function of the log: at every committed step the oldest groups that pass the
filters are chosen and scored anew. Knows no weights: it needs the log alone and changes nothing.
"""

from dataclasses import dataclass, field

from mmzero_async.config import Config, from_json
from mmzero_async.learner.scoring import Scored
from mmzero_async.learner.window import Window
from mmzero_async.learner.windows import Candidates, Events
from mmzero_async.projections.lineage import CompleteGroup
from mmzero_async.projections.pipeline import Pipeline
from mmzero_async.roles.filters import Rejection
from mmzero_async.schemas.events import (
    AnyEvent,
    GroupRejected,
    Paced,
    Rewarded,
    Role,
    RunStarted,
    StepCommitted,
)
from mmzero_async.schemas.record import Record

MAX_DIFFERENCES = 100
NOT_FROM_THE_LOG = ("untrainable",)  # decided by the model's own arithmetic


@dataclass(slots=True)
class Rebuild:
    """Feed every record in offset order to `apply`; then read the counts and `differences`."""

    events: Events
    pipeline: Pipeline = field(default_factory=Pipeline)
    windows: int = 0
    rewards: int = 0
    rejections: int = 0
    differences: list[str] = field(default_factory=list)
    grader: str = ""  # what the run compared answers by; another than ours may explain differences
    _candidates: Candidates = field(default_factory=lambda: Candidates(Config()))
    _called_for: Paced | None = None
    _rewarded: dict[tuple[Role, str], Rewarded] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        """The run's own, from its first event."""
        return self._candidates.config

    def window(self, role: Role) -> tuple[Window, list[Scored]]:
        """What the role's next step would be trained on, as the log stands."""
        self._candidates.refresh(self.pipeline, self.events)
        return self._candidates.window(role, self.events)

    def apply(self, record: Record) -> list[CompleteGroup]:
        """Returns the groups that the event completed."""
        event = record.event()
        self._check_pace(record.offset, event)
        match event:
            case RunStarted():
                self._candidates = Candidates(from_json(event.config))
                self.grader = event.grader
            case Rewarded():
                self._rewarded[event.role, event.group] = event
            case StepCommitted():
                self._check_step(record.offset, event)
            case GroupRejected():
                self._check_rejection(record.offset, event)
            case _:
                pass
        return self.pipeline.apply(record.offset, event)[1]

    def _check_pace(self, offset: int, event: AnyEvent) -> None:
        """A step's decision on the pace stands right behind it, and no other does."""
        called_for, self._called_for = self._called_for, None
        said = event if isinstance(event, Paced) else None
        if said != called_for:
            self._differs(f"offset {offset}: the pace is {said} in the log, {called_for} rebuilt")

    def _check_step(self, offset: int, step: StepCommitted) -> None:
        self._candidates.refresh(self.pipeline, self.events)
        _, chosen = self._candidates.window(step.role, self.events)
        self.windows += 1
        self._called_for = self.pipeline.pace.decide(step, self.config.admission)
        where = f"offset {offset}: {step.role} step {step.step}"
        groups = [scored.group.id for scored in chosen]
        if groups != step.groups:
            self._differs(f"{where} trained on {step.groups}, the log gives {groups}")
            return
        for scored in chosen:
            logged = self._rewarded.pop((step.role, scored.group.id), None)
            if logged is None:
                self._differs(f"{where} has no rewards for {scored.group.id}")
            elif (logged.terms, logged.rewards, logged.advantages) != (
                scored.terms,
                scored.rewards,
                scored.advantages,
            ):
                self._differs(
                    f"{where}, group {scored.group.id}: rewards {logged.rewards} in the log, "
                    f"{scored.rewards} rebuilt"
                )
            self.rewards += len(scored.rewards)

    def _check_rejection(self, offset: int, event: GroupRejected) -> None:
        self.rejections += 1
        group = self.pipeline.book.ready[event.role].get(event.group)
        if group is None or event.reason in NOT_FROM_THE_LOG:
            return  # a group that was never ready is the audit's finding
        verdict = self._candidates.judge(group, self.pipeline, self.events)
        reason = verdict.reason if isinstance(verdict, Rejection) else "none"
        if reason != event.reason:
            self._differs(
                f"offset {offset}: {event.role} group {event.group} was rejected as "
                f"{event.reason}, the log gives {reason}"
            )

    def _differs(self, text: str) -> None:
        if len(self.differences) < MAX_DIFFERENCES:
            self.differences.append(text)
