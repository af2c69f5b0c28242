"""`just bench renderer`: pictures a second in guarded children, beside the engines called bare.

    python -m mmzero_async.ops.bench.renderer           some four minutes
    python -m mmzero_async.ops.bench.renderer --quick   within 45 seconds, rougher

One JSON line a figure, for charts of about 3 KB at 448, 768 and 1024 pixels. All ways of drawing
take turns, so that a busy machine slows all of them alike; rivals that are not installed say so.

- `guarded_vs_bare` (448 pixels; `..._768`, `..._1024`): two children with all guards against twice
  the same picture drawn bare in this process; `..._processes` against two processes that draw it
  bare, which is what twice comes to here; `..._call` against twice the engine's one call, whose
  result is neither square nor looked at.
- `render_SIZE_vs_RIVAL`: one child against the rival once, `..._two_vs_...` two children against it
  twice at once. rsvg-convert is a program: its start is in each of its pictures. `render_start` (an
  empty page of 8 pixels) and `render_SIZE_blank` (of full size) tell start and PNG from drawing.
- `render_SIZE_cpu`: processor time of children and this process a picture, against bare: what the
  guards cost, also where other work keeps the machine busy.
- `render_SIZE_faster_...`: the same with `renderer.engine = "svg2png-py"`.
"""

import argparse
import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from mmzero_async.config import RendererConfig
from mmzero_async.ops.bench.charts import chart
from mmzero_async.ops.bench.drawers import RIVALS, Draw, NotHere, Unguarded, bare, busy, call
from mmzero_async.ops.bench.figures import Figure, percentile
from mmzero_async.ops.bench.lanes import in_lanes, one_by_one, rates
from mmzero_async.rendering.outcomes import Picture
from mmzero_async.rendering.pool import RenderPool
from mmzero_async.rendering.structure import structure

SIZES = (448, 768, 1024)
CHARTS = 64  # other ones; the pools that are measured remember none
BATCH = 8  # pictures asked for at once where processor time is measured
CACHED_LIMIT_MS = 0.1  # for a picture that was seen before
EngineName = Literal["resvg-py", "svg2png-py"]
ENGINES: dict[str, EngineName] = {"": "resvg-py", "faster_": "svg2png-py"}  # a figure's prefix
BARE = "the same picture drawn bare"
EMPTY = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 480"/>'


@dataclass(frozen=True)
class Effort:
    """How long a bench measures."""

    seconds: float  # a way of drawing and size
    turns: int
    latencies: int  # pictures


FULL = Effort(seconds=4.0, turns=4, latencies=120)
QUICK = Effort(seconds=0.4, turns=2, latencies=15)


class Charts:
    """Charts, made before anything is measured, over and over."""

    def __init__(self) -> None:
        self._charts = cycle([chart(number) for number in range(1, CHARTS + 1)])

    def next(self) -> str:
        return next(self._charts)

    def some(self) -> list[str]:
        return [self.next() for _ in range(BATCH)]


class Guarded:
    """A pool of children and the loop that it lives in."""

    def __init__(self, runner: asyncio.Runner, pool: RenderPool, charts: Charts) -> None:
        self._runner, self.pool, self._charts = runner, pool, charts

    async def one(self) -> None:
        outcome = await self.pool.render(self._charts.next())
        assert isinstance(outcome, Picture), outcome

    def batch(self) -> None:
        self._runner.run(self._all(self._charts.some()))

    async def _all(self, svgs: Sequence[str]) -> None:
        for outcome in await asyncio.gather(*(self.pool.render(svg) for svg in svgs)):
            assert isinstance(outcome, Picture), outcome

    def milliseconds(self, svg: str) -> float:
        began = time.perf_counter()
        self._runner.run(self._all([svg]))
        return (time.perf_counter() - began) * 1000


def measured(effort: Effort) -> Iterator[Figure]:
    rivals: dict[str, Draw] = {}
    missing: dict[str, str] = {}
    for name, make in RIVALS.items():
        try:
            rivals[name] = make()
        except NotHere as error:
            missing[name] = str(error)
    unguarded = Unguarded()
    try:
        with asyncio.Runner() as runner:
            for size in SIZES:
                yield from _at(runner, size, effort, rivals, unguarded)
    finally:
        unguarded.close()
    for name, why in missing.items():
        yield Figure(f"render_vs_{name}".lower(), None, "pictures/s", name, None, why)


def _at(
    runner: asyncio.Runner,
    size: int,
    effort: Effort,
    rivals: Mapping[str, Draw],
    unguarded: Unguarded,
) -> Iterator[Figure]:
    stack, charts = AsyncExitStack(), Charts()
    config = RendererConfig(size=size, wall_seconds=60.0, structure=False)

    async def opened() -> dict[str, RenderPool]:
        pools = {
            f"{prefix}{count}": RenderPool(
                replace(config, engine=engine, children=count), cached_mib=0
            )
            for prefix, engine in ENGINES.items()
            for count in (1, 2)
        }
        await asyncio.gather(*(stack.enter_async_context(pool) for pool in pools.values()))
        return pools

    def next_by(draw: Draw) -> None:
        draw(charts.next(), size)

    async def unguarded_one(name: str) -> None:
        await unguarded.draw(name, charts.next(), size)

    try:
        pools = runner.run(opened())
        children = {name: Guarded(runner, pool, charts) for name, pool in pools.items()}
        drawn_bare = {prefix: bare(engine) for prefix, engine in ENGINES.items()}
        alone = {f"{prefix}bare": draw for prefix, draw in drawn_bare.items()}
        alone |= {"call": call(), **rivals}
        ways = {
            name: in_lanes(runner, guarded.one, len(guarded.pool.pids))
            for name, guarded in children.items()
        }
        ways |= {name: one_by_one(partial(next_by, draw)) for name, draw in alone.items()}
        ways |= {
            f"two {name}": in_lanes(runner, partial(unguarded_one, name), 2)
            for name in ("resvg-py", *rivals)
        }
        for way in ways.values():
            way(0.0)  # the first picture takes longer
        found = rates(ways, effort.seconds, effort.turns)
        yield from _rates(size, found, rivals)
        yield from _costs(size, found)
        yield from _empty_pages(size, alone["call"], rivals, effort.latencies)
        for prefix in ENGINES:
            yield from _latencies(
                f"render_{size}_{prefix}",
                children[f"{prefix}1"],
                drawn_bare[prefix],
                charts,
                size,
                effort.latencies,
            )
            yield _cpu(
                f"render_{size}_{prefix}",
                children[f"{prefix}2"],
                drawn_bare[prefix],
                charts,
                size,
                effort.latencies,
            )
        if size == SIZES[0]:
            yield _structure(charts, found["bare"])
            yield _cached(runner, size, charts)
        for prefix in ENGINES:
            yield _memory(f"render_{size}_{prefix}", pools[f"{prefix}2"], config.memory_mib)
    finally:
        runner.run(stack.aclose())


def _rates(size: int, found: Mapping[str, float], rivals: Mapping[str, Draw]) -> Iterator[Figure]:
    for prefix in ENGINES:
        start, alone = f"render_{size}_{prefix}", found[f"{prefix}bare"]
        yield Figure(f"{start}one_child", found[f"{prefix}1"], "pictures/s", BARE, alone)
        yield Figure(f"{start}two_children", found[f"{prefix}2"], "pictures/s", BARE, alone, busy())
        for name in rivals:
            figure = f"{start}vs_{name}".lower()
            yield Figure(figure, found[f"{prefix}1"], "pictures/s", name, found[name], "one child")
            twice, figure = f"{name}, two at once", f"{start}two_vs_{name}".lower()
            two, rival = found[f"{prefix}2"], found[f"two {name}"]
            yield Figure(figure, two, "pictures/s", twice, rival, "two children")


def _costs(size: int, found: Mapping[str, float]) -> Iterator[Figure]:
    """What all guards cost the default engine."""
    note, suffix = f"two children, {size} pixels, {busy()}", f"_{size}" * (size != SIZES[0])
    for name, against, rival in (
        ("guarded_vs_bare", f"twice {BARE}", 2 * found["bare"]),
        ("guarded_vs_bare_processes", f"{BARE} in two processes", found["two resvg-py"]),
        ("guarded_vs_bare_call", "twice the engine's one call", 2 * found["call"]),
    ):
        yield Figure(name + suffix, found["2"], "pictures/s", against, rival, note)


def _empty_pages(
    size: int, engine: Draw, rivals: Mapping[str, Draw], count: int
) -> Iterator[Figure]:
    """What the engine's one call and rsvg-convert take before anything is drawn."""
    if "rsvg-convert" not in rivals:
        return
    pages = {f"render_{size}_blank": (size, "an empty page: start, fonts and PNG alone")}
    if size == SIZES[0]:
        pages["render_start"] = (8, "an empty page of 8 pixels: start and fonts alone")
    for name, (side, note) in pages.items():
        taken: dict[Draw, list[float]] = {engine: [], rivals["rsvg-convert"]: []}
        for _ in range(count):
            for draw, found in taken.items():
                began = time.perf_counter()
                draw(EMPTY, side)
                found.append((time.perf_counter() - began) * 1000)
        value, rival = (percentile(found, 0.5) for found in taken.values())
        yield Figure(name, value, "ms", "rsvg-convert", rival, f"the engine's one call, {note}")


def _latencies(
    start: str, one: Guarded, engine: Draw, charts: Charts, size: int, count: int
) -> Iterator[Figure]:
    guarded, plain = [], []
    for _ in range(count):
        svg = charts.next()
        guarded.append(one.milliseconds(svg))
        began = time.perf_counter()
        engine(svg, size)
        plain.append((time.perf_counter() - began) * 1000)
    note = f"{count} pictures, one after the other"
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        value, rival = percentile(guarded, share), percentile(plain, share)
        yield Figure(f"{start}{name}", value, "ms", BARE, rival, note)


def _cpu(start: str, two: Guarded, engine: Draw, charts: Charts, size: int, count: int) -> Figure:
    batches = max(1, count // BATCH)
    before = _spent(two.pool)
    for _ in range(batches):
        two.batch()
    guarded, before = _spent(two.pool) - before, time.process_time()
    for _ in range(batches * BATCH):
        engine(charts.next(), size)
    bare_ms, guarded_ms = (
        1000 * seconds / (batches * BATCH) for seconds in (time.process_time() - before, guarded)
    )
    return Figure(f"{start}cpu", guarded_ms, "ms", BARE, bare_ms, "processor time a picture")


def _spent(pool: RenderPool) -> float:
    """Seconds of processor time of this process and the pool's children, threads included."""
    clocks = [(~pid << 3) | 2 for pid in pool.pids]  # Linux: the clock of another process
    return time.process_time() + sum(map(time.clock_gettime, clocks))


def _structure(charts: Charts, bare_rate: float) -> Figure:
    """What `renderer.structure` costs a picture more; it is off in all other figures."""
    taken = []
    for svg in charts.some():
        began = time.perf_counter()
        structure(svg)
        taken.append((time.perf_counter() - began) * 1000)
    against = f"{BARE} at {SIZES[0]} pixels"
    return Figure("render_structure", percentile(taken, 0.5), "ms", against, 1000 / bare_rate)


def _cached(runner: asyncio.Runner, size: int, charts: Charts) -> Figure:
    """A picture seen before, many times within one turn of the loop's start."""

    async def cached() -> list[float]:
        async with RenderPool(RendererConfig(size=size, wall_seconds=60.0)) as pool:
            svg = charts.next()
            await pool.render(svg)
            taken = []
            for _ in range(300):
                began = time.perf_counter()
                await pool.render(svg)
                taken.append((time.perf_counter() - began) * 1000)
            return taken

    p50 = percentile(runner.run(cached()), 0.5)
    return Figure("render_cached_p50", p50, "ms", "the limit of 0.1 ms", CACHED_LIMIT_MS)


def _memory(start: str, pool: RenderPool, limit_mib: int) -> Figure:
    peaks = []
    for pid in pool.pids:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        peaks += [int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM")]
    limit = limit_mib * (1 << 20) / 1e6
    return Figure(f"{start}child_memory", max(peaks, default=0.0), "MB", "its limit", limit)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="benchmark of the renderer")
    parser.add_argument("--quick", action="store_true", help="within 45 seconds, rougher")
    options = parser.parse_args(argv)
    for figure in measured(QUICK if options.quick else FULL):
        print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
