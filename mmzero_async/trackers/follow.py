"""The follower: reads a log as any other reader does, and hands a tracker what it does not have.

No position is kept: at a start the few kinds of events that have figures are read anew, which the
log's index finds, and what the tracker has already is left out by its own word.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmzero_async.filelock import FileLock, LockHeld
from mmzero_async.log.interface import Reader
from mmzero_async.log.where import Where
from mmzero_async.tracker_options import TrackerKind
from mmzero_async.trackers.online import Online
from mmzero_async.trackers.port import Point, Tracker, TrackerUnusable
from mmzero_async.trackers.series import KINDS, Series

FOLDER = "tracker"  # in the run's folder
WANTED = Where(kinds=(*KINDS, "run_finished"))


@contextmanager
def opened(kind: TrackerKind, run_dir: Path, project: str) -> Iterator[Tracker]:
    """TrackerUnusable where its program is not installed, where there is none to open, or where
    another process follows the run already: two would show everything twice."""
    folder = run_dir / FOLDER
    try:
        lock = FileLock(folder / f"{kind}.lock")
    except LockHeld as error:
        raise TrackerUnusable(
            f"process {error.holder} shows {run_dir} in {kind} already: leave it to that one"
        ) from None
    try:
        tracker = _open(kind, folder, project, run_dir.name)
        try:
            yield tracker
        finally:
            tracker.close()
    finally:
        lock.release()


def _open(kind: TrackerKind, folder: Path, project: str, run: str) -> Tracker:
    match kind:
        case "tensorboard":
            from mmzero_async.trackers.tensorboard import TensorBoard

            return TensorBoard(folder / "tensorboard")
        case "wandb" | "trackio":
            return Online(kind, folder, project=project, run=run)
        case _:
            raise TrackerUnusable(
                "tracker.kind is none: choose tensorboard, wandb or trackio (docs/TRACKERS.md)"
            )


class Follower:
    """Hands on every point once, whatever the tracker had when it was opened."""

    def __init__(self, reader: Reader, tracker: Tracker) -> None:
        self._reader, self._tracker = reader, tracker
        self._series = Series()
        self._newest = dict(tracker.newest())
        self._next = 0
        self.finished = False  # the run is
        self.logged = 0  # points

    def catch_up(self) -> None:
        """All that is committed now."""
        before = self.logged
        end = self._reader.next_offset
        for record in self._reader.scan(self._next, end, WANTED):
            self.finished = self.finished or record.kind == "run_finished"
            if points := [point for point in self._series.apply(record) if self._is_new(point)]:
                self._tracker.log(points)
                self.logged += len(points)
        self._next = end
        if self.logged != before:
            self._tracker.flush()

    async def follow(self, stopping: Callable[[], bool], *, every: float = 1.0) -> None:
        """Until the run is finished or somebody asks to stop; then all that is there."""
        while not (self.finished or stopping()):
            await asyncio.to_thread(self.catch_up)
            if not self.finished:
                await asyncio.sleep(every)
        await asyncio.to_thread(self.catch_up)

    def _is_new(self, point: Point) -> bool:
        if point.step <= self._newest.get(point.series, -1):
            return False
        self._newest[point.series] = point.step
        return True
