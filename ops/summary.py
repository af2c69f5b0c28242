"""A report as lines for people and as figures for programs: the same for a live run and a log."""

from collections import Counter
from typing import Any

from mmzero_async.log.reader import LogStats
from mmzero_async.projections.flow import TRAINING
from mmzero_async.projections.report import Report, accuracy, wilson
from mmzero_async.schemas.events import ROLES, Evaluated, Role
from mmzero_async.schemas.work import STAGES


def figures(report: Report, stats: LogStats | None) -> dict[str, Any]:
    """Every figure of the summary, by name. `stats`: None where the log is on another host."""
    policies, book = report.pipeline.policies, report.pipeline.book
    busy = report.busy_share()
    return {
        "run": report.pipeline.started.run if report.pipeline.started else None,
        "finished": report.pipeline.finished is not None,
        "events": report.pipeline.next_offset,
        "log_mb": round(stats.bytes_used / 1e6, 2) if stats else None,
        "blobs": stats.blobs if stats else None,
        "wall_seconds": round(report.wall_seconds, 1),
        "render_success": round(report.render_success, 4),
        "shortcuts": report.shortcuts_found(),
        "blind": [
            {
                "question": question,
                "without": without,
                "questions": blind.questions,
                "answers": blind.answers,
                "agreement": round(blind.agreed / blind.answers, 4) if blind.answers else None,
                "sighted": round(blind.sighted / blind.questions, 4),
            }
            for (question, without), blind in sorted(report.blind.items())
        ],
        "schedule": schedule_figures(report),
        "peak_memory_gb": round(report.peaks.get("peak_resident_bytes", 0.0) / 1e9, 2),
        "generator_busy": round(busy["generator"], 3),
        "learner_busy": round(busy["learner"], 3),
        "roles": {
            role: {
                "steps": policies.step[role],
                "version": policies.version(role),
                "tokens": report.tokens[role],
                "trained_groups": book.trained[role],
                "rejected_groups": {
                    reason: count
                    for (r, reason), count in sorted(book.rejected.items())
                    if r == role
                },
                "pending_groups": len(book.ready[role]),
                "staleness_median": median(report.staleness[role]),
                "staleness_max": max(report.staleness[role], default=0),
                "off_policy": off_policy(report, role),
            }
            for role in ROLES
        },
        "heldout": [evaluation_figures(event) for event in report.evaluations],
        "per_minute": {
            name: round(report.rates.per_minute(name, report.newest), 2)
            for name in (*STAGES, *TRAINING.values(), "tokens")
        },
        "open_work": dict(Counter(work.stage for work in report.pipeline.lineage.open.values())),
        "failures": dict(report.failures),
        "last_warning": None
        if report.warning is None
        else {"time": report.warning[0], "what": report.warning[1]},
    }


def schedule_figures(report: Report) -> dict[str, Any]:
    """Whose turn it is; no turn where all roles are trained at once, nor when it is over."""
    schedule = report.pipeline.schedule
    phase = schedule.phase
    found: dict[str, Any] = {"mode": schedule.turns.mode, "over": schedule.over}
    if phase is not None and not schedule.over:
        found |= {
            "iteration": phase.iteration,
            "iterations": schedule.turns.iterations,
            "role": phase.role,
            "done": phase.done,
            "steps": phase.steps,
        }
    return found


def off_policy(report: Report, role: Role) -> dict[str, float | None]:
    """How far the samples of a role's steps were off its policy, and what the guard made of it.

    Mismatch is of tokens that the current version drew, drift of older ones; None: no such tokens.
    """
    ess, paced = report.figure_of(role, "ess_share"), report.paced[role]
    return {
        "ess_mean": _mean(ess),
        "ess_least": min(ess, default=None),
        "mismatch_kl": _mean(report.figure_of(role, "mismatch_kl_same_version")),
        "mismatch_log_ratio_max": max(
            report.figure_of(role, "log_ratio_max_same_version"), default=None
        ),
        "drift_kl": _mean(report.figure_of(role, "drift_kl_older_versions")),
        "drift_log_ratio_max": max(
            report.figure_of(role, "log_ratio_max_older_versions"), default=None
        ),
        "clipped_share": _mean(report.figure_of(role, "clipped_share")),
        "tightened": sum(event.eta < event.before for event in paced),
        "relaxed": sum(event.eta > event.before for event in paced),
        "eta": paced[-1].eta if paced else None,  # None: as configured
    }


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def evaluation_figures(event: Evaluated) -> dict[str, Any]:
    found: dict[str, Any] = {
        "moment": event.moment,
        "mode": event.mode,
        "version": event.version,
        "by_kind": {kind: list(counts) for kind, counts in event.by_kind.items()},
    }
    for name, hard in (("easy", False), ("hard", True)):
        correct, asked = accuracy(event, hard=hard)
        low, high = wilson(correct, asked)
        found[name] = {
            "correct": correct,
            "asked": asked,
            "accuracy": round(correct / asked, 4) if asked else None,
            "interval_95": [round(low, 4), round(high, 4)],
        }
    return found


def median(values: list[int]) -> float:
    ordered = sorted(values)
    n = len(ordered)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2 if n else 0.0


def lines(report: Report, stats: LogStats | None = None) -> list[str]:
    """The summary as text, one fact a line."""
    f = figures(report, stats)
    held = f"{f['log_mb']} MB, {f['blobs']}" if stats else str(report.renders[""])
    text = [
        f"run {f['run']}: {f['events']} events, {held} pictures, "
        f"{f['wall_seconds'] / 60:.1f} minutes",
    ]
    if f["schedule"]["mode"] == "sequential" or f["schedule"]["over"]:
        text.append(_schedule_line(f["schedule"]))
    for role, r in f["roles"].items():
        rejected = ", ".join(f"{n} {reason}" for reason, n in r["rejected_groups"].items())
        text.append(
            f"{role:9} {r['steps']:4} steps, version {r['version']}, "
            f"{r['trained_groups']} groups trained, {r['pending_groups']} pending, "
            f"rejected: {rejected or 'none'}; "
            f"staleness median {r['staleness_median']:g}, max {r['staleness_max']}"
        )
        if r["off_policy"]["ess_mean"] is not None:
            text.append(_off_policy_line(r["off_policy"]))
    memory = f"; peak memory {f['peak_memory_gb']} GB" if report.peaks else ""
    text.append(
        f"render success {f['render_success']:.1%}; busy: generator {f['generator_busy']:.0%}, "
        f"learner {f['learner_busy']:.0%}{memory}"
    )
    found = ", ".join(f"{n} {detector}" for detector, n in f["shortcuts"].items())
    text.append(f"shortcuts: {found or 'none'}")
    for b in f["blind"]:
        shown = "no picture" if b["without"] == "none" else "another picture"
        agreement = "-" if b["agreement"] is None else f"{b['agreement']:.1%}"
        text.append(
            f"blind {b['question']} with {shown}: {agreement} of {b['answers']} answers to "
            f"{b['questions']} questions agree with the silver answer; {b['sighted']:.1%} with it"
        )
    if f["failures"]:
        text.append("failures: " + ", ".join(f"{n} {what}" for what, n in f["failures"].items()))
    for e in f["heldout"]:
        scores = "; ".join(
            f"{name} {e[name]['accuracy']:.1%} "
            f"[{e[name]['interval_95'][0]:.1%}, {e[name]['interval_95'][1]:.1%}] "
            f"of {e[name]['asked']}"
            for name in ("easy", "hard")
        )
        text.append(f"held-out {e['moment']:6} {e['mode']:7} (solver@{e['version']}): {scores}")
    return text


def _schedule_line(schedule: dict[str, Any]) -> str:
    if schedule["over"]:
        return f"schedule: {schedule['mode']}, over"
    of = f" of {schedule['iterations']}" if schedule["iterations"] else ""
    return (
        f"schedule: iteration {schedule['iteration']}{of}, the {schedule['role']}'s turn: "
        f"{schedule['done']} of {schedule['steps']} steps"
    )


def _off_policy_line(figures: dict[str, Any]) -> str:
    """Below a role's own line."""
    shown = [
        f"{name} {figures[key]:.3g}"
        for name, key in (
            ("effective samples", "ess_mean"),
            ("least", "ess_least"),
            ("mismatch KL", "mismatch_kl"),
            ("drift KL", "drift_kl"),
            ("clipped", "clipped_share"),
        )
        if figures[key] is not None
    ]
    if figures["eta"] is not None:
        shown.append(
            f"eta now {figures['eta']}, {figures['tightened']} times tightened and "
            f"{figures['relaxed']} relaxed"
        )
    return f"{'':9}      {', '.join(shown)}"
