"""`mmzero replay`: the whole log again, from its first event, with what it proves.

Each question walks the log once in bounded memory; nothing is written and no process need run.
"""

from pathlib import Path
from typing import Any

from mmzero_async.learner.rebuild import Rebuild
from mmzero_async.learner.windows import events_from
from mmzero_async.log.reader import LogReader
from mmzero_async.ops.what_if import base_of
from mmzero_async.projections.audit import Audit
from mmzero_async.roles.grading import GRADER
from mmzero_async.schemas.events import ROLES, Role


def audit(reader: LogReader) -> Audit:
    found = Audit()
    for record in reader.scan():
        found.apply(record)
    return found


def audit_figures(found: Audit) -> dict[str, Any]:
    return {
        "events": found.events,
        "clean": found.clean,
        "complete": dict(found.complete),
        "trained": dict(found.trained),
        "rejected": {f"{role} {reason}": n for (role, reason), n in found.rejected.items()},
        "pending": found.pending,
        "problems": found.problems,
    }


def audit_lines(found: Audit) -> list[str]:
    lines = []
    for role in ROLES:
        rejected = sum(n for (r, _), n in found.rejected.items() if r == role)
        lines.append(
            f"audit {role:9} {found.complete[role]} complete = {found.trained[role]} trained once "
            f"+ {rejected} rejected + {found.pending[role]} pending"
        )
    lines += [f"  {problem}" for problem in found.problems]
    lines.append("audit: clean" if found.clean else f"audit: {len(found.problems)} problems")
    return lines


def rebuild_figures(reader: LogReader) -> dict[str, Any]:
    """Rewards and windows made anew and compared; `differences` is empty where all agree."""
    rebuild = Rebuild(events_from(reader))
    for record in reader.scan():
        rebuild.apply(record)
    return {
        "windows": rebuild.windows,
        "rewards": rebuild.rewards,
        "rejections": rebuild.rejections,
        "differences": rebuild.differences,
        "grader": rebuild.grader,
        "graded_now": GRADER,
    }


def rerun_figures(folder: Path, reader: LogReader, role: Role, step: int) -> list[dict[str, Any]]:
    """One committed step taken again, each figure beside the committed one."""
    from mmzero_async.learner.rerun import rerun  # seconds of torch, which others need not

    return [
        {"figure": c.name, "committed": c.committed, "again": c.again, "equal": c.equal}
        for c in rerun(folder, base_of(folder), reader, role, step)
    ]


def rerun_lines(figures: list[dict[str, Any]]) -> list[str]:
    return [
        f"{'same' if f['equal'] else 'OTHER':5} {f['figure']:20} {f['committed']}"
        + ("" if f["equal"] else f" committed, {f['again']} again")
        for f in figures
    ]


def rebuild_lines(figures: dict[str, Any]) -> list[str]:
    differences: list[str] = figures["differences"]
    then, now = figures["grader"] or "a grader before version 3", figures["graded_now"]
    graded = f"  answers were compared by {then}, now by {now}: that alone may make a difference"
    return [
        f"rebuilt from raw events: {figures['windows']} windows, {figures['rewards']} rewards, "
        f"{figures['rejections']} rejections; {len(differences) or 'none'} differ from what "
        "was committed",
        *([graded] if then != now and differences else []),
        *(f"  {difference}" for difference in differences),
    ]
