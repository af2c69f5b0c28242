"""Bytes recorded on an encrypted line and sent once more: the line is cut, no log has
them, and the log server says whose line it was."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import log_servers
import msgspec
import pytest
import structlog
from test_curve import PLAIN, OneRender, secret_of

from mmzero_async.schemas.events import Measured
from mmzero_async.transport.client import LogClient
from mmzero_async.transport.keys import client_keys, new_keys

PATIENCE = 60.0


class Wire:
    """A line to a server that keeps what the client says, and can say it again."""

    def __init__(self, port: int) -> None:
        self.port, self.said = port, list[bytes]()
        self.server: asyncio.StreamWriter | None = None  # the newest line's
        self.lines = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, self.server = await asyncio.open_connection("127.0.0.1", self.port)
        self.lines += 1
        server, said = self.server, list[bytes]()
        if self.lines == 1:
            self.said = said

        async def back() -> None:
            while data := await answers.read(65536):
                writer.write(data)
            writer.close()

        answering = asyncio.create_task(back())
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                said.append(data)
                server.write(data)
        server.close()
        await answering


@contextlib.asynccontextmanager
async def wired(url: str) -> AsyncIterator[tuple[Wire, str]]:
    wire = Wire(int(url.rsplit(":", 1)[1]))
    listener = await asyncio.start_server(wire.carry, "127.0.0.1", 0)
    try:
        yield wire, f"tcp://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    new_keys(tmp_path / "keys", ["alpha"])
    return tmp_path / "keys"


async def said_to(wire: Wire, data: list[bytes]) -> bytes:
    """What the server answers to a stranger on a line of his own, until it cuts it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    answer = bytearray()

    async def listen() -> None:
        with contextlib.suppress(ConnectionError):
            while heard := await reader.read(65536):
                answer.extend(heard)

    listening = asyncio.create_task(listen())
    with contextlib.suppress(ConnectionError):
        for each in data:
            writer.write(each)
            await writer.drain()
            await asyncio.sleep(0.05)
    async with asyncio.timeout(PATIENCE):
        await listening
    writer.close()
    return bytes(answer)


async def test_a_frame_that_is_sent_again_on_its_line_or_another_costs_the_line(tmp_path, keys):
    config = msgspec.structs.replace(
        PLAIN, keys=str(keys), heartbeat_seconds=0.3, dead_seconds=PATIENCE
    )
    with (
        structlog.testing.capture_logs() as lines,
        log_servers.serving(tmp_path / "log", OneRender(), config, None) as server,
    ):
        async with wired(server.url) as (wire, url):
            async with LogClient.connect(
                url,
                worker="alpha.w",
                role="r",
                config_digest="digest",
                keys=client_keys(secret_of(keys, "alpha")),
                patience=PATIENCE,
            ) as client:
                before = len(wire.said)
                await client.append([Measured(source="once", figures={})])
                append = b"".join(wire.said[before:])
                assert append and b"once" not in append, "the line is not encrypted"
                assert wire.server is not None
                wire.server.write(append)
                # The line is cut for it; the client opens another and loses nothing.
                await client.append([Measured(source="after", figures={})])
                assert wire.lines == 2
            # All that the first line carried, handshake included, on another.
            answer = await said_to(wire, wire.said)
            assert b"WELCOME" in answer and b"READY" not in answer
        events = [record.event() for record in server._reader.scan()]
        sources = [event.source for event in events if isinstance(event, Measured)]
        assert sources == ["once", "after"]
        epoch = next(r.envelope.epoch for r in server._reader.scan() if r.kind == "measured")
    (cut,) = [line for line in lines if line["event"] == "line was cut"]
    assert (cut["worker"], cut["epoch"], cut["next_sequence"]) == ("alpha.w", epoch, 1)
    assert "replay" in cut["reason"] and cut["log_level"] == "warning"
