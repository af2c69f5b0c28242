"""What a run did, in figures, from its log alone: the same live, at the end and years later."""

import math
from collections import Counter
from dataclasses import dataclass, field

from mmzero_async.projections.flow import TRAINING
from mmzero_async.projections.pipeline import Pipeline
from mmzero_async.projections.rates import Rates
from mmzero_async.schemas.events import (
    ROLES,
    Answered,
    AnyEvent,
    Coded,
    Evaluated,
    Generation,
    Measured,
    Paced,
    Probed,
    Proposed,
    Question,
    Rendered,
    Rewarded,
    Role,
    StageStalled,
    StepCommitted,
    WorkAbandoned,
    WorkerFailed,
    WorkerLeft,
)
from mmzero_async.schemas.record import Record
from mmzero_async.schemas.work import completes


@dataclass(slots=True)
class BusyTime:
    """The length of a union of time intervals, in seconds; fed roughly in order of their ends."""

    intervals: list[tuple[float, float]] = field(default_factory=list)

    def add(self, start: float, end: float) -> None:
        """Merges with the intervals at the tail that it touches."""
        while self.intervals and self.intervals[-1][1] >= start:
            last_start, last_end = self.intervals.pop()
            start, end = min(start, last_start), max(end, last_end)
        self.intervals.append((start, end))

    @property
    def seconds(self) -> float:
        return sum(end - start for start, end in self.intervals)


@dataclass(slots=True)
class Curve:
    """One point a step of one role."""

    steps: list[int] = field(default_factory=list)
    metrics: list[dict[str, float]] = field(default_factory=list)


@dataclass(slots=True)
class Blind:
    """Probes of one kind: questions, answers without the picture, and how many agree with the
    silver answer; `sighted` sums the share that gave it with the picture."""

    questions: int = 0
    answers: int = 0
    agreed: int = 0
    sighted: float = 0.0

    def add(self, event: Probed) -> None:
        self.questions += 1
        self.answers += len(event.outcomes)
        self.agreed += event.agreed
        self.sighted += event.sighted


@dataclass(slots=True)
class Report:
    """Feed every record in offset order to `apply`."""

    pipeline: Pipeline = field(default_factory=Pipeline)
    kinds: Counter[str] = field(default_factory=Counter)
    renders: Counter[str] = field(default_factory=Counter)  # "" is success
    shortcuts: Counter[str] = field(default_factory=Counter)  # pictures, a detector
    blind: dict[tuple[Question, str], Blind] = field(default_factory=dict)  # and what was shown
    parses: Counter[str] = field(default_factory=Counter)  # proposals: "" is success
    tokens: Counter[Role] = field(default_factory=Counter)
    staleness: dict[Role, list[int]] = field(default_factory=lambda: {r: [] for r in ROLES})
    reward: dict[Role, list[float]] = field(default_factory=lambda: {r: [] for r in ROLES})
    curves: dict[Role, Curve] = field(default_factory=lambda: {r: Curve() for r in ROLES})
    evaluations: list[Evaluated] = field(default_factory=list)
    figures: dict[str, dict[str, float]] = field(default_factory=dict)  # newest Measured a source
    peaks: dict[str, float] = field(default_factory=dict)  # largest figure named peak_*
    paced: dict[Role, list[Paced]] = field(default_factory=lambda: {r: [] for r in ROLES})
    failures: Counter[str] = field(default_factory=Counter)
    generating: BusyTime = field(default_factory=BusyTime)
    learning: BusyTime = field(default_factory=BusyTime)
    first_work: float | None = None  # unix seconds
    last_work: float | None = None
    rates: Rates = field(default_factory=Rates)  # by stage, and "tokens"
    newest: float = 0.0  # unix seconds of the last event
    warning: tuple[float, str] | None = None  # the last one, and when
    _versions: dict[tuple[Role, str], int] = field(default_factory=dict)

    def apply(self, record: Record) -> None:
        event, now = record.event(), record.envelope.time_ns / 1e9
        _, complete = self.pipeline.apply(record.offset, event)
        for group in complete:
            self._versions[group.role, group.id] = group.version
        self.kinds[record.kind] += 1
        self._lately(event, now)
        match event:
            case Proposed():
                self.parses.update(outcome.failure for outcome in event.outcomes)
                self._generated(event.generation, now)
            case Coded():
                for outcome in event.outcomes:
                    if not outcome.found:
                        self.renders[outcome.failure] += 1
                self._generated(event.generation, now)
            case Answered():
                self._generated(event.generation, now)
            case Probed():
                self.blind.setdefault((event.question, event.without), Blind()).add(event)
                self._generated(event.generation, now)
            case Rendered():
                self.renders[event.failure] += 1
                self.shortcuts.update(finding.detector for finding in event.findings)
            case Rewarded():
                self.reward[event.role].extend(event.rewards)
            case StepCommitted():
                self._step(event, now)
            case Paced():
                self.paced[event.role].append(event)
            case Evaluated():
                self.evaluations.append(event)
            case Measured():
                self._measured(event)
            case WorkAbandoned():
                self._failed(now, f"abandoned: {event.reason}", f"{event.work} was given up")
            case StageStalled():
                told = f"{event.stage} waits for {event.waits_for}"
                self._failed(now, f"{event.stage} stalled", told)
            case WorkerFailed():
                self._failed(now, f"{event.role} failed", f"{event.worker}: {event.error}")
            case WorkerLeft():
                if event.reason != "goodbye":
                    self._failed(now, f"{event.role} {event.reason}", event.worker)
            case _:
                pass

    def _lately(self, event: AnyEvent, now: float) -> None:
        self.newest = max(self.newest, now)
        if isinstance(event, StepCommitted):
            self.rates.add(TRAINING[event.role], now)
        elif not isinstance(event, WorkAbandoned) and (key := completes(event)) is not None:
            self.rates.add(key.partition("/")[0], now)

    def _failed(self, now: float, what: str, told: str) -> None:
        self.failures[what] += 1
        self.warning = (now, f"{what}: {told}")

    def _generated(self, generation: Generation, now: float) -> None:
        drawn = sum(len(s.token_ids) // 4 for s in generation.samples)
        self.tokens[generation.role] += drawn
        self.rates.add("tokens", now, drawn)
        start = now - generation.seconds
        self.generating.add(start, now)
        self.first_work = start if self.first_work is None else min(self.first_work, start)
        self.last_work = now

    def _step(self, event: StepCommitted, now: float) -> None:
        self.learning.add(now - event.metrics.get("seconds", 0.0), now)
        self.last_work = now
        trained_from = event.version - 1
        for group in event.groups:
            version = self._versions.pop((event.role, group), trained_from)
            self.staleness[event.role].append(trained_from - version)
        curve = self.curves[event.role]
        curve.steps.append(event.step)
        curve.metrics.append(event.metrics)

    def _measured(self, event: Measured) -> None:
        self.figures[event.source] = event.figures
        for name, value in event.figures.items():
            if name.startswith("peak_"):
                self.peaks[name] = max(self.peaks.get(name, 0.0), value)

    # --- derived figures -----------------------------------------------------------------------

    @property
    def wall_seconds(self) -> float:
        if self.first_work is None or self.last_work is None:
            return 0.0
        return self.last_work - self.first_work

    def shortcuts_found(self) -> dict[str, int]:
        """Pictures in which each detector fired, copies of earlier pictures among them."""
        copies = self.pipeline.lineage.copies.found
        return dict(sorted(self.shortcuts.items())) | ({"copy": copies} if copies else {})

    @property
    def render_success(self) -> float:
        total = sum(self.renders.values())
        return self.renders[""] / total if total else math.nan

    def figure_of(self, role: Role, name: str) -> list[float]:
        """A metric of the role's steps, of those that have it."""
        return [metrics[name] for metrics in self.curves[role].metrics if name in metrics]

    def busy_share(self) -> dict[str, float]:
        """Share of the run's time in which at least one generation, or a learner step, ran."""
        wall = self.wall_seconds or math.nan
        return {
            "generator": self.generating.seconds / wall,
            "learner": self.learning.seconds / wall,
        }


def wilson(correct: int, asked: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion (Wilson 1927)."""
    if asked == 0:
        return 0.0, 1.0
    p = correct / asked
    centre = p + z * z / (2 * asked)
    spread = z * math.sqrt(p * (1 - p) / asked + z * z / (4 * asked * asked))
    scale = 1 + z * z / asked
    return (centre - spread) / scale, (centre + spread) / scale


def accuracy(evaluated: Evaluated, *, hard: bool | None = None) -> tuple[int, int]:
    """(correct, asked) over all kinds, or over the hard or the easy ones."""
    chosen = [
        counts
        for kind, counts in evaluated.by_kind.items()
        if hard is None or (kind in evaluated.hard_kinds) == hard
    ]
    return sum(c for c, _ in chosen), sum(n for _, n in chosen)
