"""A figure and its rival, as one JSON line. Knows nothing of what is measured."""

import json
import math
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Figure:
    """Its line's `ratio` is value / rival: above 1 is good for rates, bad for times and memory."""

    figure: str
    value: float
    unit: str
    against: str  # the rival or the limit
    rival: float  # what it did, in the same unit and the same run
    note: str = ""

    def line(self) -> str:
        told = {key: value for key, value in asdict(self).items() if value != ""}
        told["ratio"] = significant(self.value / self.rival) if self.rival else None
        told["value"], told["rival"] = significant(self.value), significant(self.rival)
        return json.dumps(told)


def significant(value: float, digits: int = 3) -> float:
    """`123456.7` -> 123000.0: no figure here is good for more digits."""
    if not value or not math.isfinite(value):
        return 0.0
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))


def rate(step: Callable[[], int], seconds: float) -> tuple[int, float]:
    """How much a step did, called for so many seconds, and the seconds that it really took."""
    done, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds or not done:
        done += step()
    return done, passed


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def endlessly(items: Sequence[T]) -> Iterator[T]:
    while True:
        yield from items


def peak_bytes() -> int:
    """Of this process's resident memory, so far; pages of mapped files are in it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
