"""A simulated learner: takes windows of ready groups as the real one would, as long as it took."""

import random
from dataclasses import dataclass, field

from mmzero_async.ops.simulate.times import Times
from mmzero_async.ops.simulate.world import World
from mmzero_async.projections.admission import role_learning
from mmzero_async.projections.groups import GroupBook
from mmzero_async.schemas.events import (
    ROLES,
    Event,
    GroupRejected,
    PolicyPublished,
    Role,
    RunStarted,
    StepCommitted,
    encode_event,
    kind_of,
)
from mmzero_async.transport import messages as m

POLL_SECONDS = 0.2  # between two looks at the log
NAME = b"learner-0/1"


@dataclass
class SimLearner:
    world: World
    times: Times
    rng: random.Random
    busy: float = 0.0  # seconds in steps and publishing
    steps: dict[Role, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 0))
    _accepted: dict[Role, list[str]] = field(default_factory=lambda: {r: [] for r in ROLES})
    _judged: dict[Role, set[str]] = field(default_factory=lambda: {r: set() for r in ROLES})
    _sequence: int = 0

    def join(self) -> None:
        self.world.actors[NAME] = self
        self.world.say(
            NAME,
            m.Hello(
                worker="learner-0",
                incarnation="1",
                role="learner",
                host="host-learner",
                pid=1,
                config_digest=self.world.config.digest(),
            ),
        )

    def hear(self, message: m.ToWorker) -> None:
        if isinstance(message, m.Welcome):
            self._append([_run_started(self.world), *(_published(role, 0, 0.0) for role in ROLES)])
            self._beat(message.heartbeat_seconds)
            self.world.at(POLL_SECONDS, self._look)

    def _beat(self, seconds: float) -> None:
        self.world.say(NAME, m.Heartbeat())
        self.world.at(seconds, lambda: self._beat(seconds))

    def _append(self, events: list[Event]) -> None:
        append = m.Append(
            sequence=self._sequence,
            kinds=[kind_of(event) for event in events],
            bodies=[encode_event(event) for event in events],
        )
        self._sequence += len(events)
        self.world.say(NAME, append)

    def _look(self) -> None:
        """Judges what has become ready, which takes a while; begins a step when a window is full,
        and looks again after it, or soon."""
        rejected, count = self._judge(self.world.dispatcher.pipeline.book)
        seconds = count * self.times.judging
        self.busy += seconds

        def judged() -> None:
            if rejected:
                self._append(rejected)
            if not self._begin():
                self.world.at(0.0 if count else POLL_SECONDS, self._look)

        self.world.at(seconds, judged)

    def _judge(self, book: GroupBook) -> tuple[list[Event], int]:
        """Those rejected, and how many were new."""
        rejected: list[Event] = []
        count = 0
        config = self.world.config
        for role in ROLES:
            ready = book.ready[role]
            self._judged[role] &= ready.keys()
            for group in ready.values():
                if group.id in self._judged[role]:
                    continue
                self._judged[role].add(group.id)
                count += 1
                if self.rng.random() < self.times.steps[role].accepted:
                    self._accepted[role].append(group.id)
                else:
                    rejected.append(GroupRejected(role=role, group=group.id, reason="simulated"))
            fresh = []
            for name in self._accepted[role]:
                if self.steps[role] - ready[name].version > config.admission.max_staleness:
                    rejected.append(GroupRejected(role=role, group=name, reason="stale"))
                else:
                    fresh.append(name)
            self._accepted[role] = fresh
        return rejected, count

    def _begin(self) -> bool:
        """A step of the fullest window; False when none is full."""
        learner = self.world.config.learner
        fill = {r: len(self._accepted[r]) / role_learning(learner, r).groups for r in ROLES}
        role = max(fill, key=lambda r: fill[r])
        if fill[role] < 1.0:
            return False
        count = role_learning(learner, role).groups
        groups, self._accepted[role] = self._accepted[role][:count], self._accepted[role][count:]
        times = self.times.steps[role]
        seconds, publish = self.rng.choice(times.seconds), self.rng.choice(times.publish)
        self.busy += seconds + publish

        def committed() -> None:
            self.steps[role] += 1
            self._append([_step(role, self.steps[role], groups, seconds)])

        def published() -> None:
            self._append([_published(role, self.steps[role], publish)])
            self._look()

        self.world.at(seconds, committed)
        self.world.at(seconds + publish, published)
        return True


def _step(role: Role, number: int, groups: list[str], seconds: float) -> StepCommitted:
    return StepCommitted(
        role=role,
        step=number,
        version=number,
        groups=groups,
        offsets=[],
        checkpoint="simulated",
        digest="simulated",
        batch_digest="simulated",
        metrics={"seconds": seconds},
    )


def _published(role: Role, version: int, seconds: float) -> PolicyPublished:
    return PolicyPublished(
        role=role,
        version=version,
        policy=f"{role}@{version}",
        checkpoint="simulated",
        digest="simulated",
        seconds=seconds,
    )


def _run_started(world: World) -> RunStarted:
    return RunStarted(
        run=world.folder.name,
        config=world.config.to_json(),
        config_digest=world.config.digest(),
        base_model="simulated",
        base_digest="",
        seed=world.config.run.seed,
        code_version="simulated",
    )
