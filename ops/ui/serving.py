"""The dashboard as a process: where it listens, what it says of that, how it ends."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from mmzero_async.config import Config
from mmzero_async.log.interface import View
from mmzero_async.ops.ui.guard import is_loopback, new_token
from mmzero_async.ops.ui.live import asking
from mmzero_async.ops.ui.server import Ui
from mmzero_async.ops.ui.shared import Shared
from mmzero_async.ports import PortTaken

PORTS = 50  # tried from the first one on, where none is asked for
FIRST_PORT = 8600
CLOSE_SECONDS = 2.0


def run(
    folder: Path,
    reader: View,
    config: Config,
    *,
    host: str,
    port: int,
    token: str,
    say: Callable[[str], None],
) -> None:
    """Until SIGINT or SIGTERM. `port`: 0 any free one, -1 the first free one from `FIRST_PORT` on.
    Beyond loopback a token is made where none is given. PortTaken."""
    made = new_token() if not token and not is_loopback(host) else ""
    dashboard = Ui(Shared(reader), config, asking(folder, config), token or made)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(dashboard, host, port, made, say))


async def _serve(
    dashboard: Ui, host: str, port: int, made: str, say: Callable[[str], None]
) -> None:
    """`made`: the token, where it is ours to tell."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    runner = web.AppRunner(dashboard.app(), access_log=None, shutdown_timeout=CLOSE_SECONDS)
    await runner.setup()
    try:
        bound = await _listen(runner, host, port)
        # A token that was given is known already, and has no place on a screen.
        say(f"{dashboard.reader.run}: {_address(host, bound)}{f'?token={made}' if made else ''}")
        if dashboard.token:
            say("whoever has the token may look; it travels unencrypted (docs/DASHBOARD.md)")
        say("Ctrl-C ends it; the run goes on")
        await stopping.wait()
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> int:
    """The port that it listens at."""
    ports = range(FIRST_PORT, FIRST_PORT + PORTS) if port < 0 else (port,)
    for candidate in ports:
        try:
            await web.TCPSite(runner, host, candidate).start()
        except OSError as error:
            if candidate == ports[-1]:
                raise PortTaken(
                    f"cannot listen at {host}:{candidate} ({error.strerror}): name another one "
                    "with --port (0: any free one)"
                ) from error
        else:
            break
    return int(runner.addresses[0][1])


def _address(host: str, port: int) -> str:
    """What to type into a browser."""
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
