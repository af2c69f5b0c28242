"""`mmzero run`: everything on one machine, from nothing to a printed result.

    log server -> engine -> learner (publishes version 0) -> held-out score before
    -> workers, until the limit -> held-out score after -> the run's figures

Holds no state that matters: killed anywhere, the same command goes on where the log ends. What the
processes do is theirs, and what the run goes through is course.py's; this file starts, watches and
stops them.
"""

import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from mmzero_async import telemetry
from mmzero_async.config import Config
from mmzero_async.engines.errors import EngineUnavailable
from mmzero_async.engines.launch import address_file
from mmzero_async.engines.pool import EnginePool, urls_of
from mmzero_async.engines.server import VllmServer
from mmzero_async.log.reader import LogReader
from mmzero_async.ops.course import Course, Helm, Progress, Say
from mmzero_async.ops.errors import ProcessKeepsDying
from mmzero_async.ops.processes import Child, resident_bytes
from mmzero_async.ops.rundir import RunDir, open_run, weights_digest
from mmzero_async.ports import free_port
from mmzero_async.projections.report import Report
from mmzero_async.scale_options import under_torchrun
from mmzero_async.schemas.events import ROLES, Role
from mmzero_async.transport.keys import local_keys

ROOM = 4 << 20  # bytes; less is a full disk


class Supervisor:
    """One start of one run."""

    def __init__(self, run: RunDir, say: Say, progress: Progress) -> None:
        self.run_dir, self.config, self.base_model = run.path, run.config, run.base_model
        self.lock = run.lock
        self.say = say
        self.logger: Any = telemetry.configure(
            run.path, "supervisor", run.config.logs, run=run.path.name
        )
        self.helm = Helm(run.config, say, progress, self.logger, self._figures, self._trouble)
        self.children: list[Child] = []
        self.group: asyncio.TaskGroup

    # --- the run, in order ---------------------------------------------------------------------

    async def run(self) -> Report:
        """Returns the run's report. Raises what keeps it from going on."""
        self.helm.stop_on_signals()
        for name in ("log.url", "log.read.url"):
            (self.run_dir / name).unlink(missing_ok=True)
        keys = local_keys(self.config.log.keys)  # the children find theirs by the same path
        async with contextlib.AsyncExitStack() as stack:
            watching = await stack.enter_async_context(self._watching())
            self.say("log server")
            # Fixed here, as the engine's is: a restarted server must be found where it was.
            port = free_port(self.config.log.host, self.config.log.port, key="log.port")
            await self._start("log-server", "log_server", "--port", str(port))
            log_url = await self._address("log.url")
            port = free_port(self.config.log.host, self.config.log.read_port, key="log.read_port")
            await self._start("log-reader", "log_reader", "--port", str(port), vital=False)
            if self.config.tracker.wanted:
                await self._start("tracker", "tracker", vital=False)
            engine_urls = await stack.enter_async_context(self._engines(watching))
            reader = LogReader.open(self.run_dir / "log")
            stack.callback(reader.close)
            client = await stack.enter_async_context(self.helm.joined(log_url, keys))
            numbered = self.config.learner.weights == "full"
            engine = await stack.enter_async_context(
                EnginePool(urls_of(engine_urls), self.config.engine, numbered=numbered)
            )
            course = Course(self.helm, reader, client, engine)
            await course.start(
                self.run_dir.name, str(self.base_model), weights_digest(self.base_model)
            )
            self.say("learner")
            ranks = under_torchrun(self.config.learner)
            await self._start("learner-0", "learner_ranks" if ranks else "learner")
            await course.see_through(self._workers)
        self.lock.release()
        return self.helm.report

    @contextlib.asynccontextmanager
    async def _workers(self) -> AsyncIterator[None]:
        """They run until the end."""
        counts = self.config.workers
        workers = [
            await self._start(f"{module}-{i}", module)
            for module, count in {
                "proposer": counts.proposers,
                "coder": counts.coders,
                "renderer": counts.renderers,
                "solver": counts.solvers,
            }.items()
            for i in range(count)
        ]
        yield
        await asyncio.gather(*(worker.stop() for worker in workers))

    # --- parts ---------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _watching(self) -> AsyncIterator[asyncio.TaskGroup]:
        """A task group for what watches; stops all children at the end, in reverse order."""
        async with asyncio.TaskGroup() as group:
            self.group = group
            bounding = group.create_task(self._bound_printed())
            try:
                yield group
            finally:
                bounding.cancel()
                for child in reversed(self.children):
                    await child.stop()

    async def _bound_printed(self) -> None:
        while True:
            telemetry.bound_printed(self.run_dir, self.config.logs)
            await asyncio.sleep(telemetry.LOOK_SECONDS)

    async def _start(self, name: str, module: str, *options: str, vital: bool = True) -> Child:
        command = [sys.executable, "-m", f"mmzero_async.workers.{module}"]
        command += ["--run-dir", str(self.run_dir), *options]
        if module not in ("log_server", "log_reader"):
            command += ["--worker", name]
        child = Child(name, command, self.run_dir, self.logger)
        self.children.append(child)
        self.group.create_task(child.keep_alive() if vital else self._keep_if_possible(child))
        return child

    async def _keep_if_possible(self, child: Child) -> None:
        """The run goes on without it."""
        try:
            await child.keep_alive()
        except ProcessKeepsDying as error:
            self.logger.error("goes on without", child=child.name, error=str(error))
            self.say(f"goes on without {child.name}: {error}")

    async def _address(self, name: str) -> str:
        path = self.run_dir / name
        await self._until(path.exists, f"{name} (see {self.run_dir}/logs)")
        return path.read_text().strip()

    @contextlib.asynccontextmanager
    async def _engines(self, group: asyncio.TaskGroup) -> AsyncIterator[str]:
        """The addresses of the solver's engines; they serve all roles, or with full weights each
        role has its own. Started in turn: on a GPU each looks how much memory the others left."""
        weights, count = self.config.learner.weights, self.config.engine.count
        if self.config.engine.url:
            (self.run_dir / address_file(weights, "solver")).write_text(self.config.engine.url)
            yield self.config.engine.url
            return
        self.say("engine: vLLM starts in half a minute or so")
        async with contextlib.AsyncExitStack() as stack:
            urls = ""
            roles: tuple[Role | None, ...] = (None,) if weights == "lora" else ROLES
            for place, role in enumerate(roles):
                started = [
                    await stack.enter_async_context(
                        self._engine(group, role, number, place * count + number)
                    )
                    for number in range(count)
                ]
                urls = ",".join(started)
                (self.run_dir / address_file(weights, role or "solver")).write_text(urls)
            yield urls

    @contextlib.asynccontextmanager
    async def _engine(
        self, group: asyncio.TaskGroup, role: Role | None, number: int, place: int
    ) -> AsyncIterator[str]:
        """A server of ours, restarted if it dies; its URL."""
        # A restarted engine must be found where the workers look for it: the port is fixed here.
        fixed = self.config.engine.port and self.config.engine.port + place
        port = free_port(self.config.engine.host, fixed, key="engine.port")
        config = msgspec.structs.replace(self.config.engine, port=port)
        name = (f"engine-{role}" if role else "engine") + (f"-{number}" if number else "")
        log = self.run_dir / "logs" / f"{name}.log"
        server = VllmServer(self.base_model, config, log, role=role)
        await server.start()
        keeper = group.create_task(self._keep_engine(server))
        try:
            yield server.url
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            await server.stop()

    async def _keep_engine(self, server: VllmServer) -> None:
        failures = 0
        while failures < 3:
            if not failures:  # else there is none to wait for
                status = await server.wait()
                self.logger.error("engine died", status=status, last_words=server.last_words())
                self.say(f"the engine died (status {status}); starting it again")
                await server.stop()
            try:
                await server.start()
                failures = 0
            except EngineUnavailable as error:
                failures += 1
                self.logger.error("engine did not start", error=str(error))
        raise EngineUnavailable(f"the engine does not stay up: {server.last_words()}")

    async def _figures(self) -> dict[str, float]:
        resident = await asyncio.to_thread(resident_bytes)
        peak = max(resident, self.helm.report.peaks.get("peak_resident_bytes", 0.0))
        return {
            "resident_bytes": float(resident),
            "peak_resident_bytes": float(peak),
            "restarts": float(sum(child.restarts for child in self.children)),
        }

    def _trouble(self) -> str:
        if shutil.disk_usage(self.run_dir).free < ROOM:
            return (
                f"the disk of {self.run_dir} is full: free some. Nothing acknowledged is lost, and "
                "the run goes on when there is room"
            )
        return ""

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits as long as nobody asks to stop; a child that keeps dying ends it from outside."""
        begun = time.monotonic()
        told = False
        while not condition() and not self.helm.stopping.is_set():
            if not told and time.monotonic() - begun > 30:
                self.say(f"still waiting for {what}")
                told = True
            await asyncio.sleep(0.2)


async def supervise(path: Path, config: Config, say: Say, progress: Progress) -> Report:
    """Starts or resumes the run in a folder, and sees it to its end."""
    return await Supervisor(open_run(path, config), say, progress).run()
