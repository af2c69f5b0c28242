"""`mmzero run`, `status` and `metrics`: a run on this machine, and its figures."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from mmzero_async import config as configuration
from mmzero_async.config import Config
from mmzero_async.log.reader import LogReader, LogStats
from mmzero_async.ops import summary, view
from mmzero_async.ops.command_line import (
    AsJson,
    RunFolder,
    console,
    reading,
    report_of,
    run_folder,
    say,
    with_section,
)
from mmzero_async.ops.display import display, on_terminal
from mmzero_async.projections.report import Report

Overrides = Annotated[
    list[str] | None, typer.Argument(help="section.key=value; [run] needs no section")
]


def show(report: Report, stats: LogStats, as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary.figures(report, stats)), flush=True)
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
    with display(console, loaded, say) as shown:
        asyncio.run(supervise(run, loaded, shown.say, shown.progress))
    report, stats = report_of(run)
    show(report, stats, as_json=False)
    if report.pipeline.finished is None:
        say(f"stopped; the same command goes on. Look: mmzero status {run}")
    else:
        say(f"finished. Look: mmzero replay {run} --audit; mmzero dataset {run}")


def status(
    run: RunFolder,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="until it ends, or Ctrl-C")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="of --watch: seconds")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Figures of a run now, from its log; works while it runs."""
    config = configuration.from_json((run_folder(run) / "config.json").read_text())
    if watch:
        try:
            _watch(run, config, every, as_json)
        except KeyboardInterrupt:
            return
        return
    report, stats = report_of(run)
    if not as_json and on_terminal(console):
        console.print(view.table(report, config, _running(report), time.time()))
        console.print()
    show(report, stats, as_json)


def _watch(run: Path, config: Config, every: float, as_json: bool) -> None:
    with reading(run) as reader:
        if as_json:
            for report in _reports(reader, every):
                show(report, reader.stats(), as_json=True)
            return
        with display(console, config, say) as shown:
            for report in _reports(reader, every):
                shown.progress(report, _running(report))
        show(report, reader.stats(), as_json=False)


def _reports(reader: LogReader, every: float) -> Iterator[Report]:
    """One and the same, read on, until the run is finished."""
    report = Report()
    while True:
        for record in reader.scan(report.pipeline.next_offset):
            report.apply(record)
        yield report
        if report.pipeline.finished is not None:
            return
        time.sleep(every)


def _running(report: Report) -> float:
    """Seconds of generating and learning, as the run itself counts them."""
    return report.figures.get("supervisor", {}).get("running_seconds", report.wall_seconds)


def metrics(
    run: RunFolder,
    scrape: Annotated[bool, typer.Option("--scrape", help="for Prometheus' file_sd")] = False,
    as_json: AsJson = False,
) -> None:
    """Where the processes of a run serve their Prometheus figures."""
    from mmzero_async.ops import scrape as scrapes

    folder = run_folder(run)
    if as_json:
        print(json.dumps([{"process": s.process, "url": s.url} for s in scrapes.served(folder)]))
        return
    if scrape:
        print(scrapes.scrape(folder))
        return
    for line in scrapes.lines(folder):
        say(line)
