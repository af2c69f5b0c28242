"""What a tracker is to us: it takes points, and says how far it got before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class TrackerUnusable(RuntimeError):
    """A tracker that cannot be used here: what is missing, and what to do."""


@dataclass(frozen=True, slots=True)
class Point:
    """One value of one series; a series' steps only grow."""

    series: str
    step: int
    value: float
    time_ns: int  # of the event that it was taken from


class Tracker(Protocol):
    """TensorBoard, wandb or trackio."""

    def newest(self) -> Mapping[str, int]:
        """The largest step of each series that it has, for good: asked once, before `log`."""
        ...

    def log(self, points: Sequence[Point]) -> None:
        """Takes points of one event, each newer than all of its series before."""
        ...

    def flush(self) -> None:
        """What it took is where it will be found again."""
        ...

    def close(self) -> None: ...
