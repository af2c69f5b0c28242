"""`mmzero`: the command line. Each command is a few lines over a room below."""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mmzero_async import config as configuration
from mmzero_async.config import Config, ConfigError
from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.errors import EngineError
from mmzero_async.engines.launch import address_file
from mmzero_async.learner.errors import LearnerError
from mmzero_async.log.errors import LogError
from mmzero_async.log.reader import LogReader, LogStats
from mmzero_async.ops import dataset as datasets
from mmzero_async.ops import key_commands, log_commands, log_retention, summary, tail, trace, why
from mmzero_async.ops import replay as replays
from mmzero_async.ops import scrape as scrapes
from mmzero_async.ops import what_if as what_ifs
from mmzero_async.ops.cluster import commands as cluster_commands
from mmzero_async.ops.cluster.fleet import RunLost
from mmzero_async.ops.cluster.render.commands import render as render_cluster
from mmzero_async.ops.evaluate import evaluate
from mmzero_async.ops.processes import ProcessKeepsDying
from mmzero_async.ops.supervisor import supervise
from mmzero_async.ports import PortTaken
from mmzero_async.projections.report import Report
from mmzero_async.schemas.events import ROLES, Role
from mmzero_async.schemas.record import RecordDamaged
from mmzero_async.transport.errors import TransportError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Self-evolving vision-language training over one event log.",
)
log_commands.app.add_typer(log_retention.app)
app.add_typer(log_commands.app, name="log")
app.add_typer(key_commands.app, name="keys")
app.command(name="run-cluster")(cluster_commands.run_cluster)
cluster_commands.app.command(name="render")(render_cluster)
app.add_typer(cluster_commands.app, name="cluster")
console = Console(highlight=False)


def say(text: str, style: str | None = None) -> None:
    """One line for people; where there is no terminal it stays one line."""
    console.print(text, style=style, markup=False, soft_wrap=True)


RunFolder = Annotated[Path, typer.Argument(help="a run's folder, or its name under runs/")]
AsJson = Annotated[bool, typer.Option("--json", help="figures for programs")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="section.key=value; [run] needs no section")
]

ERRORS = (
    ConfigError,
    LogError,
    TransportError,
    EngineError,
    LearnerError,
    PortTaken,
    ProcessKeepsDying,
    RunLost,
    RecordDamaged,
    FileNotFoundError,
    ValueError,
)


def main() -> None:
    """Errors that have something to say to people are said in one line, with exit status 1."""
    try:
        app()
    except* ERRORS as group:
        for error in _leaves(group):
            typer.secho(f"mmzero: {error}", fg="red", err=True)
        sys.exit(1)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def run_folder(path: Path) -> Path:
    """The folder itself, or the one of that name under runs/. LogError if there is neither."""
    for candidate in (path, Path("runs") / path):
        if (candidate / "config.json").exists():
            return candidate
    raise LogError(f"no run at {path} nor at runs/{path}: start one with `mmzero run`")


@contextmanager
def reading(path: Path) -> Iterator[LogReader]:
    reader = LogReader.open(run_folder(path) / "log")
    try:
        yield reader
    finally:
        reader.close()


def report_of(path: Path) -> tuple[Report, LogStats]:
    """The run's report from its log alone."""
    with reading(path) as reader:
        report = Report()
        for record in reader.scan():
            report.apply(record)
        return report, reader.stats()


def _show(report: Report, stats: LogStats, as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary.figures(report, stats)))
    else:
        for line in summary.lines(report, stats):
            say(line)


@app.command()
def run(
    overrides: Overrides = None,
    run: Annotated[Path, typer.Option(help="the run's folder")] = Path("runs/demo"),
    config: Annotated[str, typer.Option(help="a preset or a TOML file")] = "seedling",
) -> None:
    """Start a run on this machine, or go on with one where its log ends."""
    loaded = configuration.load(config, [_with_section(o, "run") for o in overrides or []])
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
    _show(report, stats, as_json=False)
    if report.pipeline.finished is None:
        say(f"stopped; the same command goes on. Look: mmzero status {run}")
    else:
        say(f"finished. Look: mmzero replay {run} --audit; mmzero dataset {run}")


def _with_section(override: str, section: str) -> str:
    """`max_minutes=5` means `run.max_minutes=5` where `run` is the section."""
    key = override.partition("=")[0]
    return override if "." in key or key == "templates" else f"{section}.{override}"


@app.command()
def status(run: RunFolder, as_json: AsJson = False) -> None:
    """Figures of a run now, from its log; works while it runs."""
    _show(*report_of(run), as_json)


@app.command()
def replay(
    run: RunFolder,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="for --what-if, --train: section.key=value; [learner] needs none"),
    ] = None,
    audit: Annotated[bool, typer.Option("--audit", help="check every promise")] = False,
    step: Annotated[int, typer.Option(help="take this step again, bit by bit")] = 0,
    role: Annotated[str, typer.Option(help="whose step")] = "solver",
    what_if: Annotated[bool, typer.Option("--what-if", help="that step, otherwise")] = False,
    train: Annotated[bool, typer.Option("--train", help="the whole learner, offline")] = False,
    steps: Annotated[int, typer.Option(help="of --train, the first so many; 0: all")] = 0,
    out: Annotated[Path | None, typer.Option(help="of --train, where versions go")] = None,
    as_json: AsJson = False,
) -> None:
    """Walk the log from its first event and rebuild counts, rewards and windows from it alone;
    with --step, take one committed step again and compare it bit by bit, with --what-if beside
    itself under other settings; with --train, take every step again, or under other settings."""
    otherwise = [_with_section(o, "learner") for o in overrides or []]
    if otherwise and not (what_if or train):
        raise ConfigError("a replay takes settings only with --what-if or --train")
    if train:
        _retrain(run, otherwise, steps, out, as_json)
        return
    if what_if:
        _what_if(run, role, step, otherwise, as_json)
        return
    if step:
        _again(run, role, step, as_json)
        return
    report, stats = report_of(run)
    with reading(run) as reader:
        rebuilt = replays.rebuild_figures(reader)
        audited = replays.audit(reader) if audit else None
    if as_json:
        found = {**summary.figures(report, stats), "rebuilt": rebuilt}
        print(json.dumps(found | ({"audit": replays.audit_figures(audited)} if audited else {})))
    else:
        _show(report, stats, as_json=False)
        for line in replays.rebuild_lines(rebuilt) + (
            replays.audit_lines(audited) if audited else []
        ):
            say(line, "red" if line.startswith("  ") else None)
    if rebuilt["differences"] or (audited is not None and not audited.clean):
        raise typer.Exit(1)


def _role(name: str) -> Role:
    for role in ROLES:
        if role == name:
            return role
    raise ConfigError(f"--role {name!r}: choose one of {', '.join(ROLES)}")


def _what_if(run: Path, role: str, step: int, otherwise: list[str], as_json: bool) -> None:
    if not step or not otherwise:
        raise ConfigError(
            "--what-if needs a step and what is to be otherwise: "
            "mmzero replay RUN --step 7 --role solver --what-if loss=dapo"
        )
    with reading(run) as reader:
        found = what_ifs.figures(run_folder(run), reader, _role(role), step, otherwise)
    if as_json:
        print(json.dumps(found))
    else:
        for line in what_ifs.lines(found):
            say(line)


def _retrain(run: Path, otherwise: list[str], steps: int, out: Path | None, as_json: bool) -> None:
    taken = same = changed = 0
    with reading(run) as reader:
        for found in what_ifs.retrained(run_folder(run), reader, out, otherwise, steps):
            taken, same = taken + 1, same + found["same"]
            changed = found["differing_settings"]
            if as_json:
                print(json.dumps(found))
            else:
                say(what_ifs.retrained_line(found))
    if not as_json:
        said = f"{taken} steps, {same} of them with the committed bits"
        say(said if out is None else f"{said}; versions in {out}/checkpoints")
    if not changed and same < taken:
        raise typer.Exit(1)


def _again(run: Path, role: str, step: int, as_json: bool) -> None:
    with reading(run) as reader:
        found = replays.rerun_figures(run_folder(run), reader, _role(role), step)
    if as_json:
        print(json.dumps(found))
    else:
        for line in replays.rerun_lines(found):
            say(line)
    if not all(figure["equal"] for figure in found):
        raise typer.Exit(1)


@app.command(name="tail")
def tail_command(
    run: RunFolder,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", "-f")] = True,
    last: Annotated[int, typer.Option("-n", help="lines to begin with")] = 20,
    role: Annotated[str, typer.Option(help="role or process")] = "",
    level: Annotated[str, typer.Option(help="at least this level")] = "info",
    lineage: Annotated[str, typer.Option(help="lineage id")] = "",
    host: Annotated[str, typer.Option(help="host's name")] = "",
    as_json: AsJson = False,
) -> None:
    """Follow the structured logs of all processes, merged."""
    if level not in tail.LEVELS:
        raise ConfigError(f"--level {level}: choose one of {', '.join(tail.LEVELS)}")
    wanted = tail.Wanted(role=role, level=level, lineage=lineage, host=host)
    try:
        for line in tail.follow(run_folder(run), wanted, forever=follow, last=last):
            if as_json:
                print(json.dumps(line), flush=True)
            else:
                text, colour = tail.text(line)
                say(text, colour or None)
    except KeyboardInterrupt:
        return


@app.command(name="metrics")
def metrics_command(
    run: RunFolder,
    scrape: Annotated[bool, typer.Option("--scrape", help="for Prometheus' file_sd")] = False,
) -> None:
    """Where the processes of a run serve their Prometheus figures."""
    folder = run_folder(run)
    if scrape:
        print(scrapes.scrape(folder))
        return
    for line in scrapes.lines(folder):
        say(line)


@app.command(name="why")
def why_command(
    run: RunFolder,
    item: Annotated[str, typer.Argument(help="lineage id or work's key; none: everything")] = "",
    as_json: AsJson = False,
) -> None:
    """What every stage of a run, or one item, waits for: who holds it, since when."""
    with reading(run) as reader:
        told, pipeline = why.answer(run_folder(run), reader)
        if as_json:
            about = {"item": list(why.item_lines(told, pipeline, reader, item))} if item else {}
            print(json.dumps(told.figures() | about))
        elif item:
            for line in why.item_lines(told, pipeline, reader, item):
                say(line)
        else:
            for line, colour in why.lines(told):
                say(line, colour or None)


@app.command(name="trace")
def trace_command(
    run: log_commands.RunOrUrl,
    lineage: Annotated[str, typer.Argument()],
    key: log_commands.KeyFile = None,
) -> None:
    """One lineage (g12, g12.s0, g12.s0.d3) from proposal to gradient step."""
    with log_commands.reading_anywhere(run, key) as reader:
        found = False
        for line in trace.trace(reader, lineage):
            found = True
            say(line)
    if not found:
        raise LogError(f"the log of {run} knows nothing of {lineage}")


@app.command()
def dataset(
    run: RunFolder,
    out: Annotated[Path | None, typer.Option(help="default: <run>/dataset.parquet")] = None,
) -> None:
    """Write answered pictures with questions, votes and scores as Parquet."""
    target = out or run_folder(run) / "dataset.parquet"
    with reading(run) as reader:
        count = datasets.write(reader, target)
    say(f"{count} rows in {target}")


@app.command(name="eval")
def eval_command(
    run: RunFolder,
    mode: Annotated[str, typer.Option(help="greedy or sampled")] = "greedy",
    scenes: Annotated[int, typer.Option(help="0: as configured")] = 0,
    as_json: AsJson = False,
) -> None:
    """Score the solver that a running run serves on the held-out scenes."""
    folder = run_folder(run)
    if mode not in ("greedy", "sampled"):
        raise ConfigError(f"--mode {mode}: choose greedy or sampled")
    loaded = configuration.from_json((folder / "config.json").read_text())
    event = asyncio.run(_evaluate(folder, loaded, mode, scenes))
    found = summary.evaluation_figures(event)
    if as_json:
        print(json.dumps(found))
        return
    for name in ("easy", "hard"):
        say(f"{name}: {found[name]}")
    for kind, (correct, asked) in event.by_kind.items():
        say(f"  {kind:22} {correct / asked:6.1%} of {asked}")


async def _evaluate(folder: Path, loaded: Config, mode: str, scenes: int) -> Any:
    weights = loaded.learner.weights
    url = (folder / address_file(weights, "solver")).read_text().strip()
    report, _ = report_of(folder)
    published = report.pipeline.policies.published.get("solver")
    if published is None:
        raise LogError(f"{folder} has published no solver yet")
    async with VllmClient(url, numbered=weights == "full") as engine:
        return await evaluate(
            engine,
            loaded,
            policy=published.policy,
            version=published.version,
            moment="manual",
            mode=mode,
            scenes=scenes,
        )


if __name__ == "__main__":
    main()
