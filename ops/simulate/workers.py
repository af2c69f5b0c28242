"""Simulated workers: they say what a real worker says, and work as long as a real one did."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from mmzero_async.ops.simulate.events import Author
from mmzero_async.ops.simulate.times import StageTimes
from mmzero_async.ops.simulate.world import World
from mmzero_async.schemas.events import encode_event, kind_of
from mmzero_async.schemas.work import STAGE_ROLE, Stage, Work
from mmzero_async.transport import messages as m


@dataclass
class SimWorker:
    """One worker process with so many hands. `die` is a kill -9: nobody is told."""

    world: World
    name: str
    stage: Stage
    hands: int
    times: StageTimes
    author: Author
    rng: random.Random
    worked: float = 0.0  # seconds, summed over its hands
    done: int = 0
    lost: int = 0  # pieces in hand when it died
    _life: int = 0
    _identity: bytes = b""
    _sequence: int = 0
    _epoch: int = 0
    _in_hand: dict[str, float] = field(default_factory=dict)  # key -> since

    def join(self) -> None:
        self._life += 1
        self._identity = f"{self.name}/{self._life}".encode()
        self._sequence = self._epoch = 0
        self.world.actors[self._identity] = self
        self.world.say(
            self._identity,
            m.Hello(
                worker=self.name,
                incarnation=str(self._life),
                role=STAGE_ROLE[self.stage],
                host=f"host-{self.name}",
                pid=self._life,
                config_digest=self.world.config.digest(),
            ),
        )

    @property
    def alive(self) -> bool:
        return bool(self._identity)

    def die(self, back_after: float) -> None:
        self.world.line.cut.add(self._identity)
        self.world.actors.pop(self._identity, None)
        self.lost += len(self._in_hand)
        self._in_hand.clear()
        self._identity = b""
        self.world.at(back_after, self.join)

    def hear(self, message: m.ToWorker) -> None:
        match message:
            case m.Welcome():
                self._epoch = message.epoch
                self.world.say(self._identity, m.Want(stage=self.stage, slots=self.hands))
                self._beat(self._identity, message.heartbeat_seconds)
            case m.Leased():
                work = message.work
                self._in_hand[work.key] = self.world.now
                self.world.at(self.times.draw(self.rng), self._finishing(work))
            case m.Appended():
                self.world.say(self._identity, m.Want(stage=self.stage, slots=1))
            case _:
                pass

    def _beat(self, identity: bytes, seconds: float) -> None:
        if identity == self._identity:
            self.world.say(identity, m.Heartbeat())
            self.world.at(seconds, lambda: self._beat(identity, seconds))

    def _finishing(self, work: Work) -> Callable[[], None]:
        life = self._life

        def finish() -> None:
            since = self._in_hand.pop(work.key, None)
            if since is None or life != self._life:
                return
            took = self.world.now - since
            self.worked += took
            self.done += 1
            event, blobs = self.author.result(work, took)
            append = m.Append(
                sequence=self._sequence,
                kinds=[kind_of(event)],
                bodies=[encode_event(event)],
                blobs=list(blobs),
            )
            self._sequence += 1
            self.world.say(self._identity, append, list(blobs.values()))

        return finish
