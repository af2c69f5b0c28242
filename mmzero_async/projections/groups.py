"""Complete groups until they are consumed: ready, then trained once or rejected with a reason."""

from collections import Counter, deque
from dataclasses import dataclass, field

from mmzero_async.projections.lineage import CompleteGroup
from mmzero_async.schemas.events import (
    ROLES,
    AnyEvent,
    GroupRejected,
    PolicyPublished,
    Role,
    StepCommitted,
)

REMEMBERED_STEPS = 32


@dataclass(slots=True)
class GroupBook:
    """Ready groups a role in order of completion, and what became of the others."""

    ready: dict[Role, dict[str, CompleteGroup]] = field(
        default_factory=lambda: {role: {} for role in ROLES}
    )
    trained: Counter[Role] = field(default_factory=Counter)
    rejected: Counter[tuple[Role, str]] = field(default_factory=Counter)
    # The prompts that the newest proposer steps were trained on, oldest step first.
    remembered: deque[list[CompleteGroup]] = field(
        default_factory=lambda: deque(maxlen=REMEMBERED_STEPS)
    )

    def add(self, groups: list[CompleteGroup]) -> None:
        for group in groups:
            self.ready[group.role][group.id] = group

    def apply(self, event: AnyEvent) -> None:
        match event:
            case StepCommitted():
                gone = [self.ready[event.role].pop(group, None) for group in event.groups]
                if event.role == "proposer":
                    self.remembered.append([group for group in gone if group is not None])
                self.trained[event.role] += len(event.groups)
            case GroupRejected():
                self.ready[event.role].pop(event.group, None)
                self.rejected[event.role, event.reason] += 1
            case _:
                pass


@dataclass(slots=True)
class Policies:
    """What is trained and what is served, a role."""

    step: dict[Role, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 0))
    committed: dict[Role, StepCommitted] = field(default_factory=dict)
    published: dict[Role, PolicyPublished] = field(default_factory=dict)

    def apply(self, event: AnyEvent) -> None:
        match event:
            case StepCommitted():
                self.step[event.role] = event.step
                self.committed[event.role] = event
            case PolicyPublished():
                self.published[event.role] = event
            case _:
                pass

    def version(self, role: Role) -> int:
        """The newest version that a step made; 0 before the first."""
        committed = self.committed.get(role)
        return committed.version if committed else 0
