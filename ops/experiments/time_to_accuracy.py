"""`just experiment time_to_accuracy`: how soon the solver is so good, overlapped and in turn.

    python -m mmzero_async.ops.experiments.time_to_accuracy --out DIR

One cell is one `mmzero run` of the seedling on real vLLM, from its first event until its solver,
which alone is trained, has taken so many steps; it is told apart by admission alone. Scored is
afterwards, so that nothing disturbs the clock: every few of its versions answer the held-out
questions, and the cell's time is that of the first one over the bar, by the log's own times.

Finished cells stand in DIR/cells.jsonl and are not done again. A run that was interrupted is made
anew: its clock would count the pause.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from mmzero_async.config import Config, load
from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.server import VllmServer
from mmzero_async.ops.evaluate import evaluate
from mmzero_async.ops.experiments.cells import Row, keep, side_by_side, written
from mmzero_async.ops.experiments.clock import Clock
from mmzero_async.ops.rundir import base_model_folder
from mmzero_async.ops.supervisor import supervise
from mmzero_async.projections.report import accuracy

Mode = Literal["asynchronous", "synchronous"]
# Synchronous: a window is generated, then trained on, and nothing is in the making meanwhile. What
# its prompts gave beyond it goes into the next one, a version old, rather than be thrown away.
MODES: Mapping[Mode, tuple[str, ...]] = {
    "asynchronous": (),
    "synchronous": ("admission.eta=0", "admission.drain=true"),
}
SOLVER_ALONE = ("learner.proposer.train=false", "learner.coder.train=false", "probe.share=0")


@dataclass(frozen=True, slots=True)
class Cell:
    mode: Mode
    seed: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What makes cells comparable."""

    steps: int  # of the solver
    every: int  # versions from one that is scored to the next
    scenes: int  # held out; a hard question each counts
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Point:
    """A version, the seconds until it was committed, and its share of hard questions right."""

    version: int
    seconds: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """Figures of a run, each from its log alone but `points`' accuracies and `load`."""

    cell: Cell
    asked: Asked
    points: tuple[Point, ...]
    seconds: float  # from the first prompt to the last step
    tokens: int  # generated in these
    step_seconds: float  # mean of the steps
    stepping: float  # share of the time in which a step ran
    beside_a_step: float  # tokens a second
    between_steps: float
    staleness: float  # versions, mean over windows
    stale: int  # groups that were too old to be used
    load: float  # of the machine, five minutes' mean when the run ended

    def reached(self, bar: float) -> Point | None:
        """The first scored version that has so much right."""
        return next((point for point in self.points if point.accuracy >= bar), None)


def configuration(cell: Cell, asked: Asked) -> Config:
    until = [f"schedule.until.solver={asked.steps}", "run.max_minutes=60", "run.evaluate=false"]
    own = (*until, f"run.seed={cell.seed}", *MODES[cell.mode])
    return load("seedling", [*SOLVER_ALONE, *own, *asked.overrides])


def outcome(
    cell: Cell, asked: Asked, clock: Clock, points: Iterable[Point], load: float
) -> Outcome:
    rates = clock.rates()
    return Outcome(
        cell=cell,
        asked=asked,
        points=tuple(points),
        seconds=clock.seconds(len(clock.steps)),
        tokens=clock.tokens,
        step_seconds=clock.mean("seconds"),
        stepping=clock.stepping,
        beside_a_step=rates.beside_a_step,
        between_steps=rates.between_steps,
        staleness=clock.mean("staleness_mean"),
        stale=clock.rejected["stale"],
        load=load,
    )


def table(outcomes: Iterable[Outcome], bars: Sequence[float]) -> str:
    """Markdown: a column a mode, mean and deviation over the seeds."""
    found = list(outcomes)
    return side_by_side(MODES, [one.cell.mode for one in found], _rows(found, bars))


def _rows(found: Sequence[Outcome], bars: Sequence[float]) -> Iterator[Row]:
    for bar in bars:
        reached = [one.reached(bar) for one in found]
        yield f"seconds to {bar:.0%}", ".0f", [p.seconds if p else None for p in reached]
        yield f"versions to {bar:.0%}", ".1f", [p.version if p else None for p in reached]
        if not all(reached):
            there = [p is not None for p in reached]
            yield f"runs that reached {bar:.0%}", lambda of: f"{sum(of)} of {len(of)}", there
    for name, form, figure in (
        ("seconds in all", ".0f", "seconds"),
        ("seconds a step", ".2f", "step_seconds"),
        ("share of the time in which a step runs", ".0%", "stepping"),
        ("tokens a second while a step runs", ".0f", "beside_a_step"),
        ("tokens a second otherwise", ".0f", "between_steps"),
        ("generated tokens", ".0f", "tokens"),
        ("age of the samples, versions", ".2f", "staleness"),
        ("groups too old to be used", ".1f", "stale"),
        ("load of the machine", ".1f", "load"),
    ):
        yield name, form, [getattr(one, figure) for one in found]
    right = [{point.version: point.accuracy for point in one.points} for one in found]
    for version in sorted({version for one in right for version in one}):
        yield f"right at version {version}", ".1%", [one.get(version) for one in right]


def finished(file: Path, asked: Asked) -> dict[Cell, Outcome]:
    """The cells that are done as asked."""
    return {one.cell: one for one in written(file, Outcome) if one.asked == asked}


def run_of(folder: Path, cell: Cell) -> Path:
    return folder / f"{cell.mode}-{cell.seed}"


async def ran(folder: Path, cell: Cell, asked: Asked) -> bool:
    """Makes the cell's run, unless it is there and over. False when somebody asked to stop."""
    run, wanted = run_of(folder, cell), json.dumps([asked.steps, *asked.overrides])
    mark = run / "made_as.json"  # last of all, so that it stands in a whole run only
    if mark.exists() and mark.read_text() == wanted:
        return True
    if (run / "config.json").exists():
        shutil.rmtree(run)

    def say(text: str) -> None:
        print(f"{cell.mode}, seed {cell.seed}: {text}", file=sys.stderr, flush=True)

    report = await supervise(run, configuration(cell, asked), say, lambda *_: None)
    if report.pipeline.finished is None:
        return False
    if not report.pipeline.schedule.over:
        sys.exit(f"{run}: ended with its time, before its steps: ask for fewer with --steps")
    (run / "load").write_text(str(os.getloadavg()[1]))
    mark.write_text(wanted)
    return True


async def scored(run: Path, clock: Clock, asked: Asked, engine: VllmClient) -> list[Point]:
    """Every so many versions of the run, and the last, on the held-out questions; greedy."""
    versions = [*range(0, asked.steps, asked.every), asked.steps]
    config = load("seedling", asked.overrides)
    points = []
    for version in versions:
        policy = f"{run.name}@{version}"
        await engine.load_policy(policy, str((run / clock.checkpoints[version]).absolute()))
        event = await evaluate(
            engine, config, policy=policy, version=version, moment="manual", scenes=asked.scenes
        )
        await engine.unload_policy(policy)
        correct, questions = accuracy(event, hard=True)
        points.append(Point(version, clock.seconds(version), correct / questions))
    return points


async def score(
    folder: Path, cells: Sequence[Cell], asked: Asked, threads: int
) -> AsyncIterator[Outcome]:
    """The cells' runs, one after the other on one engine."""
    plain = load("seedling", asked.overrides)
    config = msgspec.structs.replace(plain.engine, threads=threads)
    async with (
        VllmServer(base_model_folder(plain), config, folder / "engine.log") as server,
        VllmClient(server.url) as engine,
    ):
        for cell in cells:
            run = run_of(folder, cell)
            clock = Clock.of(run)
            points = await scored(run, clock, asked, engine)
            yield outcome(cell, asked, clock, points, float((run / "load").read_text()))


async def keep_all(file: Path, outcomes: AsyncIterator[Outcome]) -> None:
    """Writes each down as it comes."""
    async for one in outcomes:
        keep(file, one)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("runs/time_to_accuracy"))
    parser.add_argument("--steps", type=int, default=20, help="of the solver, a run")
    parser.add_argument("--every", type=int, default=2, help="versions between two that are scored")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scenes", type=int, default=400, help="held out")
    parser.add_argument("--bars", type=float, nargs="+", default=[0.55, 0.6, 0.65])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--threads", type=int, default=2, help="of the engine that scores")
    parser.add_argument("--only-run", action="store_true", help="score nothing yet")
    parser.add_argument("overrides", nargs="*", help="section.key=value of every run")
    options = parser.parse_args(argv)
    folder: Path = options.out
    folder.mkdir(parents=True, exist_ok=True)
    asked = Asked(options.steps, options.every, options.scenes, tuple(options.overrides))
    file = folder / "cells.jsonl"
    plan = [Cell(mode, seed) for seed in range(1, options.seeds + 1) for mode in options.modes]
    missing = [cell for cell in plan if cell not in finished(file, asked)]
    stopped = "stopped; the same command goes on"
    for cell in missing:
        if not asyncio.run(ran(folder, cell, asked)):
            sys.exit(stopped)
    if missing and not options.only_run:
        try:
            asyncio.run(keep_all(file, score(folder, missing, asked, options.threads)))
        except KeyboardInterrupt:
            sys.exit(stopped)
    done = finished(file, asked)
    print(table([done[cell] for cell in plan if cell in done], options.bars))


if __name__ == "__main__":
    main()
