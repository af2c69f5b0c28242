"""Rates of drawing in a steady state: one after the other, or in lanes that never wait for work.

A batch that is waited for as a whole leaves lanes idle at its end, which a worker with work in
hand never does; so only the time counts in which every lane has more to draw.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from statistics import median

Way = Callable[[float], float]  # draws for about so many seconds: pictures a second
ASKED = 2  # for at once, a lane: one is drawn, the next one waits


def one_by_one(draw: Callable[[], object]) -> Way:
    def way(seconds: float) -> float:
        done, began = 0, time.perf_counter()
        while (passed := time.perf_counter() - began) < seconds or not done:
            draw()
            done += 1
        return done / passed

    return way


def in_lanes(runner: asyncio.Runner, ask: Callable[[], Awaitable[object]], lanes: int) -> Way:
    return lambda seconds: runner.run(_steadily(ask, lanes, seconds))


async def _steadily(ask: Callable[[], Awaitable[object]], lanes: int, seconds: float) -> float:
    ends: list[float] = []
    over = time.perf_counter() + seconds

    async def one_after_the_other() -> None:
        while time.perf_counter() < over or len(ends) < 2 * lanes:
            await ask()
            ends.append(time.perf_counter())

    async with asyncio.TaskGroup() as group:
        for _ in range(ASKED * lanes):
            group.create_task(one_after_the_other())
    return steady(ends, over, lanes)


def steady(ends: Sequence[float], over: float, lanes: int) -> float:
    """Pictures a second between the end of each lane's first one and the last end before `over`;
    of twice as many as lanes at least."""
    first, last = lanes - 1, max(2 * lanes, sum(end <= over for end in ends)) - 1
    return (last - first) / (ends[last] - ends[first])


def rates(ways: Mapping[str, Way], seconds: float, turns: int) -> dict[str, float]:
    """The median of each way's turns; ways take turns, so that what else goes on slows all."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            found[name].append(way(seconds / turns))
    return {name: median(measured) for name, measured in found.items()}
