"""The port between the log server and the projections that know what is due."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from mmzero_async.schemas.events import AnyEvent
from mmzero_async.schemas.flow import Hand, Held, StageFlow
from mmzero_async.schemas.record import Record
from mmzero_async.schemas.work import Stage, Work


class Dispatcher(Protocol):
    """What the log calls for, rebuilt from the log."""

    def admits(self, event: AnyEvent) -> bool:
        """False: the work that the event settles was settled already."""

    def apply(self, record: Record) -> None:
        """A committed record, in offset order."""

    def take(self, stage: Stage) -> Work | None:
        """The next due work, oldest first; the caller now holds it."""

    def give_back(self, key: str) -> None:
        """The holder is gone or failed: due again, if the log still calls for it."""

    def backlog(self) -> dict[str, int]:
        """Open work a stage."""

    def flows(self, held: Mapping[str, Held], hands: Iterable[Hand]) -> list[StageFlow]:
        """What each stage waits for, given who holds which work and who is here."""
