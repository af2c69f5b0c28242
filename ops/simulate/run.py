"""`just simulate`: where one log server saturates, what failures cost, how long the learner waits.

    python -m mmzero_async.ops.simulate.run [--from RUN] [--workers 1000] [--quick]
    python -m mmzero_async.ops.simulate.run --like RUN
    python -m mmzero_async.ops.simulate.run --cluster 240

One JSON line a figure, as the benches print. The server's code is the real one; time is virtual:
for the same seed, times and costs every virtual figure is the same on every machine. Figures that
are this machine's say so.
"""

import argparse
import asyncio
import dataclasses
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

import msgspec
from msgspec.structs import replace

from mmzero_async.config import Config, load
from mmzero_async.log.errors import LogError
from mmzero_async.log.reader import LogReader
from mmzero_async.ops.bench.figures import Figure, percentile
from mmzero_async.ops.simulate.cluster import Outcome, Plan, balanced, scratch, simulate, wide
from mmzero_async.ops.simulate.measured import hands_of, prediction
from mmzero_async.ops.simulate.times import Times, observed, read
from mmzero_async.ops.simulate.world import Costs
from mmzero_async.schemas.work import STAGES

SATURATED = 0.95  # of what the same workers do beside a log server that takes no time
SMALL = 20  # workers of an ordinary cluster
HALVINGS = 3  # of the interval in which a log server saturates
FREE = Costs(commit=0.0, message=0.0)


class Bench:
    """The figures, each from simulations of its own."""

    def __init__(
        self, times: Times, config: Config, costs: Costs, seed: int, seconds: float
    ) -> None:
        self.times, self.config, self.costs = times, config, costs
        self.seed, self.seconds = seed, seconds
        self.hands = hands_of(config)
        self._done: dict[int, tuple[Outcome, float]] = {}

    def cluster(
        self,
        total: int,
        failures: float = 0.0,
        seconds: float = 0.0,
        costs: Costs | None = None,
    ) -> Outcome:
        """A balanced cluster of so many workers, with windows and admission as wide as it needs."""
        workers = balanced(self.times, total, self.hands, self.costs)
        hands = sum(workers[stage] * self.hands[stage] for stage in STAGES)
        plan = Plan(
            config=wide(self.config, hands, self.times),
            times=self.times,
            workers=workers,
            hands=self.hands,
            costs=costs or self.costs,
            failures_an_hour=failures,
            seed=self.seed,
        )
        with scratch() as folder:
            return simulate(plan, folder, seconds or self.seconds)

    def reached(self, total: int) -> tuple[Outcome, float]:
        """A cluster, and the share of the results that it would have beside a server of no cost."""
        if total not in self._done:
            found, ideal = self.cluster(total), self.cluster(total, costs=FREE)
            self._done[total] = found, found.results / max(1, ideal.results)
        return self._done[total]

    def saturation(self, most: int) -> int:
        """The largest cluster found that reaches SATURATED, by doubling and then halving."""
        good, total = 0, min(most, 2 * SMALL)
        while self.reached(total)[1] >= SATURATED:
            if total == most:
                return most
            good, total = total, min(most, 2 * total)
        bad = total
        for _ in range(HALVINGS):
            between = (good + bad) // 2
            if between and self.reached(between)[1] >= SATURATED:
                good = between
            else:
                bad = between
        return good

    def measured_costs(self, workers: int, seconds: float) -> float:
        """Real seconds of this machine's processor for one message."""
        outcome = self.cluster(workers, seconds=seconds)
        return outcome.cpu / max(1, outcome.messages)


def figures(bench: Bench, options: argparse.Namespace) -> Iterator[Figure]:
    most = bench.saturation(options.workers)
    yield Figure(
        "workers_at_saturation",
        float(most),
        "workers",
        f"largest that was tried; {SATURATED:.0%} of what they do beside a server of no cost",
        float(options.workers),
        note="not saturated: --workers tries more" if most == options.workers else "",
    )
    for name, total in (("results_at_saturation", most), ("results_of_all", options.workers)):
        found, share = bench.reached(max(1, total))
        yield Figure(
            name,
            found.results / found.seconds,
            "results/s",
            "the same workers beside a server of no cost",
            found.results / found.seconds / share if share else None,
            note=f"{total} workers, hands busy {found.busy:.0%}, server {found.server_busy:.0%}",
        )
    usual = bench.cluster(SMALL, seconds=4 * bench.seconds)
    yield Figure(
        "learner_idle",
        max(0.0, 1 - usual.learner_busy),
        "share",
        "none",
        None,
        note=f"{SMALL} workers, windows grown with them",
    )
    for failures in options.failures:
        failing = bench.cluster(SMALL, failures, seconds=8 * bench.seconds)
        calm = bench.cluster(SMALL, seconds=8 * bench.seconds)
        delays = failing.found_after
        yield Figure(
            f"results_with_{failures:g}_deaths_an_hour",
            failing.results / failing.seconds,
            "results/s",
            "the same cluster without deaths",
            calm.results / calm.seconds,
            note=f"{failing.deaths} deaths, {failing.lost} pieces done again, a death is found "
            f"after {percentile(delays, 0.5):.1f} s, {max([0.0, *delays]):.1f} s at most",
        )
    yield Figure(
        "message_cost",
        bench.measured_costs(min(100, options.workers), bench.seconds / 2) * 1e6,
        "us",
        "what the simulation took it to be",
        bench.costs.message * 1e6,
        note="processor time of this machine; the only figure here that is not virtual",
    )


def shipped() -> Times:
    """Of the demonstration's log: the seedling's three roles on two cores."""
    with resources.as_file(resources.files("mmzero_async.ops.simulate") / "seedling.json") as file:
        return read(file)


def times_from(run: Path) -> Times:
    reader = LogReader.open(run / "log")
    try:
        return observed(reader.scan(), run.name)
    finally:
        reader.close()


def rehearsed(seconds: float) -> Path:
    """A real cluster of four hosts on this machine, with vLLM, undisturbed; its run's folder.
    ValueError when it does not get under way."""
    from mmzero_async.ops.cluster.rehearsal.calm import Stuck, undisturbed

    folder = Path(tempfile.mkdtemp(prefix="mmz-"))
    print(f"in {folder}", file=sys.stderr)
    try:
        return asyncio.run(undisturbed(folder, seconds))
    except Stuck as error:
        raise ValueError(str(error)) from error


def costs_from(text: str) -> Costs:
    """`commit=0.002,message=6e-5`. ValueError with what is wrong."""
    costs = Costs()
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in ("commit", "message", "latency"):
            raise ValueError(f"--costs {part!r}: commit, message or latency = seconds")
        costs = dataclasses.replace(costs, **{name: float(value)})
    return costs


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--from", dest="run", type=Path, help="a run whose log gives the times")
    parser.add_argument("--like", type=Path, help="a run's own cluster as foreseen and as it was")
    parser.add_argument(
        "--cluster", type=float, help="the same of four hosts rehearsed here for so many seconds"
    )
    parser.add_argument("--save", type=Path, help="with --from: write the times there, and end")
    parser.add_argument("--times", type=Path, help="a file of --save")
    parser.add_argument("--slower", type=float, default=1.0, help="every service time, so often")
    parser.add_argument("--workers", type=int, default=1000, help="the largest cluster")
    parser.add_argument("--seconds", type=float, default=20.0, help="virtual, of each simulation")
    parser.add_argument("--failures", type=float, nargs="*", default=[0.1, 1.0, 10.0])
    parser.add_argument("--costs", default="", help="commit=0.002,message=6e-5,latency=2e-4")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter, within 45 s")
    options = parser.parse_args(argv)
    try:
        costs = costs_from(options.costs)
        if options.like or options.cluster:
            run = options.like or rehearsed(options.cluster)
            for figure in prediction(run, costs, options.seed):
                print(figure.line(), flush=True)
            return 0
        times = times_from(options.run) if options.run else shipped()
        times = read(options.times) if options.times else times
    except (ValueError, OSError, LogError) as error:
        print(f"just simulate: {error}", file=sys.stderr)
        return 2
    if options.save:
        options.save.write_bytes(encoded(times))
        return 0
    if options.quick:
        options.workers, options.seconds, options.failures = min(options.workers, 300), 6.0, [10.0]
    began = time.perf_counter()
    bench = Bench(
        slowed(times, options.slower), load("seedling"), costs, options.seed, options.seconds
    )
    if options.run:
        for figure in prediction(options.run, costs, options.seed):
            print(figure.line(), flush=True)
    for figure in figures(bench, options):
        print(figure.line(), flush=True)
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    return 0


def slowed(times: Times, factor: float) -> Times:
    """As if every piece of work took so many times as long: a larger model."""
    stages = {
        name: replace(stage, seconds=[factor * s for s in stage.seconds])
        for name, stage in times.stages.items()
    }
    return replace(times, stages=stages)


def encoded(times: Times) -> bytes:
    return msgspec.json.format(msgspec.json.encode(times), indent=1)


if __name__ == "__main__":
    sys.exit(main())
