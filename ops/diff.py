"""`mmzero diff RUN_A RUN_B`: what two runs have in common, and where they part, from their logs.

Runs with one beginning (a copy, a backup that went on, a fork) are told apart from separate ones by
their first record, which holds who wrote it and when.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mmzero_async.log.collection import first_difference
from mmzero_async.log.interface import View
from mmzero_async.log.reader import LogReader
from mmzero_async.ops import scan, summary
from mmzero_async.projections.report import Report
from mmzero_async.schemas.events import ROLES, Role, RunStarted

LAST_STEPS = 5  # whose mean is a curve's end
ABSENT = "absent"  # a key that a run of another version does not have
Pair = list[Any]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two."""

    name: str
    reader: LogReader


def figures(one: Side, other: Side) -> dict[str, Any]:
    """Everything as pairs (one, other); of settings only those that differ."""
    readers = (one.reader, other.reader)
    reports = [_report(reader) for reader in readers]
    found = [summary.figures(r, it.stats()) for r, it in zip(reports, readers, strict=True)]
    return {
        "runs": [one.name, other.name],
        "settings": settings(*(_config(report) for report in reports)),
        "log": parting(one.reader, other.reader),
        "events": {
            kind: [report.kinds[kind] for report in reports]
            for kind in sorted({*reports[0].kinds, *reports[1].kinds})
        },
        "roles": {role: _role(role, reports, found) for role in ROLES},
        "heldout": _heldout(found),
    }


def settings(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Pair]:
    """section.key -> both values, for the keys that differ or that only one has."""
    first, second = dict(_leaves(one)), dict(_leaves(other))
    return {
        key: [first.get(key, ABSENT), second.get(key, ABSENT)]
        for key in sorted({*first, *second})
        if first.get(key, ABSENT) != second.get(key, ABSENT)
    }


def parting(one: View, other: View) -> dict[str, Any]:
    """How the logs are related: "same", "prefix" (one ends where the other goes on), "fork" or
    "separate"; and the first offset at which they differ, with both events there."""
    offset = first_difference(one, other)
    if offset is None:
        return {"related": "same", "offset": None, "events": [None, None]}
    told = [_told(view, offset) for view in (one, other)]
    related = "separate" if not offset else "fork" if all(told) else "prefix"
    return {"related": related, "offset": offset, "events": told}


def _told(view: View, offset: int) -> str | None:
    """The event there in a line; None behind a log's end."""
    if offset >= view.next_offset:
        return None
    return " ".join(scan.line(view.get(offset)).split())


def _report(reader: LogReader) -> Report:
    report = Report()
    for record in reader.scan():
        report.apply(record)
    return report


def _config(report: Report) -> dict[str, Any]:
    """As the log has it; {} for a log that tells none."""
    started: RunStarted | None = report.pipeline.started
    try:
        found = json.loads(started.config) if started else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _role(role: Role, reports: list[Report], found: list[dict[str, Any]]) -> dict[str, Any]:
    sides = [figures["roles"][role] for figures in found]
    reasons = sorted({reason for side in sides for reason in side["rejected_groups"]})
    ends = [_ends(report, role) for report in reports]
    return {
        "steps": [side["steps"] for side in sides],
        "tokens": [side["tokens"] for side in sides],
        "trained_groups": [side["trained_groups"] for side in sides],
        "pending_groups": [side["pending_groups"] for side in sides],
        "staleness_median": [side["staleness_median"] for side in sides],
        "rejected_groups": {
            reason: [side["rejected_groups"].get(reason, 0) for side in sides] for reason in reasons
        },
        "ends": {
            name: [end.get(name) for end in ends] for name in dict.fromkeys([*ends[0], *ends[1]])
        },
    }


def _ends(report: Report, role: Role) -> dict[str, float]:
    """Each curve's mean over the last steps that have it."""
    points = report.curves[role].metrics[-LAST_STEPS:]
    names = dict.fromkeys(name for point in points for name in point)
    values = {name: [point[name] for point in points if name in point] for name in names}
    return {name: sum(found) / len(found) for name, found in values.items()}


def _heldout(found: list[dict[str, Any]]) -> dict[str, Pair]:
    """The newest evaluation of each moment and mode: accuracy on easy and on hard questions."""
    scores: dict[str, Pair] = {}
    for place, figures in enumerate(found):
        for it in figures["heldout"]:
            for difficulty in ("easy", "hard"):
                key = f"{it['moment']} {it['mode']} {difficulty}"
                scores.setdefault(key, [None, None])[place] = it[difficulty]["accuracy"]
    return scores


def lines(found: dict[str, Any]) -> list[str]:
    """A line for what differs."""
    one, other = found["runs"]
    text = [_related(found["log"], one, other)]
    text += [f"{key} = {a!r} | {b!r}" for key, (a, b) in found["settings"].items()]
    if not found["settings"]:
        text.append("the same configuration")
    text.append(f"{'':34} {one[-18:]:>18} {other[-18:]:>18}")
    text += [_row(f"events {kind}", pair) for kind, pair in found["events"].items()]
    for role, it in found["roles"].items():
        for name in ("steps", "tokens", "trained_groups", "pending_groups", "staleness_median"):
            text.append(_row(f"{role} {name.replace('_', ' ')}", it[name]))
        for reason, pair in it["rejected_groups"].items():
            text.append(_row(f"{role} rejected: {reason}", pair))
        text += [_row(f"{role} {name}, end", pair) for name, pair in it["ends"].items()]
    text += [_row(f"held-out {name}", pair) for name, pair in found["heldout"].items()]
    return text


def _related(log: dict[str, Any], one: str, other: str) -> str:
    if log["related"] == "same":
        return f"{one} and {other} are the same log, event by event"
    a, b = log["events"]
    if log["related"] == "separate":
        return f"{one} and {other} are separate runs"
    if log["related"] == "prefix":
        short, on = (one, other) if a is None else (other, one)
        return f"{short} ends at offset {log['offset']}, where {on} goes on: {a or b}"
    return f"{one} and {other} are one log up to offset {log['offset']}: {a} | {b}"


def _row(name: str, pair: Pair) -> str:
    return f"{name:34} {_shown(pair[0]):>18} {_shown(pair[1]):>18}"


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
