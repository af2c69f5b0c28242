"""A host's agent: keeps the host's processes alive for a driver that may be out of reach.

`python -m mmzero_async.ops.cluster.agent --run-dir DIR --link-seconds S`, started by attach.py over
SSH. It is no child of the SSH session: a line that is cut changes nothing on the host. It listens
at a unix socket in the run's folder, obeys one driver at a time, and ends, with all its processes
and without leaving a secret, when it is told to or has not heard of its driver for S seconds.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmzero_async import telemetry
from mmzero_async.config import from_json
from mmzero_async.engines.errors import ModelUnusable
from mmzero_async.filelock import FileLock, LockHeld
from mmzero_async.ops.cluster import words as w
from mmzero_async.ops.cluster.about import about
from mmzero_async.ops.cluster.files import replace
from mmzero_async.ops.errors import ProcessKeepsDying
from mmzero_async.ops.processes import Child
from mmzero_async.ops.rundir import base_model_folder, check_same, weights_digest
from mmzero_async.telemetry_options import LogsOptions

RIVAL_SECONDS = 5.0  # after which a silent driver's place may be taken by another
GRACE = 10.0  # for each process between SIGTERM and SIGKILL


@dataclass(slots=True)
class Kept:
    child: Child
    task: asyncio.Task[None]
    given_up: str = ""


class Agent:
    """The processes of one run on this host."""

    def __init__(self, run_dir: Path, link_seconds: float, logger: Any) -> None:
        self.run_dir, self.link_seconds, self.logger = run_dir, link_seconds, logger
        self.kept: dict[str, Kept] = {}
        self.ended = asyncio.Event()
        self._driver: w.Hello | None = None
        self._line: asyncio.StreamWriter | None = None
        self._heard = 0.0
        self._logs = LogsOptions()
        self._one_at_a_time = asyncio.Lock()  # what changes processes or files
        self._answering: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Until told to end, a signal comes, or no driver is heard of for too long."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ended.set)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._heard = loop.time()
        async with self._listening():
            self.logger.info("agent ready", pid=os.getpid())
            while not self.ended.is_set():
                if loop.time() - self._heard > self.link_seconds:
                    self.logger.error("no driver, stopping", seconds=self.link_seconds)
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await self.ended.wait()
                telemetry.bound_printed(self.run_dir, self._logs)
            await self._stop_all()
            self._remove_secrets()
            self.logger.info("agent ended")

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        path = self.run_dir / w.SOCKET
        path.unlink(missing_ok=True)  # a dead agent's: we hold the lock
        before = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(self._line_of, str(path), limit=w.MAX_LINE)
        finally:
            os.umask(before)
        try:
            yield
        finally:
            server.close()
            if self._line is not None:
                self._line.close()
            path.unlink(missing_ok=True)

    # --- the line ------------------------------------------------------------------------------

    async def _line_of(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                # A process may take its time to stop: nobody who asks how we are waits for that,
                # and what was begun is finished should the line break.
                task = asyncio.create_task(self._reply(w.request(line), writer))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)
        except (w.AgentError, ValueError, ConnectionError) as error:
            self.logger.warning("line broke", error=str(error))
        finally:
            if self._line is writer:
                self._line = None
            writer.close()

    async def _reply(self, request: w.Request, writer: asyncio.StreamWriter) -> None:
        reply = await self._answer(request, writer)
        with contextlib.suppress(ConnectionError):
            writer.write(w.encode(reply))
            await writer.drain()
        if isinstance(request.ask, w.End) and not reply.error:
            self.ended.set()

    async def _answer(self, request: w.Request, line: asyncio.StreamWriter) -> w.Reply:
        try:
            if isinstance(request.ask, w.Hello):
                self._greet(request.ask, line)
                return w.Reply(id=request.id, about=await asyncio.to_thread(about))
            if line is not self._line:
                raise w.AgentError("another driver has taken over")
            self._heard = asyncio.get_running_loop().time()
            base_digest = ""
            if not isinstance(request.ask, w.Look):
                async with self._one_at_a_time:
                    base_digest = await self._do(request.ask)
        except (w.AgentError, ModelUnusable, ValueError, OSError) as error:
            return w.Reply(id=request.id, error=str(error))
        return w.Reply(
            id=request.id,
            children=[self._state(name, kept) for name, kept in self.kept.items()],
            base_digest=base_digest,
            free_bytes=shutil.disk_usage(self.run_dir).free,
        )

    def _greet(self, hello: w.Hello, line: asyncio.StreamWriter) -> None:
        """The same driver, back on another line, is welcome at once; another waits its turn."""
        now = asyncio.get_running_loop().time()
        rival = self._driver
        if (
            rival is not None
            and rival.driver != hello.driver
            and self._line is not None
            and now - self._heard < RIVAL_SECONDS
        ):
            raise w.AgentError(f"{self.run_dir} on this host is driven by {rival.who} already")
        if self._line is not None:
            self._line.close()
        self._driver, self._line, self._heard = hello, line, now
        self.logger.info("driver", who=hello.who)

    async def _do(self, ask: w.Ask) -> str:
        """Returns the base model's digest where it was asked for."""
        match ask:
            case w.Prepare():
                if self.kept and ask.config != (self.run_dir / "config.json").read_text():
                    await self._stop_all()  # a run has one configuration
                return await asyncio.to_thread(self._prepare, ask)
            case w.Start():
                await self._start(ask)
            case w.Stop():
                await self._stop(ask.name)
            case w.Restart():
                await self._restart(ask.name)
            case w.End():
                await self._stop_all()
                self._remove_secrets()
        return ""

    def _state(self, name: str, kept: Kept) -> w.ChildState:
        process = kept.child.process
        running = process is not None and process.returncode is None
        return w.ChildState(
            name=name,
            pid=process.pid if process is not None and running else 0,
            restarts=kept.child.restarts,
            ended=kept.task.done() and not kept.given_up,
            given_up=kept.given_up,
        )

    # --- the run's folder ----------------------------------------------------------------------

    def _prepare(self, ask: w.Prepare) -> str:
        config, stored = from_json(ask.config), self.run_dir / "config.json"
        if (self.run_dir / "log").exists() and stored.exists():
            made_with = from_json(stored.read_text())
            check_same(str(self.run_dir), made_with, config, "give the run another name")
        self._logs = config.logs
        replace(self.run_dir / "config.json", ask.config, 0o644)
        keys = self.run_dir / w.KEYS
        for folder in (keys, keys / "authorized"):
            folder.mkdir(mode=0o700, exist_ok=True)
        for name, content in ask.secrets.items():
            replace(keys / _inside(name), content, 0o600 if "secret" in name else 0o644)
        if not ask.needs_base:
            return ""
        base = base_model_folder(config, ask.base_model)
        replace(self.run_dir / "base_model", str(base), 0o644)
        return weights_digest(base)

    def _remove_secrets(self) -> None:
        shutil.rmtree(self.run_dir / w.KEYS, ignore_errors=True)

    # --- processes -----------------------------------------------------------------------------

    async def _start(self, ask: w.Start) -> None:
        kept = self.kept.get(ask.name)
        if kept is not None:
            same = list(kept.child.command) == ask.command and kept.child.environment == ask.env
            if same:
                return
            await self._stop(ask.name)
        self._keep(Child(ask.name, ask.command, self.run_dir, self.logger, environment=ask.env))

    def _keep(self, child: Child) -> None:
        kept = Kept(child, asyncio.create_task(child.keep_alive()))
        self.kept[child.name] = kept

        def over(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if error is not None:
                kept.given_up = str(error)
                level = "error" if isinstance(error, ProcessKeepsDying) else "critical"
                getattr(self.logger, level)("given up", child=child.name, error=str(error))

        kept.task.add_done_callback(over)

    async def _stop(self, name: str) -> None:
        kept = self.kept.pop(name, None)
        if kept is None:
            return
        while not kept.task.done():  # between two processes there is none to be told
            await kept.child.stop(GRACE)
            await asyncio.wait({kept.task}, timeout=0.2)

    async def _restart(self, name: str) -> None:
        if name not in self.kept:
            raise w.AgentError(f"this host keeps no {name}")
        old = self.kept[name].child
        await self._stop(name)
        self._keep(
            Child(
                name,
                old.command,
                self.run_dir,
                self.logger,
                restarts=old.restarts + 1,
                environment=old.environment,
            )
        )

    async def _stop_all(self) -> None:
        """In the reverse of the order in which they were started: the log server last."""
        for name in reversed(list(self.kept)):
            await self._stop(name)


def _inside(name: str) -> str:
    """A file's name in the folder of keys, and nowhere else. AgentError."""
    parts = Path(name).parts
    if not parts or ".." in parts or parts[:-1] not in ((), ("authorized",)):
        raise w.AgentError(f"{name!r} is no file of the folder of keys")
    return name


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--link-seconds", type=float, required=True)
    args = parser.parse_args()
    run_dir: Path = args.run_dir
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(run_dir / "agent.lock")
    except LockHeld:
        return 0  # another was quicker; attach.py finds it
    logger = telemetry.configure(run_dir, "host-agent", run=run_dir.name)
    try:
        asyncio.run(Agent(run_dir, args.link_seconds, logger).serve())
    finally:
        lock.release()
    return 0


if __name__ == "__main__":
    sys.exit(main())
