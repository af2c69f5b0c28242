"""A run at a glance, for a terminal: a report and its configuration in, a table out.

Pure. Figures for programs and the whole summary are in summary.py; what a stage waits for is told
by why.py, which asks the log server.
"""

from collections import Counter
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mmzero_async.config import Config
from mmzero_async.ops.summary import evaluation_figures, median
from mmzero_async.ops.why import span
from mmzero_async.projections.admission import role_learning
from mmzero_async.projections.flow import STAGE_POLICY, TRAINING
from mmzero_async.projections.report import Report
from mmzero_async.schemas.events import ROLES
from mmzero_async.schemas.work import STAGES

_LATELY = 64  # groups whose staleness is looked at
_DONE = {"propose": "proposed", "code": "coded", "render": "rendered", "answer": "answered"}


@dataclass(frozen=True, slots=True)
class Row:
    """One stage, or one role's training."""

    stage: str
    done: int  # results, or steps
    per_minute: float
    waiting: int  # pieces of work that are open, or groups that are ready
    enough: int = 0  # groups of a window; 0: no such bound
    version: int | None = None  # served, or made
    behind: int | None = None  # versions that serving lags behind; groups' median staleness
    reward: float | None = None  # mean of the last step


def rows(report: Report, config: Config) -> list[Row]:
    """Every stage in the order of the flow, then the three roles."""
    pipeline, now = report.pipeline, report.newest
    policies = pipeline.policies
    open_work = Counter(work.stage for work in pipeline.lineage.open.values())
    found = []
    for stage in STAGES:
        role = STAGE_POLICY.get(stage)
        published = policies.published.get(role) if role else None
        found.append(
            Row(
                stage=stage,
                done=report.kinds[_DONE[stage]] + (stage == "answer") * report.kinds["probed"],
                per_minute=report.rates.per_minute(stage, now),
                waiting=open_work[stage],
                version=published.version if published else None,
                behind=policies.version(role) - published.version if role and published else None,
            )
        )
    for role in ROLES:
        lately, curve = report.staleness[role][-_LATELY:], report.curves[role].metrics
        found.append(
            Row(
                stage=TRAINING[role],
                done=policies.step[role],
                per_minute=report.rates.per_minute(TRAINING[role], now),
                waiting=len(pipeline.book.ready[role]),
                enough=role_learning(config.learner, role).groups,
                version=policies.version(role),
                behind=round(median(lately)) if lately else None,
                reward=curve[-1].get("reward_mean") if curve else None,
            )
        )
    return found


def head(report: Report, config: Config, running: float) -> str:
    """`demo, 4.2 of 13 min: 1234 events, 56 pictures`."""
    started, limit = report.pipeline.started, config.run.max_minutes
    of = f" of {limit:g}" if limit else ""
    state = "finished, " if report.pipeline.finished is not None else ""
    return (
        f"{started.run if started else 'run'}: {state}{running / 60:.1f}{of} min, "
        f"{report.pipeline.next_offset} events, {report.renders['']} pictures"
    )


def facts(report: Report, now: float) -> list[tuple[str, str]]:
    """(what to say, its style), a line each. `now`: unix seconds."""
    memory = report.figures.get("supervisor", {}).get("resident_bytes", 0.0)
    rendered = sum(report.renders.values())
    text = [f"{report.rates.per_minute('tokens', report.newest) / 60:.0f} tokens/s"]
    if rendered:
        text.insert(0, f"render success {report.render_success:.1%}")
    if memory:
        text.append(f"memory {memory / 1e9:.1f} GB")
    found = [("; ".join(text), "")]
    if report.evaluations:
        found.append((_heldout(report), ""))
    if report.warning is not None:
        when, told = report.warning
        told = " ".join(told.split())
        found.append((f"last warning, {span(max(0.0, now - when))} ago: {told}", "yellow"))
    return found


def _heldout(report: Report) -> str:
    newest = report.evaluations[-1]
    scores = evaluation_figures(newest)
    told = "; ".join(
        f"{name} {scores[name]['accuracy']:.1%} "
        f"[{scores[name]['interval_95'][0]:.1%}, {scores[name]['interval_95'][1]:.1%}]"
        for name in ("easy", "hard")
        if scores[name]["asked"]
    )
    return f"held-out {newest.moment}, {newest.mode} (solver@{newest.version}): {told}"


def table(report: Report, config: Config, running: float, now: float) -> RenderableType:
    """What a terminal shows."""
    shown = Table(box=None, pad_edge=False, show_edge=False, header_style="dim")
    shown.add_column("stage", no_wrap=True)
    for name in ("done", "per min", "waiting", "policy", "behind", "reward"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows(report, config):
        shown.add_row(
            row.stage,
            str(row.done),
            f"{row.per_minute:.1f}",
            f"{row.waiting} of {row.enough}" if row.enough else str(row.waiting),
            "" if row.version is None else f"v{row.version}",
            "" if row.behind is None else str(row.behind),
            "" if row.reward is None else f"{row.reward:.3f}",
        )
    told = [
        Text(text, style, no_wrap=True, overflow="ellipsis") for text, style in facts(report, now)
    ]
    return Group(Text(head(report, config, running), "bold"), shown, *told)


def plain(report: Report, running: float) -> str:
    """One line, where there is no terminal."""
    steps = " ".join(f"{role} {report.pipeline.policies.step[role]}" for role in ROLES)
    return (
        f"{running / 60:5.1f} min  steps: {steps}  events {report.pipeline.next_offset}  "
        f"pictures {report.renders['']}"
    )
