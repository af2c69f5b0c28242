"""`mmzero replay --under`: figures and lines of what other settings would have made of a run."""

from collections.abc import Sequence
from typing import Any

from mmzero_async.config import differences
from mmzero_async.log.reader import LogReader
from mmzero_async.ops.what_if import settings

SHOWN_STEPS = 20


def figures(reader: LogReader, overrides: Sequence[str]) -> dict[str, Any]:
    """The whole log walked once. ConfigError for what cannot be otherwise, LearnerError for a log
    that tells no configuration."""
    from mmzero_async.learner.offline import config_of  # seconds of torch, which others need not
    from mmzero_async.learner.settings import other_settings
    from mmzero_async.learner.under import RoleTally, Under
    from mmzero_async.learner.windows import events_from

    own = config_of(reader)
    other = other_settings(own, overrides)
    under = Under(own, other, events_from(reader))
    for record in reader.scan():
        under.apply(record)
    under.finish()

    def role(tally: RoleTally) -> dict[str, Any]:
        trained, rejected, passes = tally.trained, tally.rejected, tally.passes
        reasons = sorted({*rejected[0], *rejected[1]})
        return {
            "complete": tally.complete,
            "passes_filters": [len(passes[0]), len(passes[1])],
            "admitted": sorted(passes[1] - passes[0]),
            "refused": sorted(passes[0] - passes[1]),
            "rewards": {
                "groups_compared": tally.compared,
                "groups_with_other_rewards": tally.rescored,
                "groups_with_other_advantages": tally.reordered,
                **_tally(tally.reward),
                "terms": {name: _tally(tally.terms[name]) for name in tally.terms},
            },
            "trained": [len(trained[0]), len(trained[1])],
            "trained_in_both": len(trained[0] & trained[1]),
            "rejected": {reason: [r[reason] for r in rejected] for reason in reasons},
            "pending": [
                tally.complete - len(t) - r.total() for t, r in zip(trained, rejected, strict=True)
            ],
        }

    return {
        "settings": settings(own, other),
        "roles": {name: role(tally) for name, tally in under.roles.items()},
        "windows": {
            "committed": len(under.steps),
            "same": sum(step.same for step in under.steps),
            "other_groups": sum(bool(s.other) and not s.same for s in under.steps),
            "not_full": sum(bool(step.why_not) for step in under.steps),
        },
        "steps": [
            {
                "role": step.role,
                "step": step.step,
                "in": [g for g in step.other if g not in step.committed],
                "out": [g for g in step.committed if g not in step.other],
                "why_not": step.why_not,
            }
            for step in under.steps
            if not step.same
        ],
        "changed": bool(differences(own, other)),
    }


def _tally(tally: Any) -> dict[str, Any]:
    count = max(1, tally.samples)
    return {
        "samples": tally.samples,
        "changed": tally.changed,
        "mean": [tally.own / count, tally.other / count],
    }


def lines(found: dict[str, Any]) -> list[str]:
    text = [f"{key} = {b!r} instead of {a!r}" for key, (a, b) in found["settings"].items()]
    for role, it in found["roles"].items():
        text += _role_lines(role, it)
    windows = found["windows"]
    text.append(
        f"of {windows['committed']} windows {windows['same']} are the same, "
        f"{windows['other_groups']} would have had other groups, {windows['not_full']} would not "
        "have been full"
    )
    for step in found["steps"][:SHOWN_STEPS]:
        came = f"in {', '.join(step['in'])}; " if step["in"] else ""
        gone = f"out {', '.join(step['out'])}; " if step["out"] else ""
        shown = step["why_not"] or (came + gone).rstrip("; ") or "in another order"
        text.append(f"  {step['role']} step {step['step']}: {shown}")
    if (more := len(found["steps"]) - SHOWN_STEPS) > 0:
        text.append(f"  and {more} more; --json tells all")
    return text


def _role_lines(role: str, it: dict[str, Any]) -> list[str]:
    rewards = it["rewards"]
    own, other = rewards["mean"]
    passes, trained = it["passes_filters"], it["trained"]
    text = [
        f"{role}: {it['complete']} complete groups; {passes[0]} pass the filters, {passes[1]} "
        f"would ({len(it['admitted'])} more, {len(it['refused'])} fewer); trained {trained[0]}, "
        f"would be {trained[1]} ({it['trained_in_both']} both); pending {it['pending'][0]}, "
        f"{it['pending'][1]}",
        f"  {rewards['changed']} of {rewards['samples']} rewards are other ones, mean {own:.4g}, "
        f"would be {other:.4g}; {rewards['groups_with_other_advantages']} of "
        f"{rewards['groups_compared']} groups have other advantages",
    ]
    for name, term in rewards["terms"].items():
        if term["changed"]:
            a, b = term["mean"]
            text.append(f"    {name}: {term['changed']} other, mean {a:.4g}, would be {b:.4g}")
    text += [
        f"  rejected as {reason}: {a}, would be {b}"
        for reason, (a, b) in it["rejected"].items()
        if a != b
    ]
    return text
