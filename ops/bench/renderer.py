"""`just bench renderer`: pictures a second in guarded children, beside the engine called bare.

    python -m mmzero_async.ops.bench.renderer           some two minutes
    python -m mmzero_async.ops.bench.renderer --quick   within 45 seconds, rougher

One JSON line a figure, for charts of about 3 KB at 448, 768 and 1024 pixels. All ways of drawing
take turns, so that a busy machine slows all of them alike; rivals that are not installed say so.
`guarded_vs_bare` is one child against the bare engine at 448 pixels: what the guard costs.
"""

import argparse
import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from msgspec.structs import replace

from mmzero_async.config import RendererConfig
from mmzero_async.ops.bench.charts import chart
from mmzero_async.ops.bench.drawers import Draw, NotHere, bare, busy, cairosvg, rsvg_convert
from mmzero_async.ops.bench.figures import Figure, percentile, rates
from mmzero_async.rendering.outcomes import Picture
from mmzero_async.rendering.pool import RenderPool

SIZES = (448, 768, 1024)
BATCH = 4  # pictures asked for at once
TURNS = 3
QUICK = 0.12  # of the time that each measurement takes otherwise
SECONDS = 4.0  # a way of drawing and size
CACHED_LIMIT_MS = 0.1  # for a picture that was seen before
RIVALS: dict[str, Callable[[], Draw]] = {"CairoSVG": cairosvg, "rsvg-convert": rsvg_convert}


class Charts:
    """Charts that nobody has drawn before."""

    def __init__(self) -> None:
        self._number = 0

    def next(self) -> str:
        self._number += 1
        return chart(self._number)


class Guarded:
    """A pool of children and the loop that it lives in."""

    def __init__(self, runner: asyncio.Runner, pool: RenderPool, charts: Charts) -> None:
        self._runner, self.pool, self._charts = runner, pool, charts

    def batch(self) -> int:
        svgs = [self._charts.next() for _ in range(BATCH)]
        self._runner.run(self._all(svgs))
        return BATCH

    async def _all(self, svgs: Sequence[str]) -> None:
        for outcome in await asyncio.gather(*(self.pool.render(svg) for svg in svgs)):
            assert isinstance(outcome, Picture), outcome

    def milliseconds(self, svg: str) -> float:
        began = time.perf_counter()
        self._runner.run(self._all([svg]))
        return (time.perf_counter() - began) * 1000


def measured(scale: float) -> Iterator[Figure]:
    rivals: dict[str, Draw] = {}
    missing: dict[str, str] = {}
    for name, make in RIVALS.items():
        try:
            rivals[name] = make()
        except NotHere as error:
            missing[name] = str(error)
    with asyncio.Runner() as runner:
        for size in SIZES:
            yield from _at(runner, size, scale, rivals)
    for name, why in missing.items():
        yield Figure(f"render_vs_{name}".lower(), None, "pictures/s", name, None, why)


def _at(
    runner: asyncio.Runner, size: int, scale: float, rivals: dict[str, Draw]
) -> Iterator[Figure]:
    stack, charts, engine = AsyncExitStack(), Charts(), bare()
    config = RendererConfig(size=size, wall_seconds=60.0)

    def guarded(children: int) -> Guarded:
        pool = RenderPool(replace(config, children=children), cached_mib=0)
        return Guarded(runner, runner.run(stack.enter_async_context(pool)), charts)

    one, two = guarded(1), guarded(2)
    try:

        def plain(draw: Draw) -> Callable[[], int]:
            def step() -> int:
                for _ in range(BATCH):
                    draw(charts.next(), size)
                return BATCH

            return step

        steps = {"bare": plain(engine), "one": one.batch, "two": two.batch}
        steps |= {name: plain(draw) for name, draw in rivals.items()}
        for step in steps.values():
            step()  # the first picture takes longer
        found = rates(steps, SECONDS * scale, TURNS)
        against = "the same engine called bare"
        yield Figure(f"render_{size}_one_child", found["one"], "pictures/s", against, found["bare"])
        yield Figure(
            f"render_{size}_two_children",
            found["two"],
            "pictures/s",
            against,
            found["bare"],
            busy(),
        )
        for name in rivals:
            figure = f"render_{size}_vs_{name}".lower()
            yield Figure(figure, found["one"], "pictures/s", name, found[name], "one child")
        yield from _latencies(one, engine, charts, size, scale)
        if size == SIZES[0]:
            note = f"one child, {size} pixels, {busy()}"
            yield Figure(
                "guarded_vs_bare", found["one"], "pictures/s", against, found["bare"], note
            )
            yield _cached(runner, size, charts)
        yield _memory(two.pool, size, config.memory_mib)
    finally:
        runner.run(stack.aclose())


def _latencies(
    one: Guarded, engine: Draw, charts: Charts, size: int, scale: float
) -> Iterator[Figure]:
    count = max(12, round(120 * scale))
    guarded, plain = [], []
    for _ in range(count):
        svg = charts.next()
        guarded.append(one.milliseconds(svg))
        began = time.perf_counter()
        engine(svg, size)
        plain.append((time.perf_counter() - began) * 1000)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        yield Figure(
            f"render_{size}_{name}",
            percentile(guarded, share),
            "ms",
            "the same engine called bare",
            percentile(plain, share),
            f"{count} pictures, one after the other",
        )


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


def _memory(pool: RenderPool, size: int, limit_mib: int) -> Figure:
    peaks = []
    for pid in pool.pids:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        peaks += [int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM")]
    limit = limit_mib * (1 << 20) / 1e6
    return Figure(f"render_{size}_child_memory", max(peaks, default=0.0), "MB", "its limit", limit)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="benchmark of the renderer")
    parser.add_argument("--quick", action="store_true", help="within 45 seconds, rougher")
    options = parser.parse_args(argv)
    for figure in measured(QUICK if options.quick else 1.0):
        print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
