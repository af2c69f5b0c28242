"""Bounds on a group's facts as the configuration writes them, and which facts a role's group has.

A fact is what `Rewarded.facts` records, or `version`, the oldest policy version among the group's
samples. Names that are neither are refused when they are read.
"""

from collections.abc import Mapping, Sequence

import msgspec

FACTS: dict[str, tuple[str, ...]] = {
    "proposer": ("parsed", "structure_spread", "version"),
    "coder": ("render_rate", "structure_spread", "version"),
    "solver": (
        "solvability",
        "easy_consistency",
        "hard_consistency",
        "difficulty",
        "agreement",
        "structure_novelty",
        "version",
    ),
}


class FactBound(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`fact` must lie in [low, high], both ends included; an end that is left out binds nothing."""

    fact: str
    low: float | None = None
    high: float | None = None


def unusable(bounds: Mapping[str, Sequence[FactBound]]) -> str | None:
    """What is wrong with these bounds, a role, and what to do; None if nothing is."""
    for role, listed in bounds.items():
        for i, bound in enumerate(listed):
            place = f"filters.{role}[{i}]"
            known = FACTS[role]
            if bound.fact not in known:
                return (
                    f"{place}: no {bound.fact!r} is recorded of a {role} group; there is "
                    f"{', '.join(known)}"
                )
            if bound.low is None and bound.high is None:
                return f"{place}: a bound on {bound.fact} needs low, high or both"
            if bound.low is not None and bound.high is not None and bound.low > bound.high:
                return (
                    f"{place}: {bound.fact} cannot be at least {bound.low:g} and at most "
                    f"{bound.high:g}"
                )
    return None
