"""Figures over a run of any length in bounded memory: what is old becomes coarser, never longer."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

ROWS = 512  # of a table, at most
COLUMNS = 64
BINS = 240  # of a histogram over time
MINUTE = 60


@dataclass(slots=True)
class Row:
    """Steps [first, last] as one: sums, so that rows can be joined without losing weight."""

    first: int
    last: int
    offset: int  # of the last step's event
    steps: int = 1
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def join(self, other: "Row") -> None:
        self.last, self.offset = other.last, other.offset
        self.steps += other.steps
        for name, value in other.sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + other.counts[name]

    def mean(self, name: str) -> float | None:
        """None where no step of the row has the figure."""
        count = self.counts.get(name, 0)
        return self.sums[name] / count if count else None


class Table:
    """Named figures of one role, a row a step; of a long run a row is the mean of several."""

    def __init__(self, rows: int = ROWS, columns: int = COLUMNS) -> None:
        self.rows: list[Row] = []
        self.stride = 1  # steps a row
        self._most, self._columns = rows, columns
        self._names: dict[str, None] = {}

    def add(self, step: int, offset: int, values: Mapping[str, float]) -> None:
        """Figures that are no numbers, and names beyond the bound, are left out."""
        row = Row(step, step, offset)
        for name, value in values.items():
            if value == value and abs(value) != float("inf") and self._known(name):
                row.sums[name], row.counts[name] = float(value), 1
        if self.rows and self.rows[-1].steps < self.stride:
            self.rows[-1].join(row)
        else:
            self.rows.append(row)
        if len(self.rows) > self._most:
            self._halve()

    def figures(self) -> dict[str, list[float | None] | list[int]]:
        """Columns of one length: `step` and `offset`, and each figure's means."""
        found: dict[str, list[float | None] | list[int]] = {
            "step": [row.last for row in self.rows],
            "offset": [row.offset for row in self.rows],
        }
        return found | {name: [row.mean(name) for row in self.rows] for name in self._names}

    def _known(self, name: str) -> bool:
        if len(self._names) < self._columns:
            self._names[name] = None
        return name in self._names

    def _halve(self) -> None:
        self.stride *= 2
        joined: list[Row] = []
        for row in self.rows:
            if joined and joined[-1].steps + row.steps <= self.stride:
                joined[-1].join(row)
            else:
                joined.append(row)
        self.rows = joined


@dataclass(slots=True)
class Means:
    """Means of what came since `take`."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, values: Iterable[float]) -> None:
        for value in values:
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        found = {name: total / self.counts[name] for name, total in self.sums.items()}
        self.sums.clear()
        self.counts.clear()
        return found


class Rate:
    """Events of one stage: in the last minute, and over the whole run in at most `BINS` bins."""

    def __init__(self) -> None:
        self.total = 0
        self._recent: deque[tuple[int, int]] = deque()  # (second, events), a minute of them
        self._first: int | None = None
        self._width = 1  # seconds a bin
        self._bins: list[int] = []

    def add(self, seconds: float) -> None:
        """`seconds`: when, unix time. A clock that jumped back counts as now."""
        second = int(seconds)
        if self._recent and second <= self._recent[-1][0]:
            last, count = self._recent.pop()
            self._recent.append((last, count + 1))
        else:
            self._recent.append((second, 1))
            while self._recent[0][0] <= second - MINUTE:
                self._recent.popleft()
        self.total += 1
        self._count(second)

    def a_minute(self, now: float) -> int:
        """Events of the 60 s before `now`."""
        return sum(count for second, count in self._recent if now - MINUTE < second <= now)

    def bins(self) -> tuple[int | None, int, list[int]]:
        """When the first bin begins (None: nothing came), seconds a bin, events in each."""
        return self._first, self._width, self._bins

    def _count(self, second: int) -> None:
        if self._first is None:
            self._first = second
        place = max(0, second - self._first) // self._width
        while place >= BINS:  # a clock that jumped by years takes as many turns as it has bits
            self._width *= 2
            self._bins = [sum(self._bins[i : i + 2]) for i in range(0, len(self._bins), 2)]
            place //= 2
        self._bins.extend([0] * (place + 1 - len(self._bins)))
        self._bins[place] += 1


class Thinned:
    """Moments in order, at most `most`: when there are more, every second one goes."""

    def __init__(self, most: int = 256) -> None:
        self.kept: list[tuple[int, int]] = []
        self._most, self._every, self._seen = most, 1, 0

    def add(self, number: int, offset: int) -> None:
        if self._seen % self._every == 0:
            self.kept.append((number, offset))
        self._seen += 1
        if len(self.kept) > self._most:
            self.kept = self.kept[::2]
            self._every *= 2
