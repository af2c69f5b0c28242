"""What follows from findings: a rejection of the solver's group, or terms of a reward, by name.

Nothing at all unless a detector is set to "filter" or "penalty".
"""

from collections.abc import Mapping, Sequence

from mmzero_async.roles.filters import Rejection
from mmzero_async.roles.shortcuts.detect import COPY, DETECTORS, reaction
from mmzero_async.schemas.events import Finding, Rendered
from mmzero_async.shortcut_options import ShortcutConfig


def findings(rendered: Rendered | None, copy_of: str) -> list[Finding]:
    """All that is known of one drawing: the event's own, and the picture that it looks like."""
    found = list(rendered.findings) if rendered is not None else []
    return found + ([Finding(detector=COPY, detail=f"of {copy_of}")] if copy_of else [])


def rejection(found: Sequence[Finding], config: ShortcutConfig) -> Rejection | None:
    """The first finding that is filtered; reason "shortcut:<detector>"."""
    for finding in found:
        if finding.detector in DETECTORS and reaction(config, finding.detector) == "filter":
            return Rejection(f"shortcut:{finding.detector}", finding.detail)
    return None


def penalties(
    samples: Sequence[Sequence[Sequence[Finding]]], weight: float, config: ShortcutConfig
) -> list[dict[str, float]]:
    """Terms of each sample of a group, "shortcut:<detector>": minus weight times the share of the
    sample's drawings that it was found in. `samples[i]` lists the findings of sample i's drawings;
    a coder's sample has one drawing."""
    punished = [name for name in DETECTORS if reaction(config, name) == "penalty"]
    terms = []
    for drawings in samples:
        names = [{finding.detector for finding in found} for found in drawings]
        shares = {p: sum(p in found for found in names) / max(1, len(names)) for p in punished}
        terms.append({f"shortcut:{p}": -weight * share for p, share in shares.items() if share})
    return terms


def with_terms(
    terms: Sequence[Mapping[str, float]], more: Sequence[Mapping[str, float]]
) -> list[dict[str, float]]:
    return [{**one, **other} for one, other in zip(terms, more, strict=True)]
