"""One simulated cluster: so many workers, balanced over the stages, for so long."""

import contextlib
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

from msgspec.structs import replace

from mmzero_async.config import Config
from mmzero_async.ops.simulate.events import Author
from mmzero_async.ops.simulate.learner import SimLearner
from mmzero_async.ops.simulate.times import Times
from mmzero_async.ops.simulate.workers import SimWorker
from mmzero_async.ops.simulate.world import Costs, World
from mmzero_async.schemas.events import ROLES
from mmzero_async.schemas.work import STAGE_ROLE, STAGES, Stage

WARM_UP = 0.3  # share of the time that is not counted: the pipeline fills


@dataclass(frozen=True, slots=True)
class Plan:
    """What is simulated."""

    config: Config
    times: Times
    workers: Mapping[Stage, int]
    hands: Mapping[Stage, int]  # a worker's
    costs: Costs
    failures_an_hour: float = 0.0  # of a worker
    back_after: float = 30.0  # seconds from its death to its next Hello
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What it came to, after the warm-up; seconds are virtual but for `cpu`."""

    seconds: float
    results: int  # pieces of work whose results are in the log
    worked: float  # seconds, over all hands
    hands: int
    server_busy: float
    learner_busy: float
    steps: Mapping[str, int]
    deaths: int
    lost: int  # pieces that were in the hands of the dead, and were done again
    found_after: list[float] = field(default_factory=list)  # seconds from a death to its discovery
    busy_by_stage: Mapping[Stage, float] = field(default_factory=dict)
    cpu: float = 0.0  # real seconds of the server's code
    messages: int = 0

    @property
    def busy(self) -> float:
        """Share of the workers' hands."""
        return self.worked / (self.hands * self.seconds)


def balanced(
    times: Times, total: int, hands: Mapping[Stage, int], costs: Costs
) -> dict[Stage, int]:
    """Workers a stage, in proportion to the time that one prompt costs it, with the way to the
    server and back; one at least."""
    way = 4 * (costs.commit + costs.latency)  # a turn to wait out and one to be in, twice
    proposals = times.stages["propose"].samples * times.stages["propose"].success
    drawings = proposals * times.stages["code"].samples * times.stages["code"].success
    pictures = drawings * times.stages["render"].success
    pieces = {"propose": 1.0, "code": proposals, "render": drawings, "answer": 2 * pictures}
    load = {s: pieces[s] * (times.stages[s].mean + way) / hands[s] for s in STAGES}
    whole = sum(load.values())
    return {stage: max(1, round(total * load[stage] / whole)) for stage in STAGES}


WIDEST = 64  # versions: so many windows may be open or ready that no group's age holds prompts back


def wide(config: Config, hands: int, times: Times) -> Config:
    """The configuration with windows and admission large enough that so many hands stay busy."""
    answers = times.stages["answer"].mean or 1.0
    scale = max(1, ceil(hands / 8))
    learner = config.learner
    for role in ROLES:
        learning = getattr(learner, role)
        learner = replace(learner, **{role: replace(learning, groups=learning.groups * scale)})
    running = max(config.admission.max_running_groups, ceil(hands / max(1.0, answers)))
    admission = replace(
        config.admission,
        max_running_groups=max(running, 6 * scale),
        max_staleness=max(config.admission.max_staleness, WIDEST),
    )
    log = replace(config.log, credits=max(config.log.credits, 64))
    return replace(config, learner=learner, admission=admission, log=log)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for one simulated log, in memory where there is room for it."""
    shared = Path("/dev/shm")
    roomy = shared.is_dir() and shutil.disk_usage(shared).free > 4 << 30
    with tempfile.TemporaryDirectory(dir=shared if roomy else None) as folder:
        yield Path(folder)


def simulate(plan: Plan, folder: Path, seconds: float) -> Outcome:
    """Runs it in a folder of its own, which then holds a log like any other."""
    rng = random.Random(plan.seed)
    world = World(plan.config, folder, plan.costs)
    try:
        author = Author(plan.times, random.Random(rng.random()))
        learner = SimLearner(world, plan.times, random.Random(rng.random()))
        workers = [
            SimWorker(
                world,
                f"{STAGE_ROLE[stage]}-{i}",
                stage,
                plan.hands[stage],
                plan.times.stages[stage],
                author,
                random.Random(rng.random()),
            )
            for stage in STAGES
            for i in range(plan.workers[stage])
        ]
        learner.join()
        for worker in workers:
            world.at(rng.random(), worker.join)
        deaths = _Deaths(world, plan, random.Random(rng.random()), workers)
        world.run(WARM_UP * seconds)
        before = _counted(world, learner, workers)
        hands = {s: sum(w.hands for w in workers if w.stage == s) for s in STAGES}
        worked = {s: sum(w.worked for w in workers if w.stage == s) for s in STAGES}
        steps = dict(learner.steps)
        world.run(seconds)
        after = _counted(world, learner, workers)
        passed = {name: after[name] - before[name] for name in after}
        return Outcome(
            seconds=(1 - WARM_UP) * seconds,
            results=round(passed["done"]),
            worked=passed["worked"],
            hands=sum(worker.hands for worker in workers),
            server_busy=passed["server"] / ((1 - WARM_UP) * seconds),
            learner_busy=passed["learner"] / ((1 - WARM_UP) * seconds),
            steps={role: learner.steps[role] - steps[role] for role in ROLES},
            deaths=deaths.count,
            lost=sum(worker.lost for worker in workers),
            found_after=deaths.found_after(),
            busy_by_stage={
                s: (sum(w.worked for w in workers if w.stage == s) - worked[s])
                / (hands[s] * (1 - WARM_UP) * seconds)
                for s in STAGES
            },
            cpu=passed["cpu"],
            messages=round(passed["messages"]),
        )
    finally:
        world.close()


def _counted(world: World, learner: SimLearner, workers: list[SimWorker]) -> dict[str, float]:
    return {
        "done": sum(worker.done for worker in workers),
        "worked": sum(worker.worked for worker in workers),
        "server": world.busy,
        "learner": min(learner.busy, world.now),
        "cpu": world.cpu,
        "messages": world.line.received,
    }


class _Deaths:
    """Kills workers at random times, and remembers when."""

    def __init__(
        self, world: World, plan: Plan, rng: random.Random, workers: list[SimWorker]
    ) -> None:
        self.count = 0
        self._world, self._plan, self._rng, self._workers = world, plan, rng, workers
        self._when: list[tuple[str, float]] = []
        if plan.failures_an_hour > 0:
            self._next()

    def _next(self) -> None:
        rate = self._plan.failures_an_hour * len(self._workers) / 3600
        self._world.at(self._rng.expovariate(rate), self._strike)

    def _strike(self) -> None:
        victim = self._rng.choice(self._workers)
        if victim.alive:
            self.count += 1
            self._when.append((victim.name, self._world.now))
            victim.die(self._plan.back_after)
        self._next()

    def found_after(self) -> list[float]:
        """From each death to the event that tells of it; those not yet found are left out."""
        told = self._world.departures()
        found = []
        for name, when in self._when:
            after = [at - when for worker, at in told if worker == name and at >= when]
            if after:
                found.append(min(after))
        return found
