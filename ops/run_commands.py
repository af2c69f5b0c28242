"""`mmzero run`, `status` and `metrics`: a run on this machine, and its figures."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from mmzero_async import config as configuration
from mmzero_async.log.reader import LogStats
from mmzero_async.ops import summary
from mmzero_async.ops.command_line import (
    AsJson,
    RunFolder,
    report_of,
    run_folder,
    say,
    with_section,
)
from mmzero_async.projections.report import Report
from mmzero_async.schemas.events import ROLES

Overrides = Annotated[
    list[str] | None, typer.Argument(help="section.key=value; [run] needs no section")
]


def show(report: Report, stats: LogStats, as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary.figures(report, stats)))
    else:
        for line in summary.lines(report, stats):
            say(line)


def run(
    overrides: Overrides = None,
    run: Annotated[Path, typer.Option(help="the run's folder")] = Path("runs/demo"),
    config: Annotated[str, typer.Option(help="a preset or a TOML file")] = "seedling",
) -> None:
    """Start a run on this machine, or go on with one where its log ends."""
    from mmzero_async.ops.supervisor import supervise

    loaded = configuration.load(config, [with_section(o, "run") for o in overrides or []])
    shown = ""

    def progress(report: Report, running: float) -> None:
        nonlocal shown
        steps = report.pipeline.policies.step
        line = " ".join(f"{role} {steps[role]}" for role in ROLES)
        if line != shown or int(running) % 30 == 0:
            shown = line
            say(
                f"{running / 60:5.1f} min  steps: {line}  events {report.pipeline.next_offset}  "
                f"pictures {report.renders['']}"
            )

    asyncio.run(supervise(run, loaded, say, progress))
    report, stats = report_of(run)
    show(report, stats, as_json=False)
    if report.pipeline.finished is None:
        say(f"stopped; the same command goes on. Look: mmzero status {run}")
    else:
        say(f"finished. Look: mmzero replay {run} --audit; mmzero dataset {run}")


def status(run: RunFolder, as_json: AsJson = False) -> None:
    """Figures of a run now, from its log; works while it runs."""
    show(*report_of(run), as_json)


def metrics(
    run: RunFolder,
    scrape: Annotated[bool, typer.Option("--scrape", help="for Prometheus' file_sd")] = False,
) -> None:
    """Where the processes of a run serve their Prometheus figures."""
    from mmzero_async.ops import scrape as scrapes

    folder = run_folder(run)
    if scrape:
        print(scrapes.scrape(folder))
        return
    for line in scrapes.lines(folder):
        say(line)
