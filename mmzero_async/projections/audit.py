"""Is every promise kept? Checked from the log alone, event by event.

Each complete group must be trained once, rejected once with a reason, or still be pending; no
offset may be missing, no (producer, epoch, sequence) twice, no step out of order.
"""

from collections import Counter
from dataclasses import dataclass, field

from mmzero_async.projections.pipeline import Pipeline
from mmzero_async.schemas.events import ROLES, GroupRejected, Role, StepCommitted
from mmzero_async.schemas.record import Record

MAX_PROBLEMS = 100


@dataclass(slots=True)
class Audit:
    """Feed every record in offset order to `apply`; then read `problems` and the counts."""

    pipeline: Pipeline = field(default_factory=Pipeline)
    complete: Counter[Role] = field(default_factory=Counter)
    trained: Counter[Role] = field(default_factory=Counter)
    rejected: Counter[tuple[Role, str]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    events: int = 0
    _seen: dict[Role, set[str]] = field(default_factory=lambda: {role: set() for role in ROLES})
    _fate: dict[tuple[Role, str], str] = field(default_factory=dict)
    _sequences: dict[str, tuple[int, int]] = field(default_factory=dict)

    def apply(self, record: Record) -> None:
        self._check_order(record)
        event = record.event()
        if not self.pipeline.lineage.admits(event):
            self._problem(f"offset {record.offset}: settles work that was settled before")
        _, complete = self.pipeline.apply(record.offset, event)
        for group in complete:
            self.complete[group.role] += 1
            self._seen[group.role].add(group.id)
        match event:
            case StepCommitted():
                self._check_step(record.offset, event)
            case GroupRejected():
                self._settle(record.offset, event.role, event.group, f"rejected ({event.reason})")
                self.rejected[event.role, event.reason] += 1
            case _:
                pass
        self.events += 1

    @property
    def pending(self) -> dict[Role, int]:
        """Complete groups that are neither trained nor rejected yet."""
        return {role: len(self.pipeline.book.ready[role]) for role in ROLES}

    @property
    def clean(self) -> bool:
        return not self.problems

    def _check_order(self, record: Record) -> None:
        if record.offset != self.events:
            self._problem(f"offset {record.offset} follows {self.events - 1}: a hole or a repeat")
        envelope = record.envelope
        now = (envelope.epoch, envelope.sequence)
        last = self._sequences.get(envelope.producer)
        if last is not None and now <= last:
            self._problem(
                f"offset {record.offset}: {envelope.producer} epoch {now[0]} sequence {now[1]} "
                f"comes after epoch {last[0]} sequence {last[1]}"
            )
        self._sequences[envelope.producer] = now

    def _check_step(self, offset: int, event: StepCommitted) -> None:
        for group in event.groups:
            self._settle(offset, event.role, group, f"trained in step {event.step}")
        self.trained[event.role] += len(event.groups)
        expected = self._last_step(event.role) + 1
        if event.step != expected:
            self._problem(f"offset {offset}: {event.role} step {event.step}, expected {expected}")
        self._steps[event.role] = event.step

    def _settle(self, offset: int, role: Role, group: str, fate: str) -> None:
        if group not in self._seen[role]:
            self._problem(f"offset {offset}: {role} group {group} {fate} but never complete")
        earlier = self._fate.get((role, group))
        if earlier is not None:
            self._problem(f"offset {offset}: {role} group {group} {fate}, and before: {earlier}")
        self._fate[role, group] = fate

    _steps: dict[Role, int] = field(default_factory=dict)

    def _last_step(self, role: Role) -> int:
        return self._steps.get(role, 0)

    def _problem(self, text: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(text)
