"""`mmzero explain`: what changed in a role's training around a step, from the log alone.

The reward is a sum of terms, so its change is the sum of theirs; the other figures are put in the
order of how far they moved against their own spread; and what happened meanwhile stands below.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmzero_async.config import ConfigError
from mmzero_async.log.interface import View
from mmzero_async.log.where import Where
from mmzero_async.ops.eval_table import table
from mmzero_async.schemas.events import (
    AnyEvent,
    Evaluated,
    GroupRejected,
    Paced,
    Rewarded,
    Role,
    StageMoved,
    StageStalled,
    StepCommitted,
    WorkAbandoned,
    WorkerFailed,
    WorkerJoined,
    WorkerLeft,
)

KINDS = (
    *("rewarded", "group_rejected", "step_committed", "paced", "evaluated"),
    *("stage_stalled", "stage_moved", "work_abandoned"),
    *("worker_joined", "worker_left", "worker_failed"),
)
_SPEED = frozenset({"seconds", "waited_seconds"})  # of the machine, not of what is learned
_MOST = 12  # figures and happenings that people are shown


@dataclass(slots=True)
class Step:
    """One committed step of the role."""

    number: int
    offset: int
    figures: dict[str, float]
    terms: dict[str, float]  # mean over all samples of the step


@dataclass(frozen=True, slots=True)
class Moved:
    """Means of one figure over the steps before and after."""

    name: str
    before: float
    after: float
    spread: float  # deviation within the two sides; 0: none

    @property
    def shift(self) -> float:
        """In units of the spread; infinite where a constant became another one."""
        change = self.after - self.before
        if self.spread:
            return change / self.spread
        return math.copysign(math.inf, change) if change else 0.0


@dataclass(frozen=True, slots=True)
class Change:
    role: Role
    step: int
    before: tuple[int, int]  # first and last step of each side
    after: tuple[int, int]
    reward: Moved
    terms: Sequence[Moved]  # their changes add up to the reward's; the largest first
    figures: Sequence[Moved]  # the farthest moved first
    happened: Sequence[tuple[int, str]]  # (the role's step that was next, what), in the log's order


@dataclass(slots=True)
class _Story:
    role: Role
    steps: list[Step] = field(default_factory=list)
    happened: list[tuple[int, str]] = field(default_factory=list)
    _rewarded: list[Rewarded] = field(default_factory=list)
    _rejected: dict[str, int] = field(default_factory=dict)

    def apply(self, offset: int, event: AnyEvent) -> None:
        match event:
            case Rewarded() if event.role == self.role:
                self._rewarded.append(event)
            case GroupRejected() if event.role == self.role:
                self._rejected[event.reason] = self._rejected.get(event.reason, 0) + 1
            case StepCommitted() if event.role == self.role:
                self.steps.append(self._step(offset, event))
                self._rewarded, self._rejected = [], {}
            case _ if told := _told(event, self.role):
                self.happened.append((len(self.steps) + 1, told))
            case _:
                pass

    def _step(self, offset: int, event: StepCommitted) -> Step:
        samples = sum(len(it.rewards) for it in self._rewarded)
        terms: dict[str, float] = {}
        facts: dict[str, list[float]] = {}
        for it in self._rewarded:
            for of_sample in it.terms:
                for name, value in of_sample.items():
                    terms[name] = terms.get(name, 0.0) + value / samples
            for name, value in it.facts.items():
                facts.setdefault(f"fact {name}", []).append(value)
        figures = {n: v for n, v in event.metrics.items() if n not in _SPEED}
        figures |= {name: statistics.fmean(values) for name, values in facts.items()}
        figures |= {f"rejected {reason}": float(n) for reason, n in self._rejected.items()}
        return Step(event.step, offset, figures, terms)


def _told(event: AnyEvent, role: Role) -> str:
    """What may have to do with it; empty: nothing."""
    match event:
        case Paced() if event.role == role:
            return f"eta {event.before} -> {event.eta}: {event.reason} {event.figure:.3g}"
        case Evaluated() if event.role == role:
            return f"held-out score {event.moment}, {event.mode}, of version {event.version}"
        case StageStalled():
            return f"{event.stage} stalled for {event.seconds:.0f} s: waits for {event.waits_for}"
        case StageMoved():
            return f"{event.stage} goes on after {event.seconds:.0f} s"
        case WorkAbandoned():
            return f"{event.work} given up: {event.reason}"
        case WorkerJoined():
            return f"{event.worker} joined on {event.host}"
        case WorkerLeft() if event.reason != "goodbye":
            return f"{event.worker} {event.reason}"
        case WorkerFailed():
            return f"{event.worker} failed: {' '.join(event.error.split())[:120]}"
        case _:
            return ""


def explain(reader: View, role: Role, step: int, span: int) -> Change:
    """The `span` steps up to `step` against the `span` after it. ConfigError where one side has
    none."""
    story = _Story(role)
    for record in reader.scan(where=Where(kinds=KINDS)):
        story.apply(record.offset, record.event())
    before = [s for s in story.steps if step - span < s.number <= step]
    after = [s for s in story.steps if step < s.number <= step + span]
    if not before or not after:
        last = len(story.steps)
        raise ConfigError(
            f"step {step}: the log has {last} steps of the {role}, and both sides of it must have "
            f"one: choose --step 1 to {max(1, last - 1)}"
        )
    terms = [
        _moved(
            name, [s.terms.get(name, 0.0) for s in before], [s.terms.get(name, 0.0) for s in after]
        )
        for name in sorted({name for s in (*before, *after) for name in s.terms})
    ]
    rewards = [[sum(s.terms.values()) for s in side] for side in (before, after)]
    first, final = before[0].number, after[-1].number
    return Change(
        role,
        step,
        (first, before[-1].number),
        (after[0].number, final),
        _moved("reward", *rewards),
        sorted(terms, key=lambda it: -abs(it.after - it.before)),
        sorted(_figures(before, after), key=lambda it: -abs(it.shift)),
        [(at, told) for at, told in story.happened if first < at <= final],
    )


def _figures(before: list[Step], after: list[Step]) -> Iterator[Moved]:
    """Of figures that both sides know; what was not rejected at all is 0 times rejected."""
    names = {name for s in (*before, *after) for name in s.figures}
    for name in sorted(names):
        zero = name.startswith("rejected ")
        sides = [
            [s.figures.get(name, 0.0) for s in side if zero or name in s.figures]
            for side in (before, after)
        ]
        if all(sides):
            yield _moved(name, *sides)


def _moved(name: str, before: list[float], after: list[float]) -> Moved:
    a, b = statistics.fmean(before), statistics.fmean(after)
    squares = sum((x - a) ** 2 for x in before) + sum((x - b) ** 2 for x in after)
    freedom = len(before) + len(after) - 2
    return Moved(name, a, b, math.sqrt(squares / freedom) if freedom else 0.0)


def figures(it: Change) -> dict[str, Any]:
    def one(moved: Moved) -> dict[str, Any]:
        shift = moved.shift if math.isfinite(moved.shift) else None
        return {
            "name": moved.name,
            "before": moved.before,
            "after": moved.after,
            "shift": shift,
        }

    return {
        "role": it.role,
        "step": it.step,
        "before": list(it.before),
        "after": list(it.after),
        "reward": one(it.reward),
        "terms": [one(moved) for moved in it.terms],
        "figures": [one(moved) for moved in it.figures],
        "happened": [{"step": at, "what": told} for at, told in it.happened],
    }


def lines(it: Change) -> Iterator[str]:
    sides = f"steps {it.before[0]}-{it.before[1]} and {it.after[0]}-{it.after[1]}"
    change = it.reward.after - it.reward.before
    yield (
        f"{it.role}, {sides}: mean reward {it.reward.before:.3f} -> {it.reward.after:.3f} "
        f"({change:+.3f}), of which"
    )
    body = [
        [f"  {m.name}", f"{m.before:.3f}", f"{m.after:.3f}", f"{m.after - m.before:+.3f}"]
        for m in it.terms
    ]
    yield from table(["  term", "before", "after", "change"], body)
    yield "what else moved, the farthest against its own spread first:"
    body = [
        [f"  {m.name}", f"{m.before:.4g}", f"{m.after:.4g}", f"{m.shift:+.1f}"]
        for m in it.figures[:_MOST]
        if m.shift
    ]
    yield from table(["  figure", "before", "after", "shift"], body)
    yield "meanwhile:" if it.happened else "nothing else happened meanwhile"
    for at, told in it.happened[:_MOST]:
        yield f"  before step {at}: {told}"
    if len(it.happened) > _MOST:
        yield f"  and {len(it.happened) - _MOST} more; --json has them all"
