"""`mmzero ui`: one page over a run, while it goes on and when it is over."""

import asyncio
import contextlib
import os
import signal
import socket
from pathlib import Path
from typing import Annotated

import typer
from aiohttp import web

from mmzero_async.config import Config, from_json
from mmzero_async.log.interface import View
from mmzero_async.ops.command_line import RunFolder, reading, run_folder, say
from mmzero_async.ops.ui.guard import is_loopback, new_token
from mmzero_async.ops.ui.live import asking
from mmzero_async.ops.ui.server import Ui
from mmzero_async.ops.ui.shared import Shared
from mmzero_async.ports import PortTaken

PORTS = 50  # tried from the first one on, where none is asked for
FIRST_PORT = 8600
NICER = 5  # than the run
CLOSE_SECONDS = 2.0


def ui(
    run: RunFolder,
    host: Annotated[str, typer.Option(help="address to listen at")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help=f"0: any free one; -1: the first free one from {FIRST_PORT} on")
    ] = -1,
    token: Annotated[
        str, typer.Option(envvar="MMZERO_UI_TOKEN", help="what a visitor has to know")
    ] = "",
) -> None:
    """Show a run in a browser: pipeline, curves, pictures, workers, audit. Ctrl-C ends it."""
    folder = run_folder(run)
    config = from_json((folder / "config.json").read_text())
    made = new_token() if not token and not is_loopback(host) else ""
    os.nice(NICER)
    with reading(folder) as reader, contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(folder, Shared(reader), config, host, port, token, made))


async def serve(
    folder: Path, reader: View, config: Config, host: str, port: int, token: str, made: str
) -> None:
    """Until SIGINT or SIGTERM. `made`: a token of our own making, to be told to the visitor, in
    place of the one that was given. PortTaken when nobody may listen there."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    dashboard = Ui(reader, config, asking(folder, config), token or made)
    runner = web.AppRunner(dashboard.app(), access_log=None, shutdown_timeout=CLOSE_SECONDS)
    await runner.setup()
    try:
        bound = await listen(runner, host, port)
        # A token that was given is known already, and has no place on a screen.
        say(f"{reader.run}: {address(host, bound)}{f'?token={made}' if made else ''}")
        if token or made:
            say("whoever has the token may look; it travels unencrypted (docs/DASHBOARD.md)")
        say("Ctrl-C ends it; the run goes on")
        await stopping.wait()
    finally:
        await runner.cleanup()


async def listen(runner: web.AppRunner, host: str, port: int) -> int:
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


def address(host: str, port: int) -> str:
    """What to type into a browser."""
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
