"""When a run's solver versions came, and what generated while steps ran: read off its log alone.

Seconds count from when every role's version 0 is published, which is when generation begins, by the
log server's clock.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from mmzero_async.log.reader import LogReader
from mmzero_async.schemas.events import (
    Answered,
    Coded,
    Generation,
    GroupRejected,
    PolicyPublished,
    Probed,
    Proposed,
    RunFinished,
    StepCommitted,
)
from mmzero_async.schemas.record import Record

Span = tuple[float, float]  # unix seconds


@dataclass(frozen=True, slots=True)
class Rates:
    """Generated tokens a second, while a step ran and while none did; 0 where there was no such
    time. A request's tokens are spread evenly over the time that it took."""

    beside_a_step: float
    between_steps: float


@dataclass(slots=True)
class Clock:
    """`apply` every record of a run whose solver alone is trained."""

    begun: float = 0.0  # unix seconds
    steps: list[Span] = field(default_factory=list)  # the first makes version 1
    metrics: list[dict[str, float]] = field(default_factory=list)  # of each step
    checkpoints: list[str] = field(default_factory=list)  # of each version, 0 first
    rejected: Counter[str] = field(default_factory=Counter)  # solver's groups, a reason
    finished: bool = False
    _drawn: list[tuple[float, float, int]] = field(default_factory=list)  # from, to, tokens

    @classmethod
    def of(cls, run: Path) -> "Clock":
        """LogError for a folder without a log."""
        clock = cls()
        reader = LogReader.open(run / "log")
        try:
            for record in reader.scan():
                clock.apply(record)
        finally:
            reader.close()
        return clock

    def apply(self, record: Record) -> None:
        event, now = record.event(), record.envelope.time_ns / 1e9
        match event:
            case PolicyPublished(version=0):
                self.begun = now
                if event.role == "solver":
                    self.checkpoints = [event.checkpoint]
            case StepCommitted(role="solver"):
                self.steps.append((now - event.metrics["seconds"], now))
                self.metrics.append(event.metrics)
                self.checkpoints.append(event.checkpoint)
            case GroupRejected(role="solver"):
                self.rejected[event.reason] += 1
            case Proposed() | Coded() | Answered() | Probed():
                it = event.generation
                self._drawn.append((now - it.seconds, now, tokens_of(it)))
            case RunFinished():
                self.finished = True
            case _:
                pass

    def seconds(self, version: int) -> float:
        """Until this solver version was committed."""
        return self.steps[version - 1][1] - self.begun if version else 0.0

    @property
    def tokens(self) -> int:
        """Generated until the last step."""
        return sum(tokens for _, end, tokens in self._drawn if end <= self.steps[-1][1])

    @property
    def stepping(self) -> float:
        """Share of the time until the last step in which a step ran."""
        return sum(end - start for start, end in self.steps) / self.seconds(len(self.steps))

    def mean(self, metric: str) -> float:
        """Of the steps."""
        return sum(metrics[metric] for metrics in self.metrics) / len(self.metrics)

    def rates(self) -> Rates:
        """From the beginning until the last step."""
        last = self.steps[-1][1]
        beside = everywhere = 0.0
        for start, end, tokens in self._drawn:
            width = max(end - start, 1e-9)
            beside += tokens * sum(_shared((start, end), step) for step in self.steps) / width
            everywhere += tokens * _shared((start, end), (self.begun, last)) / width
        ran = sum(end - start for start, end in self.steps)
        idle = last - self.begun - ran
        return Rates(
            beside / ran if ran > 0 else 0.0, (everywhere - beside) / idle if idle > 0 else 0.0
        )


def tokens_of(generation: Generation) -> int:
    return sum(len(sample.token_ids) // 4 for sample in generation.samples)  # int32


def _shared(one: Span, other: Span) -> float:
    """Seconds that two spans have in common."""
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
