"""Whose turn it is: a function of how many steps each role has committed, and of nothing else.

Concurrently every trained role steps whenever its window is full. In sequence, as in the paper
(MM-Zero, arXiv 2603.09206), one role steps at a time; the others serve as they are. A restarted
process that reads the log is in the same phase.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mmzero_async.projections.settings import Settings
from mmzero_async.schedule_options import Turns, turns_of
from mmzero_async.schemas.events import ROLES, AnyEvent, Role, StepCommitted

OUT_OF_PHASE = "phase"  # reason of the rejection of a group whose role has not its turn


@dataclass(frozen=True, slots=True)
class Phase:
    """One role's turn within one iteration."""

    iteration: int  # 1, 2, ...
    role: Role
    done: int  # steps of this turn that are committed
    steps: int  # steps of this turn


def phase_of(
    turns: tuple[tuple[Role, int], ...], iterations: int, steps: Mapping[Role, int]
) -> Phase | None:
    """The first turn that is not full, in order of iterations; None when all are.

    `iterations` 0: there is always one more.
    """
    if not turns:
        return None
    role, length = min(turns, key=lambda turn: steps[turn[0]] // turn[1])  # first of equals
    iteration, done = divmod(steps[role], length)
    if iterations and iteration >= iterations:
        return None
    return Phase(iteration + 1, role, done, length)


@dataclass(slots=True)
class Schedule:
    """`configure` with the run's settings and `apply` every event; then ask."""

    turns: Turns = field(default_factory=Turns)
    order: tuple[tuple[Role, int], ...] = ()  # turns of an iteration; none: concurrent
    steps: dict[Role, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 0))

    def configure(self, settings: Settings) -> None:
        self.turns = settings.schedule
        if self.turns.mode == "sequential":
            trained = {role: settings.learner.trains(role) for role in ROLES}
            self.order = turns_of(self.turns, trained)

    def apply(self, event: AnyEvent) -> None:
        if isinstance(event, StepCommitted):
            self.steps[event.role] += 1

    @property
    def phase(self) -> Phase | None:
        """None where roles are trained concurrently, and when the last turn is over."""
        return phase_of(self.order, self.turns.iterations, self.steps)

    @property
    def over(self) -> bool:
        """Whether nobody is to be trained any more."""
        wanted = {role: self.turns.until.of(role) for role in ROLES}
        reached = all(self.steps[role] >= steps for role, steps in wanted.items())
        if any(wanted.values()) and reached:
            return True
        return bool(self.order) and self.phase is None

    def trains(self, role: Role) -> bool:
        """Whether groups of the role may be trained on now."""
        if self.over:
            return False
        phase = self.phase
        return phase is None or phase.role == role

    @property
    def whose_turn(self) -> str:
        """For people, where not everybody is trained."""
        phase = self.phase
        if phase is None or self.over:
            return "the schedule is over"
        return f"iteration {phase.iteration} trains the {phase.role}"

    def left(self, role: Role) -> int | None:
        """Steps that the role's turn still asks for; None: no number is set."""
        phase = self.phase
        return phase.steps - phase.done if phase is not None and phase.role == role else None
