"""How a run that goes on is shown: a table that stands still on a terminal, else lines.

Both take the same two things, what is said and how far the run is, so that nothing else asks which
of them it has. A terminal is one that can move its cursor; `NO_COLOR` is kept by rich.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.live import Live

from mmzero_async.config import Config
from mmzero_async.ops import view
from mmzero_async.projections.report import Report
from mmzero_async.schemas.events import ROLES, Role

PLAIN_SECONDS = 30.0  # between two lines of a run in which no step is made


class Display(Protocol):
    def say(self, text: str) -> None:
        """One line for people, which stays."""
        ...

    def progress(self, report: Report, running: float) -> None:
        """How far the run is; `running`: seconds of generating and learning."""
        ...


class Lines:
    """A line when a step was made, and every half minute."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic):
        self._say, self._clock = say, clock
        self._steps: dict[Role, int] | None = None
        self._said = 0.0

    def say(self, text: str) -> None:
        self._say(text)

    def progress(self, report: Report, running: float) -> None:
        steps = {role: report.pipeline.policies.step[role] for role in ROLES}
        if steps != self._steps or self._clock() - self._said >= PLAIN_SECONDS:
            self._steps, self._said = steps, self._clock()
            self._say(view.plain(report, running))


class Table:
    """The table below, what is said above it."""

    def __init__(self, live: Live, config: Config) -> None:
        self._live, self._config = live, config

    def say(self, text: str) -> None:
        self._live.console.print(text, markup=False, soft_wrap=True)

    def progress(self, report: Report, running: float) -> None:
        self._live.update(view.table(report, self._config, running, time.time()), refresh=True)


def on_terminal(console: Console) -> bool:
    """Whether a table can stand still there; what is forced to be colourful need be no terminal."""
    return console.is_terminal and not console.is_dumb_terminal and sys.stdout.isatty()


@contextmanager
def display(console: Console, config: Config, say: Callable[[str], None]) -> Iterator[Display]:
    """The table on a terminal, gone when the block ends; else `say`'s lines."""
    if not on_terminal(console):
        yield Lines(say)
        return
    # No refreshing by itself: a thread of rich's would draw between two figures of one moment.
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield Table(live, config)
