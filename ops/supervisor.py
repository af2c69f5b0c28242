"""`mmzero run`: everything on one machine, from nothing to a printed result.

    log server -> engine -> learner (publishes version 0) -> held-out score before
    -> workers, until the limit -> held-out score after -> the run's figures

Holds no state that matters: killed anywhere, the same command goes on where the log ends. What the
processes do is theirs; this file starts, watches and stops them.
"""

import asyncio
import contextlib
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from mmzero_async import __version__, telemetry
from mmzero_async.config import Config
from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.errors import EngineUnavailable
from mmzero_async.engines.server import VllmServer
from mmzero_async.log.reader import LogReader
from mmzero_async.ops.evaluate import evaluate
from mmzero_async.ops.processes import Child, ProcessKeepsDying, resident_bytes
from mmzero_async.ops.rundir import RunDir, open_run, weights_digest
from mmzero_async.ports import free_port
from mmzero_async.projections.report import Report, accuracy
from mmzero_async.roles.grading import GRADER
from mmzero_async.schemas.events import (
    ROLES,
    Event,
    Measured,
    RunFinished,
    RunStarted,
    kind_of,
)
from mmzero_async.transport.client import LogClient
from mmzero_async.transport.keys import ClientKeys, local_keys

SAMPLE_SECONDS = 5.0
PATIENCE = 20.0  # seconds that an event of ours may wait for the log server
GRACE = 1.0
ROOM = 4 << 20  # bytes; less is a full disk
Say = Callable[[str], None]


class Supervisor:
    """One start of one run."""

    def __init__(self, run: RunDir, say: Say, progress: Callable[[Report, float], None]) -> None:
        self.run_dir, self.config, self.base_model = run.path, run.config, run.base_model
        self.lock = run.lock
        self.say, self.progress = say, progress
        self.logger: Any = telemetry.configure(run.path, "supervisor", run=run.path.name)
        self.report = Report()
        self.children: list[Child] = []
        self.stopping = asyncio.Event()
        self.group: asyncio.TaskGroup
        self.reader: LogReader | None = None

    # --- the run, in order ---------------------------------------------------------------------

    async def run(self) -> Report:
        """Returns the run's report. Raises what keeps it from going on."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stopping.set)
        begun = time.monotonic()
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
            engine_url = await stack.enter_async_context(self._engine(watching))
            self.reader = await stack.enter_async_context(self._reading())
            client = await stack.enter_async_context(self._joined(log_url, keys))
            engine = await stack.enter_async_context(VllmClient(engine_url))
            await self._log_start(client)
            self.say("learner")
            await self._start("learner-0", "learner")
            await self._until(self._all_published, "the learner to publish its policies")
            self.say(f"ready after {time.monotonic() - begun:.0f} s")
            if not self.stopping.is_set() and self.report.pipeline.finished is None:
                await self._evaluated(client, engine, "before")
                await self._generate(client)
                await self._finish(client, engine)
        self._catch_up()
        self.lock.release()
        return self.report

    async def _generate(self, client: LogClient) -> None:
        """Workers run until a limit is reached or somebody asks to stop."""
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
        self.say("generating and learning; Ctrl-C stops, the same command goes on later")
        earlier = self._running_seconds()
        begun, sampled, trouble = time.monotonic(), 0.0, ""
        while not self.stopping.is_set():
            running = earlier + time.monotonic() - begun
            self._catch_up()
            self.progress(self.report, running)
            if (news := self._trouble(client)) != trouble:
                trouble = news
                self.say(trouble or "goes on")
            if time.monotonic() - sampled > SAMPLE_SECONDS:
                sampled = time.monotonic()
                await self._measure(client, running)
            if self._limit_reached(running):
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self.stopping.wait()
        await self._measure(client, earlier + time.monotonic() - begun)
        await asyncio.gather(*(worker.stop() for worker in workers))

    def _limit_reached(self, running: float) -> bool:
        limits, steps = self.config.run, self.report.pipeline.policies.step
        if limits.max_minutes and running >= limits.max_minutes * 60:
            return True
        return bool(limits.max_steps) and min(steps.values()) >= limits.max_steps

    async def _finish(self, client: LogClient, engine: VllmClient) -> None:
        """The score after, unless the run was interrupted and is to go on."""
        if self.stopping.is_set():
            return
        await self._until(self._all_published, "the last policies to be published")
        await self._evaluated(client, engine, "after")
        if self.stopping.is_set():
            return
        await self._measure(client, self._running_seconds())
        await self._append(client, RunFinished(reason="limit"))

    # --- parts ---------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _watching(self) -> AsyncIterator[asyncio.TaskGroup]:
        """A task group for what watches; stops all children at the end, in reverse order."""
        async with asyncio.TaskGroup() as group:
            self.group = group
            try:
                yield group
            finally:
                for child in reversed(self.children):
                    await child.stop()

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
    async def _engine(self, group: asyncio.TaskGroup) -> AsyncIterator[str]:
        """The engine's URL; our own server is started, and restarted if it dies."""
        address = self.run_dir / "engine.url"
        if self.config.engine.url:
            address.write_text(self.config.engine.url)
            yield self.config.engine.url
            return
        self.say("engine: vLLM starts in half a minute or so")
        # A restarted engine must be found where the workers look for it: the port is fixed here.
        port = free_port(self.config.engine.host, self.config.engine.port, key="engine.port")
        config = msgspec.structs.replace(self.config.engine, port=port)
        server = VllmServer(self.base_model, config, self.run_dir / "logs" / "engine.log")
        await server.start()
        address.write_text(server.url)
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

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncIterator[LogReader]:
        reader = LogReader.open(self.run_dir / "log")
        try:
            yield reader
        finally:
            self._catch_up()
            self.reader = None
            reader.close()

    @contextlib.asynccontextmanager
    async def _joined(self, log_url: str, keys: ClientKeys | None) -> AsyncIterator[LogClient]:
        async with LogClient.connect(
            log_url,
            worker="supervisor",
            role="supervisor",
            config_digest=self.config.digest(),
            keys=keys,
        ) as client:
            yield client

    async def _log_start(self, client: LogClient) -> None:
        self._catch_up()
        if self.report.pipeline.started is None:
            event = RunStarted(
                run=self.run_dir.name,
                config=self.config.to_json(),
                config_digest=self.config.digest(),
                base_model=str(self.base_model),
                base_digest=weights_digest(self.base_model),
                seed=self.config.run.seed,
                code_version=__version__,
                grader=GRADER,
            )
            await self._append(client, event)

    async def _evaluated(self, client: LogClient, engine: VllmClient, moment: str) -> None:
        if not self.config.run.evaluate:
            return
        published = self.report.pipeline.policies.published["solver"]
        done = {(e.moment, e.mode) for e in self.report.evaluations}
        for mode in ("greedy", "sampled") if self.config.eval.sampled else ("greedy",):
            if (moment, mode) in done or self.stopping.is_set():
                continue
            self.say(f"held-out score {moment}, {mode}: {self.config.eval.scenes} scenes")
            event = await evaluate(
                engine,
                self.config,
                policy=published.policy,
                version=published.version,
                moment=moment,
                mode=mode,
            )
            await self._append(client, event)
            for name, hard in (("easy", False), ("hard", True)):
                correct, asked = accuracy(event, hard=hard)
                self.say(f"  {name}: {correct / asked:.1%} of {asked}")
        self._catch_up()

    async def _measure(self, client: LogClient, running: float) -> None:
        resident = await asyncio.to_thread(resident_bytes)
        peak = max(resident, self.report.peaks.get("peak_resident_bytes", 0.0))
        figures = {
            "running_seconds": running,
            "resident_bytes": float(resident),
            "peak_resident_bytes": float(peak),
            "restarts": float(sum(child.restarts for child in self.children)),
        }
        await self._append(client, Measured(source="supervisor", figures=figures))

    def _trouble(self, client: LogClient) -> str:
        """What keeps the run from going on, for people; empty: nothing."""
        if shutil.disk_usage(self.run_dir).free < ROOM:
            return (
                f"the disk of {self.run_dir} is full: free some. Nothing acknowledged is lost, and "
                "the run goes on when there is room"
            )
        return client.trouble and f"log server: {client.trouble}"

    async def _append(self, client: LogClient, event: Event) -> None:
        """Into the log. A log server that has no room for it must not keep the run from stopping:
        then the event is given up when somebody asks to stop or after PATIENCE seconds."""
        append = asyncio.ensure_future(client.append([event]))
        stop = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait(
                {append, stop}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED
            )
            await asyncio.wait({append}, timeout=GRACE)
            if append.done():
                append.result()
            else:
                self.logger.warning("not in the log", event_kind=kind_of(event), why=client.trouble)
        finally:
            append.cancel()
            stop.cancel()

    def _running_seconds(self) -> float:
        return self.report.figures.get("supervisor", {}).get("running_seconds", 0.0)

    # --- looking -------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        if self.reader is not None:
            for record in self.reader.scan(self.report.pipeline.next_offset):
                self.report.apply(record)

    def _all_published(self) -> bool:
        self._catch_up()
        policies = self.report.pipeline.policies
        return all(
            role in policies.published
            and policies.published[role].version == policies.version(role)
            for role in ROLES
        )

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits as long as nobody asks to stop; a child that keeps dying ends it from outside."""
        begun = time.monotonic()
        told = False
        while not condition() and not self.stopping.is_set():
            if not told and time.monotonic() - begun > 30:
                self.say(f"still waiting for {what}")
                told = True
            await asyncio.sleep(0.2)


async def supervise(
    path: Path, config: Config, say: Say, progress: Callable[[Report, float], None]
) -> Report:
    """Starts or resumes the run in a folder, and sees it to its end."""
    return await Supervisor(open_run(path, config), say, progress).run()
