"""What letting generation and training overlap is worth: whole runs beside synchronous ones.

Log server, workers, renderer, transport, projections and the learner's steps are the real ones, a
process each. Two things are not: the engine has a fixed latency (fixed_latency.py), and after its
step the learner sleeps until the step has taken a fixed time, so that both stand for devices of
their own and the ratio of their times is known. Only the solver is trained.

The synchronous run is the same code under `admission.eta = 0` and no more prompts at once than one
window needs: the next window's generation begins when the step is committed, and no sample is
older than the policy that it trains (asserted). The asynchronous one has the default admission.

Seconds are those of the log server, from the publishing of version 0, when generation begins, to
the last committed step. What is not measured: accuracy. Canned answers teach nothing; the time to
it, on real vLLM, is measured by `just experiment time_to_accuracy`.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from msgspec.structs import replace

from mmzero_async.config import (
    AdmissionConfig,
    CoderConfig,
    Config,
    EngineConfig,
    FilterConfig,
    LearnerConfig,
    LogConfig,
    ProposerConfig,
    RoleLearning,
    RunConfig,
    SolverConfig,
)
from mmzero_async.log.reader import LogReader
from mmzero_async.ops.bench.figures import Figure
from mmzero_async.ops.bench.forks import Forks, stop
from mmzero_async.ops.rundir import open_run
from mmzero_async.ports import free_port
from mmzero_async.schemas.events import PolicyPublished, StepCommitted

PROCESSES = "overlap_processes"
STAGES = ("proposer", "coder", "renderer", "solver")
PROMPTS, PROPOSALS, DRAWINGS = 2, 2, 2  # of one window: 8 pictures
GROUPS = PROMPTS * PROPOSALS * DRAWINGS
SLOTS = 4  # requests that the engine serves at once
ROUNDS = 1 + 1 + 2 * GROUPS // SLOTS  # latencies that a window takes alone, stage after stage
PATIENCE = 600.0  # seconds that one run may take


class RunFailed(Exception):
    """A process of a run ended early, a run did not get on, or was not what it was to be."""


@dataclass(frozen=True)
class Balance:
    """How long a step takes, where a window's generation takes 1."""

    name: str
    step: float


BALANCES = (
    Balance("generation_bound", 1 / 3),
    Balance("balanced", 1.0),
    Balance("training_bound", 3.0),
)


@dataclass(frozen=True)
class Went:
    """One run."""

    seconds: float
    waited: float  # of these, the learner
    staleness: float  # mean of the samples, versions
    stalest: float
    longest: float  # seconds of a step


def overlap(forks: Forks, steps: int, latency: float, *, beside: bool) -> Iterator[Figure]:
    """Until so many steps of each run; the two runs of one balance follow each other, or go on
    beside each other: they sleep most of the time, and what they start with shares the cores."""
    generation = latency * ROUNDS
    for balance in BALANCES:
        seconds = balance.step * generation
        with ThreadPoolExecutor(2 if beside else 1) as hands:
            sync, now = hands.map(
                lambda asynchronous, seconds=seconds: _run(
                    forks, settings(asynchronous), steps, latency, seconds
                ),
                (False, True),
            )
        if sync.stalest > 0:
            raise RunFailed(f"the synchronous run has samples {sync.stalest:g} versions old")
        note = (
            f"{steps} steps of {seconds:.2g} s (longest {now.longest:.2g}), a "
            f"window alone takes {generation:.2g} s to generate; samples {now.staleness:.2g} "
            "versions old, 0 in the synchronous run"
        )
        yield Figure(
            f"async_vs_sync_{balance.name}",
            steps / now.seconds,
            "steps/s",
            "the same code, synchronous",
            steps / sync.seconds,
            note,
        )
        yield Figure(
            f"learner_waiting_{balance.name}",
            now.waited / now.seconds,
            "share of time",
            "the same code, synchronous",
            sync.waited / sync.seconds,
        )


def settings(asynchronous: bool) -> Config:
    """Everything that is generated is trained on, by the solver alone."""
    frozen = RoleLearning(groups=1, lr=1e-6, train=False)
    admission = AdmissionConfig(max_running_groups=3 * PROMPTS, eta=4, max_staleness=8)
    return Config(
        run=RunConfig(evaluate=False),
        log=LogConfig(map_gib=1, port=0),
        engine=EngineConfig(request_seconds=PATIENCE),
        proposer=ProposerConfig(samples=PROPOSALS),
        coder=CoderConfig(samples=DRAWINGS),
        solver=SolverConfig(easy_samples=2, hard_samples=2),
        filters=FilterConfig(
            coder_render_rate=(0.0, 1.0),
            solver_easy_consistency=0.0,
            solver_hard_consistency=(0.0, 1.0),
        ),
        learner=LearnerConfig(
            proposer=frozen,
            coder=frozen,
            solver=RoleLearning(groups=GROUPS, lr=1e-5),
            keep_checkpoints=2,
            canary_steps=0,
        ),
        admission=admission
        if asynchronous
        else replace(admission, max_running_groups=PROMPTS, eta=0),
    )


# --- one run -----------------------------------------------------------------------------------


def _run(forks: Forks, config: Config, steps: int, latency: float, step_seconds: float) -> Went:
    port = free_port("127.0.0.1", 0, key="engine.port")
    config = replace(config, engine=replace(config.engine, url=f"http://127.0.0.1:{port}"))
    with tempfile.TemporaryDirectory(prefix="bench-run-") as name:
        folder = Path(name)
        run = open_run(folder, config)
        (folder / "engine.url").write_text(config.engine.url)
        try:
            with _processes(forks, folder, run.base_model, latency, port) as check:
                learner = forks.start(
                    f"{PROCESSES}:learn", folder, run.base_model, steps, step_seconds
                )
                try:
                    _until(lambda: not learner.is_alive(), check)
                    if learner.exitcode != 0:
                        raise RunFailed(f"the learner ended with {learner.exitcode}")
                finally:
                    stop(learner)
            return went(folder, steps)
        finally:
            run.lock.release()


@contextmanager
def _processes(
    forks: Forks, folder: Path, base: Path, latency: float, port: int
) -> Iterator[Callable[[], None]]:
    """Everything but the learner; gives a function that raises when one of them has ended."""
    started: dict[str, ForkServerProcess] = {}

    def check() -> None:
        for name, process in started.items():
            if process.exitcode is not None:
                raise RunFailed(f"the {name} ended with {process.exitcode}")

    try:
        started["engine"] = forks.start(
            f"{PROCESSES}:engine", base / "tokenizer.json", latency, SLOTS, port
        )
        started["log server"] = forks.start(f"{PROCESSES}:module", "log_server", folder)
        _until((folder / "log.url").exists, check)
        for stage in STAGES:
            started[stage] = forks.start(f"{PROCESSES}:module", stage, folder)
        yield check
    finally:
        for process in reversed(started.values()):
            stop(process)


def _until(condition: Callable[[], bool], check: Callable[[], None]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        check()
        if time.monotonic() > deadline:
            raise RunFailed(f"a run took longer than {PATIENCE:g} s")
        time.sleep(0.02)


def went(folder: Path, steps: int) -> Went:
    """Of the log, from the first policies that were published until so many steps."""
    begun = 0.0
    committed: list[tuple[float, dict[str, float]]] = []
    reader = LogReader.open(folder / "log")
    try:
        for record in reader.scan():
            event, at = record.event(), record.envelope.time_ns / 1e9
            if isinstance(event, PolicyPublished) and event.version == 0:
                begun = at
            elif isinstance(event, StepCommitted) and len(committed) < steps:
                committed.append((at, event.metrics))
    finally:
        reader.close()
    metrics = [figures for _, figures in committed]
    return Went(
        seconds=committed[-1][0] - begun,
        waited=sum(figures["waited_seconds"] for figures in metrics),
        staleness=sum(figures["staleness_mean"] for figures in metrics) / steps,
        stalest=max(figures["staleness_max"] for figures in metrics),
        longest=max(figures["seconds"] for figures in metrics),
    )
