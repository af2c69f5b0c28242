"""TensorBoard's own event files, written and read back with its own code; no TensorFlow, no torch.

What it has is what stands in its files, so nothing else needs to be remembered between two starts.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmzero_async.trackers.port import Point, TrackerUnusable


class TensorBoard:
    """Event files in a folder, `tensorboard --logdir` of which shows the run."""

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboard.backend.event_processing import event_file_loader
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise TrackerUnusable(
                f'tracker.kind = "tensorboard" needs TensorBoard ({error}): pip install '
                "'mmzero-async[tensorboard]'"
            ) from error
        self._events, self._summaries = event_pb2, summary_pb2
        self._loader = event_file_loader.LegacyEventFileLoader
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._newest = dict(self._read())
        self._writer: Any = EventFileWriter(str(folder))

    def newest(self) -> Mapping[str, int]:
        return self._newest

    def log(self, points: Sequence[Point]) -> None:
        for step in sorted({point.step for point in points}):
            of_step = [point for point in points if point.step == step]
            values = [
                self._summaries.Summary.Value(tag=point.series, simple_value=point.value)
                for point in of_step
            ]
            self._writer.add_event(
                self._events.Event(
                    wall_time=of_step[0].time_ns / 1e9,
                    step=step,
                    summary=self._summaries.Summary(value=values),
                )
            )

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _read(self) -> Iterator[tuple[str, int]]:
        """Of every file there; one that was torn by a kill ends at its last whole event."""
        newest: dict[str, int] = {}
        for file in sorted(self._folder.glob("*tfevents*")):
            for event in self._loader(str(file)).Load():
                for value in event.summary.value:
                    newest[value.tag] = max(event.step, newest.get(value.tag, 0))
        yield from newest.items()
