"""How long everything takes and how often it succeeds, as a real run's log tells it."""

import random
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from mmzero_async.schemas.events import (
    ROLES,
    Answered,
    Coded,
    Generation,
    GroupRejected,
    PolicyPublished,
    Proposed,
    Rendered,
    Role,
    StepCommitted,
)
from mmzero_async.schemas.record import Record
from mmzero_async.schemas.work import STAGES, Stage

Share = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0)]
STAGE_EVENTS = (Proposed, Coded, Rendered, Answered)
KEPT = 256  # quantiles of each distribution


class StageTimes(msgspec.Struct, frozen=True, kw_only=True):
    """One stage's service time, as quantiles, and the share of its outcomes that go on."""

    seconds: Annotated[list[Seconds], Meta(min_length=1)]  # ascending; drawn from evenly
    success: Share
    samples: Annotated[int, Meta(ge=1)] = 1  # outcomes a piece of work
    tokens: Annotated[int, Meta(ge=0)] = 0  # mean of a sample, which sizes the event

    def draw(self, rng: random.Random) -> float:
        return rng.choice(self.seconds)

    @property
    def mean(self) -> float:
        return sum(self.seconds) / len(self.seconds)


class StepTimes(msgspec.Struct, frozen=True, kw_only=True):
    """One role's learner: seconds of a step, of publishing it, and the share of groups trained."""

    seconds: Annotated[list[Seconds], Meta(min_length=1)]
    publish: Annotated[list[Seconds], Meta(min_length=1)]
    accepted: Share


class Times(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of a run. Stages: propose, code, render, answer; steps by role."""

    source: str
    stages: dict[Stage, StageTimes]
    steps: dict[Role, StepTimes]
    judging: Seconds = 0.0  # of the learner, a group: read, scored, taken or rejected


def read(path: Path) -> Times:
    """ValueError for a file that holds no times, or not of every stage and role."""
    try:
        times = msgspec.json.decode(path.read_bytes(), type=Times)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path}: {error}") from error
    missing = [*(set(STAGES) - set(times.stages)), *(set(ROLES) - set(times.steps))]
    if missing:
        raise ValueError(f"{path} says nothing of {', '.join(sorted(missing))}")
    return times


def observed(
    records: Iterable[Record], source: str, since_ns: int = 0, until_ns: int = sys.maxsize
) -> Times:
    """From a run's log; the stages' times from a part of it alone, those of the rare steps from all
    of it. ValueError when a stage or a role has done nothing there.

    A piece of work is as long as its holder had it in hand: the engine's or renderer's time and
    the worker's own are not told apart by the log, so the engine's stands for both.
    """
    seconds: dict[Stage, list[float]] = defaultdict(list)
    outcomes: dict[Stage, list[bool]] = defaultdict(list)
    sizes: dict[Stage, list[int]] = defaultdict(list)
    tokens: dict[Stage, list[int]] = defaultdict(list)
    steps: dict[Role, list[float]] = defaultdict(list)
    publish: dict[Role, list[float]] = defaultdict(list)
    learner = _Learner()
    trained, rejected = dict.fromkeys(ROLES, 0), dict.fromkeys(ROLES, 0)

    def generated(stage: Stage, generation: Generation) -> None:
        seconds[stage].append(generation.seconds)
        sizes[stage].append(len(generation.samples))
        tokens[stage] += [len(sample.token_ids) // 4 for sample in generation.samples]

    for record in records:
        event = record.event()
        if isinstance(event, STAGE_EVENTS) and not (
            since_ns <= record.envelope.time_ns <= until_ns
        ):
            continue
        match event:
            case Proposed():
                generated("propose", event.generation)
                outcomes["propose"] += [o.proposal is not None for o in event.outcomes]
            case Coded():
                generated("code", event.generation)
                outcomes["code"] += [o.svg is not None for o in event.outcomes]
            case Rendered():
                seconds["render"].append(event.seconds)
                outcomes["render"].append(event.picture is not None)
            case Answered():
                generated("answer", event.generation)
                outcomes["answer"].append(True)
            case StepCommitted():
                learner.step(record.envelope.time_ns, event)
                steps[event.role].append(event.metrics.get("seconds", 0.0))
                trained[event.role] += len(event.groups)
            case GroupRejected():
                learner.groups += 1
                rejected[event.role] += 1
            case PolicyPublished():
                learner.busy += event.seconds
                publish[event.role].append(event.seconds)
            case _:
                pass
    idle = [s for s in STAGES if not seconds[s]] + [r for r in ROLES if not steps[r]]
    if idle:
        raise ValueError(
            f"{source}: nothing was done there by {', '.join(idle)}; give a run of every role's "
            "steps"
        )
    return Times(
        source=source,
        stages={
            stage: StageTimes(
                seconds=quantiles(seconds[stage]),
                success=sum(outcomes[stage]) / len(outcomes[stage]),
                samples=round(sum(sizes[stage]) / len(sizes[stage])) if sizes[stage] else 1,
                tokens=round(sum(tokens[stage]) / len(tokens[stage])) if tokens[stage] else 0,
            )
            for stage in STAGES
        },
        steps={
            role: StepTimes(
                seconds=quantiles(steps[role]),
                publish=quantiles(publish[role]),
                accepted=trained[role] / (trained[role] + rejected[role]),
            )
            for role in ROLES
        },
        judging=learner.judging,
    )


@dataclass(slots=True)
class _Learner:
    """Its time from step to step: what is neither a step, publishing nor waiting, it judged in.

    Until a step ends it is not known that the time is to be counted.
    """

    busy: float = 0.0  # seconds since the last step, told of so far
    groups: int = 0  # judged since the last step
    last_ns: int = 0
    seconds: float = 0.0  # counted
    judged: int = 0

    def step(self, now_ns: int, event: StepCommitted) -> None:
        told = self.busy + sum(event.metrics.get(k, 0.0) for k in ("seconds", "waited_seconds"))
        if self.last_ns:
            self.seconds += max(0.0, (now_ns - self.last_ns) / 1e9 - told)
            self.judged += self.groups + len(event.groups)
        self.busy, self.groups, self.last_ns = 0.0, 0, now_ns

    @property
    def judging(self) -> float:
        return self.seconds / self.judged if self.judged else 0.0


def quantiles(values: list[float], kept: int = KEPT) -> list[float]:
    """At most so many, evenly spaced in rank, to six digits."""
    ordered = sorted(values)
    n = min(kept, len(ordered))
    return [float(f"{ordered[int((i + 0.5) * len(ordered) / n)]:.6g}") for i in range(n)]
