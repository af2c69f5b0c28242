"""`mmzero eval`: what versions of the solver score, side by side."""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mmzero_async import config as configuration
from mmzero_async.config import Config, ConfigError
from mmzero_async.engines.errors import EngineError
from mmzero_async.log.where import Where
from mmzero_async.ops import benchmarks, eval_table
from mmzero_async.ops.command_line import AsJson, RunFolder, console, reading, run_folder, say
from mmzero_async.ops.display import on_terminal
from mmzero_async.projections.groups import Policies
from mmzero_async.schemas.events import Evaluated, PolicyPublished

if TYPE_CHECKING:
    from mmzero_async.ops.serving import Asked
    from mmzero_async.ops.versions import Version

FIRST_AND_LAST = "base,newest"
Note = Callable[[int, int], None]


def eval_(
    run: RunFolder,
    versions: Annotated[
        str,
        typer.Option(
            help="base,5,10, newest, iterations or all; default: what a run serves now, or "
            "base,newest of one that is over"
        ),
    ] = "",
    mode: Annotated[str, typer.Option(help="greedy or sampled")] = "greedy",
    scenes: Annotated[int, typer.Option(min=0, help="0: as configured")] = 0,
    benchmark: Annotated[
        str, typer.Option(help="public benchmarks instead, by lmms-eval: chartqa,mathvista ...")
    ] = "",
    data: Annotated[
        Path | None, typer.Option(help="of --benchmark: a copy of its datasets, as HF_HOME")
    ] = None,
    tasks: Annotated[
        Path | None, typer.Option(help="of --benchmark: a folder of lmms-eval's task files")
    ] = None,
    python: Annotated[
        Path, typer.Option(help="of --benchmark: the Python that has lmms-eval")
    ] = Path(sys.executable),
    limit: Annotated[
        int, typer.Option(min=0, help="of --benchmark: questions of each task; 0: all")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Score versions of the solver on held-out scenes, or on public benchmarks, in one table.

    With --versions, and for a run that is over, an engine of its own is started for them."""
    folder = run_folder(run)
    loaded = configuration.from_json((folder / "config.json").read_text())
    if benchmark:
        known, names = benchmarks.named(benchmark, tasks)
        ask = benchmarks.Ask(tuple(names), python, data, tasks, limit)
        if objections := benchmarks.objections(known, ask):
            raise ConfigError("; ".join(objections))
        if told := benchmarks.downloads(known, ask):
            _say(told, as_json)
        wanted = _wanted(folder, versions or FIRST_AND_LAST)
        _tell_benchmarks(asyncio.run(_benchmarks(folder, loaded, wanted, ask, as_json)), as_json)
        return
    if mode not in ("greedy", "sampled"):
        raise ConfigError(f"--mode {mode}: choose greedy or sampled")
    found = asyncio.run(_scores(folder, loaded, versions, mode, scenes, as_json))
    if as_json:
        print(json.dumps({"run": folder.name, "mode": mode, "scores": eval_table.figures(found)}))
        return
    for line in eval_table.lines(found):
        say(line)


# --- held-out scenes ------------------------------------------------------------------------------


async def _scores(
    folder: Path, config: Config, versions: str, mode: str, scenes: int, as_json: bool
) -> dict[str, Evaluated]:
    from mmzero_async.ops.serving import served_now, serving

    if not versions:
        async with served_now(folder, config, _published(folder)) as asked:
            if asked is not None:
                return {asked.label: await _score(asked, config, mode, scenes, as_json)}
    found = {}
    wanted = _wanted(folder, versions or FIRST_AND_LAST)
    _say("engine: vLLM starts in half a minute or so", as_json)
    async with serving(folder, config, "solver") as engine:
        for version in wanted:
            asked = await engine.policy(version)
            found[asked.label] = await _score(asked, config, mode, scenes, as_json)
    return found


async def _score(
    asked: "Asked", config: Config, mode: str, scenes: int, as_json: bool
) -> Evaluated:
    from mmzero_async.ops.evaluate import evaluate

    with _progress(asked.label, as_json) as note:
        return await evaluate(
            asked.client,
            config,
            policy=asked.policy,
            version=asked.version,
            moment="manual",
            mode=mode,
            scenes=scenes,
            progress=note,
        )


@contextmanager
def _progress(label: str, as_json: bool) -> Iterator[Note]:
    """A bar on a terminal, which goes when it is full; nothing elsewhere."""
    if as_json or not on_terminal(console):
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"{label}, questions", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


# --- public benchmarks ----------------------------------------------------------------------------

Results = Mapping[str, Mapping[str, Mapping[str, float]]]  # policy -> task -> metric -> value


async def _benchmarks(
    folder: Path, config: Config, wanted: "list[Version | None]", ask: benchmarks.Ask, as_json: bool
) -> Results:
    from mmzero_async.ops.serving import serving

    found: dict[str, dict[str, dict[str, float]]] = {}
    _say("engine: vLLM starts in half a minute or so", as_json)
    async with serving(folder, config, "solver") as engine:
        for version in wanted:
            asked = await engine.policy(version)
            with tempfile.TemporaryDirectory() as out:
                line = benchmarks.command(ask, engine.url, asked.policy, config, Path(out))
                _say(f"{asked.label}: {' '.join(line)}", as_json)
                began = time.monotonic()
                await _run(line, benchmarks.environment(ask))
                found[asked.label] = benchmarks.results(Path(out))
                _say(f"{asked.label}: {time.monotonic() - began:.0f} s", as_json)
    return found


async def _run(line: list[str], environment: Mapping[str, str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *line,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        words = "\n".join(output.decode(errors="replace").splitlines()[-15:])
        raise EngineError(f"lmms-eval ended with status {process.returncode}:\n{words}")


def _tell_benchmarks(found: Results, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"benchmarks": found}))
        return
    rows = sorted(
        {(t, m) for tasks in found.values() for t, figures in tasks.items() for m in figures}
    )
    body = [
        [f"{task} {metric}", *(_cell(tasks.get(task, {}).get(metric)) for tasks in found.values())]
        for task, metric in rows
    ]
    for line in eval_table.table(["benchmark", *found], body):
        say(line)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


# --- the run --------------------------------------------------------------------------------------


def _wanted(folder: Path, text: str) -> "list[Version | None]":
    from mmzero_async.ops.versions import chosen, versions_of

    with reading(folder) as reader:
        return chosen(text, versions_of(reader, folder, "solver"))


def _published(folder: Path) -> PolicyPublished | None:
    policies = Policies()
    with reading(folder) as reader:
        for record in reader.scan(where=Where(kinds=("policy_published",))):
            policies.apply(record.event())
    return policies.published.get("solver")


def _say(text: str, as_json: bool) -> None:
    """Never among the figures for programs."""
    if as_json:
        print(text, file=sys.stderr, flush=True)
    else:
        say(text)
