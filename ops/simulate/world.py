"""Virtual time: a queue of what happens when, and the log server as one machine that takes time.

The server's code is the real one and runs as it is; how long a turn takes in virtual time is what
`Costs` says of the messages in it, so that a simulation is the same on every machine.
"""

import heapq
import itertools
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog

from mmzero_async.config import Config
from mmzero_async.log.where import Where
from mmzero_async.log.writer import LogWriter
from mmzero_async.ops.simulate.line import VirtualLine
from mmzero_async.projections.dispatcher import PipelineDispatcher
from mmzero_async.schemas.events import WorkerLeft
from mmzero_async.transport import messages as m
from mmzero_async.transport.server import LogServer

EPOCH = 1_767_225_600.0  # unix seconds of virtual time 0: 2026-01-01
IDLE_SECONDS = 0.05  # the server's own patience with silence


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of the log server, and of the way to it."""

    commit: float = 2e-3  # a group commit, synced
    message: float = 6e-5  # a message, with all that follows from it
    latency: float = 2e-4  # one way


class Actor(Protocol):
    def hear(self, message: m.ToWorker) -> None:
        """What the server says to this connection."""


@dataclass
class World:
    """`at` schedules, `run` lets time pass. Close it."""

    config: Config
    folder: Path
    costs: Costs
    now: float = 0.0
    busy: float = 0.0  # virtual seconds in which the server worked
    cpu: float = 0.0  # real processor seconds of this machine that its code took
    turns: int = 0
    actors: dict[bytes, Actor] = field(default_factory=dict)
    _queue: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _ties: "itertools.count[int]" = field(default_factory=itertools.count)
    _free_at: float = 0.0
    _turning: bool = False

    def __post_init__(self) -> None:
        self.line = VirtualLine()
        quiet = structlog.wrap_logger(None, processors=[_drop])
        self.writer = LogWriter(
            self.folder / "log",
            run=self.folder.name,
            sync="nosync",
            clock=lambda: int((EPOCH + self.now) * 1e9),
        )
        self.dispatcher = PipelineDispatcher(self.config, clock=lambda: EPOCH + self.now)
        self.server = LogServer(
            self.writer,
            self.dispatcher,
            self.config.log,
            self.config.digest(),
            quiet,
            clock=lambda: self.now,
            line=self.line,
        )
        self.at(0.0, self._tick)

    def close(self) -> None:
        self.writer.close()

    def at(self, delay: float, what: Callable[[], None]) -> None:
        """Happens so many virtual seconds from now; of two at one time, the first said first."""
        heapq.heappush(self._queue, (self.now + delay, next(self._ties), what))

    def say(self, identity: bytes, message: m.Message, blobs: list[bytes] | None = None) -> None:
        """A message on its way to the server."""
        frames = [m.encode(message), *(blobs or [])]
        self.at(self.costs.latency, lambda: self._arrived(identity, frames))

    def run(self, until: float, done: Callable[[], bool] = lambda: False) -> None:
        while self._queue and self._queue[0][0] <= until and not done():
            self.now, _, what = heapq.heappop(self._queue)
            what()

    def departures(self) -> list[tuple[str, float]]:
        """(worker, virtual seconds) of every worker that the log says has left."""
        where = Where(kinds=("worker_left",))
        found = []
        for record in self.writer.reader().scan(where=where):
            event = record.event()
            if isinstance(event, WorkerLeft):
                found.append((event.worker, record.envelope.time_ns / 1e9 - EPOCH))
        return found

    # --- the server as a machine ---------------------------------------------------------------

    def _arrived(self, identity: bytes, frames: list[bytes]) -> None:
        if identity not in self.line.cut:
            self.line.inbox.append((identity, frames))
            self._turn_soon()

    def _tick(self) -> None:
        self._turn_soon()
        self.at(IDLE_SECONDS, self._tick)

    def _turn_soon(self) -> None:
        if not self._turning:
            self._turning = True
            self.at(max(0.0, self._free_at - self.now), self._turn)

    def _turn(self) -> None:
        self._turning = False
        offset, received = self.writer.next_offset, self.line.received
        began = time.process_time()
        self.server.turn()
        self.cpu += time.process_time() - began
        self.turns += 1
        said, self.line.outbox = self.line.outbox, []
        took = self.costs.message * (self.line.received - received)
        if self.writer.next_offset > offset:
            took += self.costs.commit
        self._free_at, self.busy = self.now + took, self.busy + took
        for identity, frames in said:
            self._deliver(took + self.costs.latency, identity, frames[0])
        if self.line.inbox:
            self._turn_soon()

    def _deliver(self, delay: float, identity: bytes, frame: bytes) -> None:
        def heard() -> None:
            actor = self.actors.get(identity)
            if actor is not None:
                actor.hear(m.decode_to_worker(frame))

        self.at(delay, heard)


def _drop(logger: object, method: str, told: MutableMapping[str, object]) -> str:
    raise structlog.DropEvent
