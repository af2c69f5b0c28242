"""A whole run to be tormented: log server, engine, learner and workers, each killed in its turn.

All of it is real but the engine (pipeline_children.py) and the supervisor, whose part this file
plays: what it kills it starts again at once, so that rounds are short.
"""

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import tiny_model
from nursery import PATIENCE, Child, Nursery
from torture_proxy import Proxy

from mmzero_async.config import (
    AdmissionConfig,
    CoderConfig,
    Config,
    EngineConfig,
    FilterConfig,
    LogConfig,
    ProposerConfig,
    RendererConfig,
    RoleLearning,
    RunConfig,
    SolverConfig,
    overridden,
)
from mmzero_async.learner.rebuild import Rebuild
from mmzero_async.learner.windows import events_from
from mmzero_async.log.reader import LogReader
from mmzero_async.ops.rundir import open_run, weights_digest
from mmzero_async.ports import free_port
from mmzero_async.projections.audit import Audit
from mmzero_async.roles.grading import GRADER
from mmzero_async.schemas.events import ROLES, Event, RunFinished, RunStarted
from mmzero_async.transport.client import LogClient

LOG_SERVER, ENGINE, LEARNER = "log_server", "engine", "learner"
WORKERS = ("proposer", "coder", "renderer", "solver")


def settings(base: Path, engine_port: int) -> Config:
    """Small groups, short texts, everything that is complete is trained on."""
    return Config(
        run=RunConfig(base_model=str(base), evaluate=False),
        log=LogConfig(map_gib=1, heartbeat_seconds=0.2, dead_seconds=1.5),
        engine=EngineConfig(url=f"http://127.0.0.1:{engine_port}"),
        proposer=ProposerConfig(samples=2),
        coder=CoderConfig(samples=2),
        solver=SolverConfig(easy_samples=2, hard_samples=2),
        renderer=RendererConfig(size=tiny_model.IMAGE_SIZE),
        filters=FilterConfig(
            coder_render_rate=(0.0, 1.0),
            solver_easy_consistency=0.0,
            solver_hard_consistency=(0.0, 1.0),
        ),
        learner=tiny_model.config(
            proposer=RoleLearning(groups=1, lr=1e-3),
            coder=RoleLearning(groups=2, lr=1e-3),
            solver=RoleLearning(groups=4, lr=1e-3),
            micro_batch_tokens=2048,
        ),
        admission=AdmissionConfig(max_running_groups=4, eta=4),
    )


class Run:
    """The processes of a run. Use as a context manager: at its end none is left."""

    def __init__(
        self,
        nursery: Nursery,
        run_dir: Path,
        base: Path,
        rng: random.Random,
        overrides: Sequence[str] = (),
    ) -> None:
        self.nursery, self.run_dir, self.rng = nursery, run_dir, rng
        self.engine_port = free_port("127.0.0.1", 0, key="engine.port")
        self.log_port = free_port("127.0.0.1", 0, key="log.port")
        self.config = overridden(settings(base, self.engine_port), overrides, "of the torture")
        self.lock = open_run(run_dir, self.config).lock
        (run_dir / "engine.url").write_text(self.config.engine.url)
        self.network = Proxy(self.log_port, rng)
        self.processes: dict[str, Child] = {}
        self.kills: Counter[str] = Counter()
        self.audit = Audit()
        self.start(LOG_SERVER)
        self.until("the log is made", (run_dir / "log.url").exists)
        started = RunStarted(
            run=run_dir.name,
            config=self.config.to_json(),
            config_digest=self.config.digest(),
            base_model=str(base),
            base_digest=weights_digest(base),
            seed=self.config.run.seed,
            code_version="torture",
            grader=GRADER,
        )
        asyncio.run(self._append(started))
        self.reader = LogReader.open(run_dir / "log")
        self.rebuild = Rebuild(events_from(self.reader))
        for name in (ENGINE, LEARNER, *WORKERS):
            self.start(name)

    async def _append(self, event: Event) -> None:
        async with LogClient.connect(
            f"tcp://127.0.0.1:{self.network.port}",
            worker="supervisor",
            role="supervisor",
            config_digest=self.config.digest(),
            patience=PATIENCE,
        ) as client:
            await client.append([event])

    def start(self, name: str) -> None:
        log = self.run_dir / "logs" / f"{name}.output"
        log.parent.mkdir(exist_ok=True)
        if name == ENGINE:
            target, arguments = "engine", [str(self.engine_port)]
        else:
            target = "worker"
            ranks = name == LEARNER and self.config.learner.processes > 1
            module = "learner_ranks" if ranks else name
            arguments = [f"mmzero_async.workers.{module}", "--run-dir", str(self.run_dir)]
            arguments += (
                ["--port", str(self.log_port)]
                if name == LOG_SERVER
                else ["--log-url", f"tcp://127.0.0.1:{self.network.port}"]
            )
        self.processes[name] = self.nursery.start(f"pipeline_children:{target}", arguments, log)

    # --- faults ----------------------------------------------------------------------------

    def kill(self, *names: str) -> None:
        for name in names:
            self.processes[name].kill()
            self.kills[name] += 1
        time.sleep(self.rng.random() * 0.1)
        for name in names:
            self.start(name)

    def kill_rank(self, rank: int) -> None:
        """One process of a learner of several; the launcher must end with it."""
        launcher = self.processes[LEARNER]
        self.until("the ranks are there", lambda: self._rank(rank, launcher.pid) is not None)
        process = self._rank(rank, launcher.pid)
        assert process is not None
        process.kill()
        assert launcher.wait() == 1, launcher.last_words()
        self.kills[f"rank {rank}"] += 1
        self.start(LEARNER)

    def _rank(self, rank: int, launcher: int) -> psutil.Process | None:
        """A launcher's own: one of its killed forerunner may be on its way out still."""
        for process in self.ranks():
            with contextlib.suppress(psutil.Error):
                parents = [parent.pid for parent in process.parents()]
                if process.environ().get("RANK") == str(rank) and launcher in parents:
                    return process
        return None

    def ranks(self) -> list[psutil.Process]:
        """Of this run's learner, old ones too."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                if "mmzero_async.workers.learner" in line and str(self.run_dir) in line:
                    found.append(process)
        return found

    def kill_everybody(self) -> None:
        names = list(self.processes)
        self.rng.shuffle(names)
        self.kill(*names)

    def cut_connections(self) -> None:
        self.network.cut()

    # --- between the rounds ----------------------------------------------------------------

    def look(self) -> None:
        """Reads on; every promise about what the events mean, and every window, so far."""
        for record in self.reader.scan(self.audit.events):
            self.audit.apply(record)
            self.rebuild.apply(record)
        assert self.audit.clean, self.audit.problems
        assert self.rebuild.differences == []
        for name, process in self.processes.items():
            assert process.poll() is None, f"{name} ended: {process.last_words()}"

    @property
    def steps(self) -> int:
        return sum(self.audit.pipeline.policies.step[role] for role in ROLES)

    def gets_on(self, *, steps: int) -> None:
        """Events come in again, and so many more steps are committed."""
        events, wanted = self.audit.events, self.steps + steps

        def got_on() -> bool:
            self.look()
            return self.audit.events > events and self.steps >= wanted

        self.until("the run gets on", got_on)

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain: {what}"
            time.sleep(0.02)

    def finish(self) -> None:
        """As the supervisor ends a run: workers stop, the learner sees the end, then the log."""
        for name in WORKERS:
            self.processes[name].send(signal.SIGTERM)
        for name in WORKERS:
            assert self.processes[name].wait() == 0, self.processes[name].last_words()
        asyncio.run(self._append(RunFinished(reason="limit")))
        for name in (LEARNER, LOG_SERVER):
            if name == LOG_SERVER:
                self.processes[name].send(signal.SIGTERM)
            assert self.processes[name].wait() == 0, self.processes[name].last_words()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self.processes.values():
            process.kill()
        self.reader.close()
        self.network.close()
        self.lock.release()
