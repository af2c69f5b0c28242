"""`just experiment staleness`: the solver's accuracy by staleness, with and without correction.

    python -m mmzero_async.ops.experiments.staleness --out DIR

One cell is one solver trained from the base for so many steps on windows that are exactly so many
versions old (the first ones younger: there is nothing older). Finished cells stand in
DIR/cells.jsonl and are not done again, so the command may be stopped and goes on; it prints the
table of all cells at its end.
"""

import argparse
import asyncio
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import msgspec

from mmzero_async.config import Config, load
from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.server import VllmServer
from mmzero_async.learner.step import make_deterministic
from mmzero_async.ops.experiments.cells import keep, spread, written
from mmzero_async.ops.experiments.solver_alone import Asked, SolverAlone
from mmzero_async.ops.rundir import base_model_folder
from mmzero_async.projections.report import accuracy
from mmzero_async.rendering.pool import RenderPool

_OPTIONS = "learner.loss_options."
_UNCORRECTED = (f"{_OPTIONS}vllm_importance_sampling_correction=false",)
_AGAINST_BEHAVIOUR = (f"{_OPTIONS}proximal=behaviour",)
_BOUNDS = f"{_OPTIONS}vllm_importance_sampling_clip_"

# What stands for pi / mu in the loss: "tis" the preset's truncated ratio, "none" 1. Both are means
# over all tokens of the window, so that nothing else differs. The others are to compare with.
CORRECTIONS: Mapping[str, tuple[str, ...]] = {
    "tis": ("learner.loss=tis",),
    "none": ("learner.loss=dapo", *_UNCORRECTED),
    "ppo": ("learner.loss=dapo", *_AGAINST_BEHAVIOUR, f"{_OPTIONS}epsilon_high=0.28"),
    "icepop": (
        "learner.loss=dapo",
        f"{_OPTIONS}vllm_importance_sampling_mode=token_mask",
        f"{_BOUNDS}min=0.5",
        f"{_BOUNDS}max=5.0",
    ),
    "sequence_mask": ("learner.loss=dapo",),
    "a3po": (
        "learner.loss=dapo",
        f"{_OPTIONS}proximal=loglinear",
        f"{_OPTIONS}epsilon_high=0.28",
        f"{_OPTIONS}vllm_importance_sampling_mode=token_mask",
        f"{_BOUNDS}max=5.0",
    ),
    "gspo": (
        "learner.loss=grpo",
        *_AGAINST_BEHAVIOUR,
        f"{_OPTIONS}importance_sampling_level=sequence",
        f"{_OPTIONS}epsilon=3e-4",
        f"{_OPTIONS}epsilon_high=4e-4",
    ),
    "cispo": ("learner.loss=cispo", *_AGAINST_BEHAVIOUR),
    "vespo": ("learner.loss=vespo",),
    "topr": ("learner.loss=topr",),
    "dppo": ("learner.loss=dppo",),
    "m2po": ("learner.loss=m2po",),
}
USUAL = ("tis", "none")


@dataclass(frozen=True, slots=True)
class Cell:
    staleness: int  # versions
    correction: str
    seed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Accuracies in [0, 1] on held-out hard questions, after `steps` steps."""

    cell: Cell
    steps: int
    greedy: float
    sampled: float
    reward: float  # mean of the last five windows
    effective_samples: float  # least share over the steps
    seconds: float
    overrides: tuple[str, ...] = ()  # of every cell, beside the correction's


async def run_cell(
    cell: Cell, config: Config, base: Path, engine: VllmClient, options: argparse.Namespace
) -> Outcome:
    """Trains one cell; the options say how many steps, held-out scenes, and where."""
    folder, steps, scenes = options.out, options.steps, options.scenes
    started = time.monotonic()
    rewards: list[float] = []
    effective: list[float] = []
    async with RenderPool(config.renderer) as pool:
        name = f"s{cell.staleness}-{cell.correction}-{cell.seed}"
        alone = SolverAlone(name, config, base, folder / name, engine, pool, cell.seed)
        queue: deque[Asked] = deque()
        while len(queue) < cell.staleness:
            queue.append(await alone.ask())
        for _ in range(steps):
            queue.append(await alone.ask())
            metrics = (await alone.train(queue.popleft())).metrics
            rewards.append(metrics["reward_mean"])
            effective.append(metrics["ess_share"])
        shares = {}
        for mode in ("greedy", "sampled"):
            correct, asked = accuracy(await alone.score(mode, scenes), hard=True)
            shares[mode] = correct / asked
        await alone.leave()
    return Outcome(
        cell=cell,
        steps=steps,
        greedy=shares["greedy"],
        sampled=shares["sampled"],
        reward=mean(rewards[-5:]),
        effective_samples=min(effective),
        seconds=time.monotonic() - started,
        overrides=tuple(options.overrides),
    )


def table(outcomes: Iterable[Outcome]) -> str:
    """Markdown: a row a staleness and correction, mean and deviation over the seeds."""
    cells: dict[tuple[int, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        cells[outcome.cell.staleness, outcome.cell.correction].append(outcome)
    lines = [
        "| staleness | correction | hard, greedy | hard, temperature 1 | least effective samples "
        "| seeds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (staleness, correction), found in sorted(cells.items()):
        greedy = spread([outcome.greedy for outcome in found], ".1%")
        sampled = spread([outcome.sampled for outcome in found], ".1%")
        least = min(outcome.effective_samples for outcome in found)
        lines.append(
            f"| {staleness} | {correction} | {greedy} | {sampled} | {least:.3f} | {len(found)} |"
        )
    return "\n".join(lines)


def finished(file: Path, steps: int, overrides: Sequence[str] = ()) -> dict[Cell, Outcome]:
    """The cells done in so many steps under these settings."""
    asked = (steps, tuple(overrides))
    return {o.cell: o for o in written(file, Outcome) if (o.steps, o.overrides) == asked}


async def run(options: argparse.Namespace) -> None:
    folder: Path = options.out
    file = folder / "cells.jsonl"
    done = finished(file, options.steps, options.overrides)
    plan = [
        Cell(staleness, correction, seed)
        for seed in range(1, options.seeds + 1)
        for staleness in options.staleness
        for correction in options.corrections
    ]
    missing = [cell for cell in plan if cell not in done]
    if missing:
        plain = load("seedling", options.overrides)
        base = base_model_folder(plain)
        threads = msgspec.structs.replace(plain.engine, threads=options.threads)
        make_deterministic(options.threads)
        async with (
            VllmServer(base, threads, folder / "engine.log") as server,
            VllmClient(server.url) as engine,
        ):
            for cell in missing:
                config = load("seedling", [*options.overrides, *CORRECTIONS[cell.correction]])
                outcome = await run_cell(cell, config, base, engine, options)
                done[cell] = outcome
                keep(file, outcome)
    print(table(done[cell] for cell in plan))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("runs/staleness"))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scenes", type=int, default=400, help="held out, after each cell")
    parser.add_argument("--staleness", type=int, nargs="+", default=[0, 1, 4, 8, 16])
    parser.add_argument("--corrections", nargs="+", choices=CORRECTIONS, default=USUAL)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("overrides", nargs="*", help="section.key=value of every cell")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        asyncio.run(run(options))
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")


if __name__ == "__main__":
    main()
