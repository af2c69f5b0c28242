"""A real run's own cluster: what it did while nobody came or went, and what is foreseen of it.

The service times are taken from the same time that is foreseen, so what is compared is everything
else: the log server, leases, admission, the learner and how they wait for each other.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from mmzero_async.config import Config, from_json
from mmzero_async.log.reader import LogReader
from mmzero_async.ops.bench.figures import Figure
from mmzero_async.ops.simulate.cluster import WARM_UP, Outcome, Plan, scratch, simulate
from mmzero_async.ops.simulate.times import Times, observed
from mmzero_async.ops.simulate.world import Costs
from mmzero_async.schemas.events import (
    Answered,
    Coded,
    Proposed,
    Rendered,
    StepCommitted,
    WorkerJoined,
    WorkerLeft,
)
from mmzero_async.schemas.record import Record
from mmzero_async.schemas.work import STAGE_ROLE, STAGES, Stage

SEEDS = 3  # simulations that a prediction is the mean of
MOST_SECONDS = 600.0  # of each
RESULTS = (Proposed, Coded, Rendered, Answered)


@dataclass(frozen=True, slots=True)
class Steady:
    """The longest time in which no worker came or went, without its beginning: the pipeline fills.

    `steps` are of all roles together.
    """

    since_ns: int
    until_ns: int
    workers: Mapping[Stage, int]
    results: int
    steps: int

    @property
    def seconds(self) -> float:
        return (self.until_ns - self.since_ns) / 1e9


def steady(records: Iterable[Record]) -> Steady:
    """ValueError for a run in which no stage ever worked undisturbed."""
    stage_of = {role: stage for stage, role in STAGE_ROLE.items()}
    here: dict[str, Stage] = {}
    calm: list[tuple[int, int, dict[Stage, int]]] = []  # since, until, who was there
    done: list[tuple[int, bool]] = []  # when, and whether it was a step
    since = last = 0
    for record in records:
        event, now = record.event(), record.envelope.time_ns
        match event:
            case WorkerJoined() | WorkerLeft() if event.role in stage_of:
                if since:
                    calm.append((since, last, dict(Counter(here.values()))))
                if isinstance(event, WorkerJoined):
                    here[event.worker] = stage_of[event.role]
                else:
                    here.pop(event.worker, None)
                since = last = now
            case StepCommitted():
                done.append((now, True))
            case _ if isinstance(event, RESULTS):
                done.append((now, False))
                last = now
            case _:
                pass
    if since:
        calm.append((since, last, dict(Counter(here.values()))))
    whole = [each for each in calm if each[2].keys() == set(STAGES)]
    begin, end, workers = max(whole, key=lambda each: each[1] - each[0], default=(0, 0, {}))
    begin += int(WARM_UP * (end - begin))
    counted = [step for when, step in done if begin < when <= end]
    if not counted:
        raise ValueError("the log tells of no time in which every stage worked undisturbed")
    return Steady(begin, end, workers, counted.count(False), counted.count(True))


def hands_of(config: Config) -> dict[Stage, int]:
    """Pieces of work that one worker of each stage has in hand."""
    it = config.workers
    return {
        "propose": it.proposer_in_flight,
        "code": it.coder_in_flight,
        "render": it.renderer_in_flight,
        "answer": it.solver_in_flight,
    }


def predicted(
    config: Config, times: Times, was: Steady, costs: Costs, seed: int
) -> Iterator[Outcome]:
    """The same workers under the same configuration for as long, once a seed."""
    seconds = min(MOST_SECONDS, was.seconds / (1 - WARM_UP))
    for one in range(seed, seed + SEEDS):
        plan = Plan(config, times, was.workers, hands_of(config), costs, seed=one)
        with scratch() as folder:
            yield simulate(plan, folder, seconds)


def prediction(run: Path, costs: Costs, seed: int) -> list[Figure]:
    """Results a second and steps a minute, as foreseen and as they were. ValueError."""
    config = from_json((run / "config.json").read_text())
    reader = LogReader.open(run / "log")
    try:
        was = steady(reader.scan())
        times = observed(reader.scan(), run.name, was.since_ns, was.until_ns)
    finally:
        reader.close()
    found = list(predicted(config, times, was, costs, seed))
    hands = ", ".join(f"{was.workers[stage]} {STAGE_ROLE[stage]}" for stage in STAGES)
    sums = {
        "results": (1.0, fmean(o.results / o.seconds for o in found), was.results),
        "steps": (60.0, fmean(sum(o.steps.values()) / o.seconds for o in found), was.steps),
    }
    return [
        Figure(
            f"simulated_vs_measured_{what}",
            unit * foreseen,
            f"{what}/s" if unit == 1.0 else f"{what}/min",
            "the run itself",
            unit * count / was.seconds,
            note=f"{hands}; {was.seconds:.0f} s, {count} {what}: "
            f"{foreseen * was.seconds / count - 1 if count else 0:+.1%}",
        )
        for what, (unit, foreseen, count) in sums.items()
    ]
