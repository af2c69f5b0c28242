"""`mmzero replay --under`: rewards, groups and windows anew from raw events, under other settings.

Beside what the run committed stands what would have come of the same generations: which rewards are
other ones, term by term; which groups would have been trained on, or rejected and why; and the
window of each step. No weights are needed, none are made, and nothing is written. What other
weights would have generated is nobody's to know: `--train` takes the steps, from the same samples.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from mmzero_async.config import Config
from mmzero_async.learner.alternative import Alternative
from mmzero_async.learner.scoring import Scored, score
from mmzero_async.learner.windows import Events
from mmzero_async.projections.lineage import CompleteGroup
from mmzero_async.schemas.events import ROLES, GroupRejected, Role, StepCommitted
from mmzero_async.schemas.record import Record


@dataclass(slots=True)
class TermTally:
    """One reward term over the samples that have rewards under both settings."""

    samples: int = 0
    changed: int = 0
    own: float = 0.0  # sums
    other: float = 0.0

    def add(self, own: float, other: float) -> None:
        self.samples += 1
        self.changed += own != other
        self.own += own
        self.other += other


@dataclass(slots=True)
class RoleTally:
    """What became of a role's complete groups, and what would have; pairs are (own, other)."""

    complete: int = 0
    compared: int = 0  # groups that pass the filters under both
    rescored: int = 0  # of these, with other rewards
    reordered: int = 0  # of these, with other advantages
    reward: TermTally = field(default_factory=TermTally)
    terms: dict[str, TermTally] = field(default_factory=lambda: defaultdict(TermTally))
    passes: tuple[set[str], set[str]] = field(default_factory=lambda: (set(), set()))
    trained: tuple[set[str], set[str]] = field(default_factory=lambda: (set(), set()))
    rejected: tuple[Counter[str], Counter[str]] = field(
        default_factory=lambda: (Counter(), Counter())
    )


@dataclass(frozen=True, slots=True)
class Step:
    """A committed step and the window that would have stood in its place."""

    role: Role
    step: int
    committed: tuple[str, ...]
    other: tuple[str, ...]
    why_not: str = ""

    @property
    def same(self) -> bool:
        return self.committed == self.other


class Under:
    """Feed every record in offset order to `apply`, then call `finish`; then read the tallies."""

    def __init__(self, own: Config, other: Config, events: Events) -> None:
        self._own, self._other, self._events = own, other, events
        self._alternative = Alternative(other, events, self._step)
        self.roles: dict[Role, RoleTally] = {role: RoleTally() for role in ROLES}
        self.steps: list[Step] = []

    def apply(self, record: Record) -> None:
        event = record.event()
        if isinstance(event, GroupRejected):
            self.roles[event.role].rejected[0][event.reason] += 1
        for group in self._alternative.apply(record):
            self._score(group)

    def finish(self) -> None:
        """The groups behind the last step pass their filters or do not."""
        self._reject()

    def _reject(self) -> None:
        for rejection in self._alternative.reject():
            self.roles[rejection.role].rejected[1][rejection.reason] += 1

    def _score(self, group: CompleteGroup) -> None:
        """A group by itself: what compares a window's groups is added only to what is trained."""
        tally = self.roles[group.role]
        tally.complete += 1
        events = self._events(group)
        own, other = score(group, events, self._own), score(group, events, self._other)
        for passes, verdict in zip(tally.passes, (own, other), strict=True):
            if isinstance(verdict, Scored):
                passes.add(group.id)
        if isinstance(own, Scored) and isinstance(other, Scored):
            self._compare(tally, own, other)

    def _compare(self, tally: RoleTally, own: Scored, other: Scored) -> None:
        tally.compared += 1
        tally.rescored += own.rewards != other.rewards
        tally.reordered += own.advantages != other.advantages
        for a, b in zip(own.rewards, other.rewards, strict=True):
            tally.reward.add(a, b)
        for terms, others in zip(own.terms, other.terms, strict=True):
            for name in dict.fromkeys([*terms, *others]):
                tally.terms[name].add(terms.get(name, 0.0), others.get(name, 0.0))

    def _step(self, committed: StepCommitted) -> None:
        role, tally = committed.role, self.roles[committed.role]
        tally.trained[0].update(committed.groups)
        self._reject()
        why_not = self._alternative.missing(role)
        groups: list[str] = []
        if not why_not:
            groups = [scored.group.id for scored in self._alternative.window(role)[1]]
            self._alternative.commit(self._made(committed, groups))
            tally.trained[1].update(groups)
        step = Step(role, committed.step, tuple(committed.groups), tuple(groups), why_not)
        self.steps.append(step)

    def _made(self, committed: StepCommitted, groups: list[str]) -> StepCommitted:
        policies = self._alternative.pipeline.policies
        return StepCommitted(
            role=committed.role,
            step=policies.step[committed.role] + 1,
            version=policies.version(committed.role) + 1,
            groups=groups,
            offsets=[],
            checkpoint="",
            digest="",
            batch_digest="",
            metrics={},
        )
