"""Which complete groups are worth a gradient step: bounds on facts, as data.

A filter names the fact that it looks at, its limits and the reason for a rejection; `check` says
the first that is broken. The limits come from the configuration (MM-Zero, arXiv 2603.09206).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmzero_async.config import FilterConfig
from mmzero_async.filter_options import FactBound
from mmzero_async.schedule_options import Lesson
from mmzero_async.schemas.events import Role, Sample

MIN_SPREAD = 1e-9  # rewards closer than this have no gradient


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a group will never be trained on; the words of a GroupRejected event."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Bound:
    """`fact` must lie in [low, high], both ends included."""

    fact: str
    low: float
    high: float
    reason: str


def proposer_bounds(config: FilterConfig) -> tuple[Bound, ...]:
    return listed(config.proposer)


def coder_bounds(config: FilterConfig) -> tuple[Bound, ...]:
    """Proposals that always or never render teach the coder nothing."""
    named = Bound("render_rate", *config.coder_render_rate, reason="render_rate")
    return (named, *listed(config.coder))


def solver_bounds(config: FilterConfig) -> tuple[Bound, ...]:
    """The picture must be readable, the question neither settled nor noise, and, if asked for, the
    label one that the proposer, who saw no picture, gave as well."""
    return (
        Bound("easy_consistency", config.solver_easy_consistency, 1.0, reason="consistency"),
        Bound("hard_consistency", *config.solver_hard_consistency, reason="consistency"),
        Bound("agreement", config.solver_agreement, 1.0, reason="disagreement"),
        *listed(config.solver),
    )


def listed(bounds: Sequence[FactBound]) -> tuple[Bound, ...]:
    """Bounds as the configuration lists them; the reason is the fact's name."""
    return tuple(
        Bound(
            bound.fact,
            -math.inf if bound.low is None else bound.low,
            math.inf if bound.high is None else bound.high,
            reason=bound.fact,
        )
        for bound in bounds
    )


def curriculum_bounds(lessons: Sequence[Lesson], role: Role, version: int) -> tuple[Bound, ...]:
    """As far as the curriculum has come for groups that this version of the role made. By their own
    version and not by the step that would train on them: so a group's verdict never changes."""
    return tuple(
        Bound(lesson.fact, *lesson.at(version), reason="curriculum")
        for lesson in lessons
        if lesson.role == role
    )


def check(bounds: Sequence[Bound], facts: Mapping[str, float]) -> Rejection | None:
    """The first bound that the facts break; a fact that is missing is "incomplete"."""
    for bound in bounds:
        value = facts.get(bound.fact)
        if value is None:
            return Rejection("incomplete", f"{bound.fact} is unknown")
        if not bound.low <= value <= bound.high:
            where = f"[{bound.low:g}, {bound.high:g}]"
            return Rejection(bound.reason, f"{bound.fact} {value:.4g} outside {where}")
    return None


def zero_variance(rewards: Sequence[float]) -> Rejection | None:
    """A group whose rewards are all alike has no advantage to learn from."""
    if len(rewards) < 2:
        return Rejection("zero_variance", f"{len(rewards)} rewards; a group compares at least 2")
    if max(rewards) - min(rewards) < MIN_SPREAD:
        return Rejection("zero_variance", f"all {len(rewards)} rewards are {rewards[0]:.4g}")
    return None


def truncated(sample: Sample) -> bool:
    """Whether the engine cut it off ("length", "abort") before it came to its own end."""
    return sample.finish_reason != "stop"


def all_truncated(samples: Sequence[Sample]) -> Rejection | None:
    """Where truncated samples are masked, a group of nothing else has no gradient."""
    if all(map(truncated, samples)):
        return Rejection("truncated", f"all {len(samples)} samples were cut off")
    return None
