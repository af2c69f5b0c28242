"""`just experiment schedules`: all roles at once against the paper's sequence, by whole runs.

    python -m mmzero_async.ops.experiments.schedules --out DIR

One cell is one `mmzero run` of the seedling, from its first event to its score after, in a folder
of its own under DIR: from the same start, with the same seed, until the solver has taken the same
number of steps. Finished cells stand in DIR/cells.jsonl and are not done again, and an interrupted
run goes on where its log ends; the table of all cells is printed at the end. `--pictures DIR` picks
pictures of what was found in these runs.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from mmzero_async.config import Config, ConfigError, load
from mmzero_async.ops.experiments.cells import Row, keep, side_by_side, written
from mmzero_async.ops.experiments.pictures import pick
from mmzero_async.ops.supervisor import supervise
from mmzero_async.projections.report import Report, accuracy
from mmzero_async.schemas.events import ROLES

Mode = Literal["concurrent", "sequential"]
MODES: tuple[Mode, ...] = get_args(Mode)
PROBED = "probe.share=0.05"  # of the questions, asked again without their picture


@dataclass(frozen=True, slots=True)
class Cell:
    mode: Mode
    seed: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What makes cells comparable."""

    steps: int  # of each turn; the solver's in all: times `iterations`, in either mode
    iterations: int
    scenes: int
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """Figures of a finished run, each from its log alone. Shares in [0, 1]."""

    cell: Cell
    asked: Asked
    seconds: float  # of generating and learning: without engine start and evaluation
    tokens: int  # generated, all roles, without evaluation
    steps: dict[str, int]  # a role
    accuracies: dict[str, dict[str, float]]  # "hard greedy" -> before, after
    blind: dict[str, float]  # easy, hard: blind answers that agree with the silver one
    sighted: dict[str, float]  # of the same questions, with their picture
    pictures: int
    shortcuts: dict[str, int]  # pictures, a detector


def configuration(cell: Cell, asked: Asked) -> Config:
    turns = [f"schedule.steps.{role}={asked.steps}" for role in ROLES]
    how = {
        "concurrent": [f"schedule.until.solver={asked.steps * asked.iterations}"],
        "sequential": [*turns, f"schedule.iterations={asked.iterations}"],
    }[cell.mode]
    limits = [f"eval.scenes={asked.scenes}", "run.max_minutes=60", f"run.seed={cell.seed}"]
    mode = f"schedule.mode={cell.mode}"
    return load("seedling", [PROBED, *limits, mode, *how, *asked.overrides])


def outcome(cell: Cell, asked: Asked, report: Report) -> Outcome:
    accuracies: dict[str, dict[str, float]] = {}
    for event in report.evaluations:
        for name, hard in (("hard", True), ("easy", False)):
            correct, of = accuracy(event, hard=hard)
            accuracies.setdefault(f"{name} {event.mode}", {})[event.moment] = correct / of
    blind, sighted = {}, {}
    for question in ("easy", "hard"):
        asked_blindly = [b for (q, _), b in report.blind.items() if q == question]
        questions = sum(b.questions for b in asked_blindly)
        if questions:
            answers = sum(b.answers for b in asked_blindly)
            blind[question] = sum(b.agreed for b in asked_blindly) / answers
            sighted[question] = sum(b.sighted for b in asked_blindly) / questions
    return Outcome(
        cell=cell,
        asked=asked,
        seconds=report.figures["supervisor"]["running_seconds"],
        tokens=report.tokens.total(),
        steps={role: report.pipeline.policies.step[role] for role in ROLES},
        accuracies=accuracies,
        blind=blind,
        sighted=sighted,
        pictures=report.renders[""],
        shortcuts=report.shortcuts_found(),
    )


def table(outcomes: Iterable[Outcome]) -> str:
    """Markdown: a column a schedule, mean and deviation over the seeds."""
    found = list(outcomes)
    return side_by_side(MODES, [one.cell.mode for one in found], _rows(found))


def _rows(found: Sequence[Outcome]) -> Iterator[Row]:
    yield "wall clock, minutes", ".1f", [one.seconds / 60 for one in found]
    yield "generated tokens, thousands", ".0f", [one.tokens / 1e3 for one in found]
    for role in ROLES:
        yield f"{role} steps", ".0f", [one.steps[role] for one in found]
    for name in dict.fromkeys(name for one in found for name in one.accuracies):
        for moment in ("before", "after"):
            shares = [one.accuracies.get(name, {}).get(moment) for one in found]
            yield f"{name}, {moment}", ".1%", shares
    for question in ("easy", "hard"):
        alike = f"{question} questions answered alike"
        yield f"{alike} blindly", ".1%", [one.blind.get(question) for one in found]
        yield f"{alike} with the picture", ".1%", [one.sighted.get(question) for one in found]
    yield "pictures", ".0f", [one.pictures for one in found]
    for detector in sorted({name for one in found for name in one.shortcuts}):
        shares = [one.shortcuts.get(detector, 0) / max(1, one.pictures) for one in found]
        yield f"`{detector}`, share of pictures", ".2%", shares


def finished(file: Path, asked: Asked) -> dict[Cell, Outcome]:
    """The cells that are done as asked."""
    return {one.cell: one for one in written(file, Outcome) if one.asked == asked}


def run_of(folder: Path, cell: Cell) -> Path:
    return folder / f"{cell.mode}-{cell.seed}"


async def run_cell(folder: Path, cell: Cell, asked: Asked) -> Outcome | None:
    """None when somebody asked to stop; the run then goes on with the same command."""

    def say(text: str) -> None:
        print(f"{cell.mode}, seed {cell.seed}: {text}", file=sys.stderr, flush=True)

    path = run_of(folder, cell)
    report = await supervise(path, configuration(cell, asked), say, lambda *_: None)
    if report.pipeline.finished is None:
        return None
    if not report.pipeline.schedule.over:
        say("ended with its time, before its schedule: its figures are of fewer steps")
    return outcome(cell, asked, report)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("runs/schedules"))
    parser.add_argument("--steps", type=int, default=8, help="of each role in each turn")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scenes", type=int, default=400, help="held out, before and after")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--pictures", type=Path, help="where five pictures of each finding go")
    parser.add_argument("overrides", nargs="*", help="section.key=value of every run")
    options = parser.parse_args(argv)
    folder: Path = options.out
    folder.mkdir(parents=True, exist_ok=True)
    asked = Asked(options.steps, options.iterations, options.scenes, tuple(options.overrides))
    file = folder / "cells.jsonl"
    done = finished(file, asked)
    plan = [Cell(mode, seed) for seed in range(1, options.seeds + 1) for mode in options.modes]
    for cell in plan:
        if cell in done:
            continue
        try:
            found = asyncio.run(run_cell(folder, cell, asked))
        except ConfigError as error:
            sys.exit(f"schedules: {error}. Cells of other settings need another --out")
        if found is None:
            sys.exit("stopped; the same command goes on")
        done[cell] = found
        keep(file, found)
    print(table(done[cell] for cell in plan))
    if options.pictures is not None:
        listing = pick([run_of(folder, cell) for cell in plan], options.pictures)
        print(f"pictures: {listing}", file=sys.stderr)


if __name__ == "__main__":
    main()
