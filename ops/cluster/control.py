"""Orders to a run that is being driven: a unix socket in its folder, one line each way.

Only who may write in the folder may give orders; the socket's mode is 0600.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from mmzero_async import __version__
from mmzero_async.config import ConfigError

SOCKET = "control.sock"
_MAX_PATH = 100
_SECONDS = 180.0  # for an order to be carried out
_LINE = 1 << 20


class Order(msgspec.Struct, frozen=True, kw_only=True):
    do: str  # "status", "scale", "drain", "restart", "join", "stop"
    what: str = ""  # a stage, a host, a worker
    count: int = 0
    version: str = ""  # of who gives it; `order` fills it in


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    said: str = ""
    error: str = ""
    figures: dict[str, Any] = {}


class OrderRefused(ConfigError):
    """What the driver says to an order that it cannot carry out."""


CarryOut = Callable[[Order], Awaitable[Answer]]


@contextlib.asynccontextmanager
async def taking_orders(run: Path, carry_out: CarryOut) -> AsyncIterator[None]:
    """While it is open, orders come in; ConfigError ends none, and is answered."""
    path = run / SOCKET
    if len(str(path.absolute()).encode()) > _MAX_PATH:
        raise ConfigError(
            f"{path.absolute()} is too long for a socket's name: choose another --run"
        )

    async def line_of(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            try:
                wanted = msgspec.json.decode(await reader.readline(), type=Order)
                if wanted.version != __version__:
                    raise OrderRefused(
                        f"this is mmzero-async {wanted.version or 'of no version'}, the driver is "
                        f"{__version__}: give orders with the driver's own installation"
                    )
                answer = await carry_out(wanted)
            except (ConfigError, msgspec.DecodeError, ValueError) as error:
                answer = Answer(error=str(error))
            writer.write(msgspec.json.encode(answer) + b"\n")
            await writer.drain()
        writer.close()

    path.unlink(missing_ok=True)  # a dead driver's: we hold the run's lock
    before = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(line_of, str(path), limit=_LINE)
    finally:
        os.umask(before)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


def order(run: Path, wanted: Order) -> Answer:
    """Gives an order and waits until it is carried out. OrderRefused."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(_SECONDS)
        try:
            line.connect(str(run / SOCKET))
        except OSError:
            raise OrderRefused(
                f"nobody drives {run}: start it with `mmzero run-cluster`, or name the folder of a "
                "run that is going on"
            ) from None
        try:
            line.sendall(msgspec.json.encode(replace(wanted, version=__version__)) + b"\n")
            with line.makefile("rb") as answers:
                data = answers.readline()
        except TimeoutError:
            raise OrderRefused(
                f"the driver of {run} has not answered within {_SECONDS:.0f} s; it may still do "
                "what it was asked for: look with `mmzero cluster status`"
            ) from None
        except ConnectionError:
            data = b""
    if not data:
        raise OrderRefused(f"the driver of {run} went away")
    try:
        answer = msgspec.json.decode(data, type=Answer)
    except (msgspec.DecodeError, UnicodeError):
        raise OrderRefused(f"what answers at {run / SOCKET} is no driver of ours") from None
    if answer.error:
        raise OrderRefused(answer.error)
    return answer
