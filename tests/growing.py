"""A run's log that somebody writes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmzero_async.log.writer import LogWriter, Submission
from mmzero_async.schemas.events import Event, encode_event, kind_of


class Growing:
    def __init__(self, run: Path, producer: str = "late") -> None:
        self.writer = LogWriter(run / "log", run=run.name, map_gib=1)
        self.producer, self.count = producer, 0

    def say(self, *events: Event) -> None:
        for event in events:
            body = encode_event(event)
            submission = Submission(self.producer, 1, self.count, kind_of(event), body, {})
            assert not isinstance(self.writer.append([[submission]])[0], Exception)
            self.count += 1


@contextmanager
def growing_log(run: Path, producer: str = "late") -> Iterator[Growing]:
    growing = Growing(run, producer)
    try:
        yield growing
    finally:
        growing.writer.close()
