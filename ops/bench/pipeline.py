"""`just bench pipeline`: tokens a second of the whole pipeline, beside its engine alone.

    python -m mmzero_async.ops.bench.pipeline           some four minutes
    python -m mmzero_async.ops.bench.pipeline --quick   within 45 seconds, if nothing else runs

One JSON line a figure. Pipeline and engine take turns in one run: the workers generate for some
seconds and are paused; then the very requests that they made (messages, sampling with its seed,
policy, pictures, read back from the log) go straight to the same engine, as many at once as the
run may have there (`engine.capacity`), its caches emptied. The bench fails if the engine sees
another prompt than it saw from the workers. There is no learner (pipeline_run.py).

- `share_of_engine`: tokens drawn a second, against the engine alone. The aim is 0.95.
- `tokens_per_engine_second`: the same a second of processor time of vLLM's computing process, which
  another process on the machine cannot take away: what smaller batches cost.
- `engine_computes`: share of time that vLLM's computing process runs; what is missing to 1 it was
  idle, or waited for a core (`engine_waits_for_core`): on two cores all else runs beside it.
- `samples_in_flight`, `request_seconds`: how much the engine had at once, and how long each took.
- `cpu_NAME`: processor time a second of each process in the pipeline's turns, against one core.
"""

import argparse
import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from mmzero_async.ops.bench.figures import Figure
from mmzero_async.ops.bench.forks import Forks
from mmzero_async.ops.bench.pipeline_run import PROCESSES, STAGES, Turn, rig

ALONE = "vLLM alone, the same prompts"
CORE, FRONT = "engine_core", "engine_front"


@dataclass(frozen=True)
class Effort:
    """How long a bench measures."""

    turns: int  # of each of the two
    ramp: float  # seconds until the engine is as full as it gets
    seconds: float


FULL = Effort(turns=6, ramp=4.0, seconds=12.0)
QUICK = Effort(turns=2, ramp=1.5, seconds=3.0)


@dataclass(frozen=True)
class Went:
    """All turns of both."""

    pipeline: list[Turn]
    alone: list[Turn]
    capacity: int


async def run(effort: Effort, folder: Path) -> Went:
    forks = Forks([PROCESSES])
    pipeline, alone = [], []
    async with rig(forks, folder) as made:
        for _ in range(effort.turns):
            turn, requests = await made.pipeline(effort.ramp, effort.seconds)
            pipeline.append(turn)
            alone.append(await made.alone(requests, effort.ramp, effort.seconds))
        return Went(pipeline, alone, made.config.engine.capacity)


def figures(went: Went) -> Iterator[Figure]:
    """The medians of the turns."""

    def both(of: Callable[[Turn], float]) -> tuple[float, float]:
        return median(map(of, went.pipeline)), median(map(of, went.alone))

    def figure(name: str, unit: str, of: Callable[[Turn], float], note: str = "") -> Figure:
        value, rival = both(of)
        return Figure(name, value, unit, ALONE, rival, note)

    each = ", ".join(
        f"{one.tokens / other.tokens:.3f}"
        for one, other in zip(went.pipeline, went.alone, strict=True)
    )
    note = (
        f"no learner; {went.capacity} requests at once; each turn {each}; load average "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    yield figure("share_of_engine", "tokens/s", lambda t: t.tokens, note)
    yield figure("tokens_per_engine_second", "tokens/s", lambda t: t.tokens / t.used[CORE].ran)
    yield figure("engine_computes", "share of time", lambda t: t.used[CORE].ran)
    yield figure("engine_waits_for_core", "share of time", lambda t: t.used[CORE].waited)
    yield figure("samples_in_flight", "samples", lambda t: t.in_flight)
    yield figure("request_seconds", "s", lambda t: t.seconds)
    yield figure("cpu_engine_front", "s/s", lambda t: t.used[FRONT].ran)
    for name in ("log_server", *STAGES):
        used = median(turn.used[name].ran for turn in went.pipeline)
        waited = median(turn.used[name].waited for turn in went.pipeline)
        yield Figure(f"cpu_{name}", used, "s/s", "one core", 1.0, f"waits {waited:.2f} s/s for it")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="benchmark of the whole pipeline")
    parser.add_argument("--quick", action="store_true", help="within 45 seconds, rougher")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="bench-pipeline-") as folder:
        went = asyncio.run(run(QUICK if options.quick else FULL, Path(folder)))
    for figure in figures(went):
        print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
