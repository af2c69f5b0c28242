"""A run whose engine does nothing else than serve it, taking turns with the engine alone.

Log server, proposer, coder, renderer and solver are the workers' own processes, the engine is real
vLLM with the seedling and an adapter a role. No learner takes part: version 0 is published, and all
roles are frozen, so that nothing but generation uses the machine.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import aiohttp

from mmzero_async.config import Config, load
from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.server import VllmServer
from mmzero_async.log.reader import LogReader
from mmzero_async.ops.bench.asked import Asked, asked
from mmzero_async.ops.bench.forks import Forks, stop
from mmzero_async.ops.bench.spent import Spent, engine_parts, family, shares, spent
from mmzero_async.ops.rundir import RunDir, open_run

PROCESSES = "pipeline_processes"
STAGES = ("proposer", "coder", "renderer", "solver")
PATIENCE = 300.0  # seconds for anything to get ready
POLL, LOOK = 0.05, 0.25
PAUSED = 3600.0  # seconds that a paused worker is neither missed nor its lease run out


class RunFailed(Exception):
    """A process of the run ended, or nothing got on."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one of the two did in its seconds."""

    tokens: float  # drawn, a second
    in_flight: float  # samples at the engine, running and waiting, on average
    seconds: float  # a request, on average
    used: dict[str, Spent]  # a second, by process


WARM = 60  # answers, about two prompts' worth
CAPACITY = 24  # requests at the engine: as many as the preset has hands, 2 + 6 + 16


def settings() -> Config:
    """The preset's roles, prompts and sampling. Each role has as many hands as the engine is to
    have requests, so the backlog decides whose they are; prompts are open for all of them."""
    frozen = [f"learner.{role}.train=false" for role in ("proposer", "coder", "solver")]
    overrides = [
        *("run.evaluate=false", "log.port=0", "log.map_gib=4", "log.stall_seconds=0"),
        *(f"log.dead_seconds={PAUSED}", f"log.lease_seconds={PAUSED}"),
        *(f"engine.request_seconds={PAUSED}", "admission.max_running_groups=24"),
        *(f"workers.{role}_in_flight={CAPACITY}" for role in ("proposer", "coder", "solver")),
        f"engine.capacity={CAPACITY}",
        *frozen,
    ]
    return load("seedling", overrides)


class Rig:
    """The run, its engine, and nobody else."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        server: VllmServer,
        client: VllmClient,
        processes: dict[str, ForkServerProcess],
    ) -> None:
        self.config, self.folder, self.client = config, folder, client
        self._server, self._processes = server, processes
        self.check: Callable[[], None] = lambda: _check(processes)

    async def pipeline(self, ramp: float, seconds: float) -> tuple[Turn, list[Asked]]:
        """Its turn; and what was asked in it, the ramp's requests too."""
        began = time.time()
        self._signal(signal.SIGCONT)
        try:
            await asyncio.sleep(ramp)
            measured = time.time()
            tokens, in_flight, used = await self._measured(seconds)
        finally:
            self._signal(signal.SIGSTOP)
        self.check()
        await self._idle()
        # Without those that were under way when the workers were paused before.
        done = [it for it in self._asked() if it.at - it.told.seconds >= began]
        took = [it.told.seconds for it in done if it.at >= measured]
        return Turn(tokens, in_flight, _mean(took), used), done

    async def alone(self, requests: list[Asked], ramp: float, seconds: float) -> Turn:
        """The same requests in the same order, as many at once as the run may have."""
        await self._forget()
        took: list[float] = []
        following = iter(_endless(requests))

        async def hand() -> None:
            for request in following:
                answer = await request.again(self.client)
                took.append(answer.seconds)

        count = self.config.engine.capacity
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(hand()) for _ in range(count)]
            await asyncio.sleep(ramp)
            took.clear()
            tokens, in_flight, used = await self._measured(seconds)
            for task in asking:
                task.cancel()
        await self._idle()
        return Turn(tokens, in_flight, _mean(took), used)

    async def _measured(self, seconds: float) -> tuple[float, float, dict[str, Spent]]:
        """Tokens a second, samples in flight, and what each process used a second."""
        before, began = self._used(), time.monotonic()
        first = last = await self.client.metrics()
        in_flight = []
        while (took := time.monotonic() - began) < seconds:
            await asyncio.sleep(min(LOOK, seconds - took))
            last = await self.client.metrics()
            in_flight.append(last["running"] + last["waiting"])
        drawn = last["tokens_generated"] - first["tokens_generated"]
        return drawn / took, _mean(in_flight), shares(before, self._used(), took)

    async def _forget(self) -> None:
        """Empties the engine's caches: it saw these prompts a moment ago."""
        async with aiohttp.ClientSession(self.client.url) as session:
            for cache in ("prefix", "mm", "encoder"):
                async with session.post(f"/reset_{cache}_cache") as answer:
                    if answer.status != 200:
                        raise RunFailed(f"the engine did not empty its {cache} cache")

    async def _idle(self) -> None:
        """Until the engine has answered everything."""
        while (await self.client.metrics())["running"]:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(POLL)

    def _used(self) -> dict[str, Spent]:
        guard = self._server.pid
        assert guard is not None, "the engine runs as long as its rig"
        parts: Mapping[str, list[int]] = {
            **{f"engine_{name}": pids for name, pids in engine_parts(guard).items()},
            **{name: family(process.pid or 0) for name, process in self._processes.items()},
            "bench": [os.getpid()],
        }
        return {name: spent(pids) for name, pids in parts.items()}

    def _asked(self) -> list[Asked]:
        reader = LogReader.open(self.folder / "log")
        try:
            return list(asked(reader, self.config))
        finally:
            reader.close()

    def _signal(self, number: signal.Signals) -> None:
        for stage in STAGES:
            for pid in family(self._processes[stage].pid or 0):
                os.kill(pid, number)


@asynccontextmanager
async def rig(forks: Forks, folder: Path) -> AsyncIterator[Rig]:
    """Started, and paused before its first turn. RunFailed where a process ends."""
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"  # caches can be emptied then
    config = settings()
    run = open_run(folder, config)
    try:
        server = VllmServer(run.base_model, config.engine, folder / "engine.log")
        async with server, VllmClient(server.url, engine=server.engine_id) as client:
            (folder / "engine.url").write_text(server.url)
            with _processes(forks, run) as processes:
                publishing = forks.start(f"{PROCESSES}:publish", folder, run.base_model)
                await _until(lambda: not publishing.is_alive(), processes)
                if publishing.exitcode != 0:
                    raise RunFailed("no policy was published")
                for stage in STAGES:
                    processes[stage] = forks.start(f"{PROCESSES}:module", stage, folder)
                made = Rig(config, folder, server, client, processes)
                await _until(lambda: _answers(folder) >= WARM, processes, pause=0.5)
                made._signal(signal.SIGSTOP)
                yield made
    finally:
        run.lock.release()


@contextmanager
def _processes(forks: Forks, run: RunDir) -> Iterator[dict[str, ForkServerProcess]]:
    started: dict[str, ForkServerProcess] = {}
    try:
        started["log_server"] = forks.start(f"{PROCESSES}:module", "log_server", run.path)
        deadline = time.monotonic() + PATIENCE
        while not (run.path / "log.url").exists():
            _check(started)
            if time.monotonic() > deadline:
                raise RunFailed("the log server does not get ready")
            time.sleep(POLL)
        yield started
    finally:
        for process in reversed(started.values()):
            for pid in family(process.pid or 0):
                os.kill(pid, signal.SIGCONT)
            stop(process)


async def _until(
    condition: Callable[[], bool], processes: dict[str, ForkServerProcess], pause: float = POLL
) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            _check(processes)
            await asyncio.sleep(pause)


def _check(processes: dict[str, ForkServerProcess]) -> None:
    for name, process in processes.items():
        if process.exitcode is not None:
            raise RunFailed(f"the {name} ended with {process.exitcode}")


def _answers(folder: Path) -> int:
    """Solvers' answers in the log: when there are some, every stage has work."""
    reader = LogReader.open(folder / "log")
    try:
        return sum(record.kind == "answered" for record in reader.scan())
    finally:
        reader.close()


def _endless(requests: list[Asked]) -> Iterator[Asked]:
    if not requests:
        raise RunFailed("the workers asked nothing in their turn")
    while True:
        yield from requests


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
