"""A figure and its rival, as one JSON line. Knows nothing of what is measured."""

import json
import math
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Figure:
    """Its line's `ratio` is value / rival: above 1 is good for rates, bad for times and memory."""

    figure: str
    value: float | None  # None: not measured, `note` says why
    unit: str
    against: str  # the rival or the limit
    rival: float | None  # what it did, in the same unit and the same run
    note: str = ""

    def line(self) -> str:
        told = {key: value for key, value in asdict(self).items() if value != ""}
        told["ratio"] = None
        if self.value is not None and self.rival:
            told["ratio"] = significant(self.value / self.rival)
        for key in ("value", "rival"):
            told[key] = told[key] if told[key] is None else significant(told[key])
        return json.dumps(told)


def significant(value: float, digits: int = 3) -> float:
    """`123456.7` -> 123000.0: no figure here is good for more digits."""
    if not value or not math.isfinite(value):
        return 0.0
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))


def rates(steps: Mapping[str, Callable[[], int]], seconds: float, turns: int) -> dict[str, float]:
    """What each step does a second, called for about so many seconds: the median of its turns.

    The steps take turns, so that what else goes on slows all of them; the median leaves out a turn
    in which another process had the disk or the processor.
    """
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(turns):
        for name, step in steps.items():
            done, began = 0, time.perf_counter()
            while (passed := time.perf_counter() - began) < seconds / turns or not done:
                done += step()
            found[name].append(done / passed)
    return {name: median(measured) for name, measured in found.items()}


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def endlessly(items: Sequence[T]) -> Iterator[T]:
    while True:
        yield from items


def peak_bytes() -> int:
    """Of this process's resident memory, so far; pages of mapped files are in it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
