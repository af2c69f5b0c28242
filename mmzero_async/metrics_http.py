"""/metrics, /healthz and /readyz of one process, from a thread of its own.

A thread, and not the process's loop: the log server has none, and who asks whether a loop hangs
must not be answered by it. `RUN/metrics/<process>.url` tells where.
"""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from mmzero_async.metrics import Metrics
from mmzero_async.telemetry_options import MetricsOptions

FOLDER = "metrics"
PORTS = 100  # looked at from metrics.port on
START_SECONDS = 10.0


@contextlib.contextmanager
def serving(
    metrics: Metrics, options: MetricsOptions, run_dir: Path, process: str, logger: Any
) -> Iterator[None]:
    """While inside, if the configuration wants it. A process that finds no port, or cannot say
    where it listens, logs that and goes on without."""
    file = run_dir / FOLDER / f"{process}.url"
    if options.port < 0:
        yield
        return
    server = _Server(metrics, options)
    server.start()
    try:
        if server.wait(START_SECONDS):
            try:
                _publish(file, server.url)
                logger.info("metrics", url=server.url)
            except OSError as error:
                logger.warning("metrics not published", url=server.url, error=str(error))
        else:
            logger.warning("no metrics", error=server.error)
        yield
    finally:
        server.stop()
        with contextlib.suppress(OSError):
            if file.read_text() == server.url:  # not yet a successor's
                file.unlink()


class _Server(threading.Thread):
    def __init__(self, metrics: Metrics, options: MetricsOptions) -> None:
        super().__init__(name="metrics", daemon=True)
        self._metrics, self._options = metrics, options
        self._known = threading.Event()  # whether it listens
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self.url, self.error = "", "it did not start in time"

    def wait(self, seconds: float) -> bool:
        """Whether it listens."""
        self._known.wait(seconds)
        return bool(self.url)

    def stop(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._stopping.set)
        self.join(START_SECONDS)

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        except OSError as error:
            self.error = str(error)
        finally:
            self._known.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        app = web.Application()
        app.router.add_get("/metrics", self._figures)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await self._listen(runner)
            self._known.set()
            await self._stopping.wait()
        finally:
            await runner.cleanup()

    async def _listen(self, runner: web.AppRunner) -> None:
        first = self._options.port
        last = first + PORTS - 1 if first else 0
        for port in range(first, last + 1):
            try:
                await web.TCPSite(runner, self._options.host, port).start()
                break
            except OSError:
                if port == last:
                    raise
        bound = runner.addresses[0]
        self.url = f"http://{_reached_at(self._options.host)}:{bound[1]}"

    async def _figures(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def _healthz(self, _: web.Request) -> web.Response:
        return _answer(self._metrics.healthy, "ok", "its main loop hangs")

    async def _readyz(self, _: web.Request) -> web.Response:
        return _answer(self._metrics.ready, "ready", "has not joined the run")


def _answer(good: bool, yes: str, no: str) -> web.Response:
    return web.Response(text=f"{yes if good else no}\n", status=200 if good else 503)


def _reached_at(host: str) -> str:
    if host in ("", "0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _publish(file: Path, url: str) -> None:
    """Atomically, so that nobody reads half an address."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    draft.write_text(url)
    draft.replace(file)
