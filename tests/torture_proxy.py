"""A bad network: a TCP proxy between clients and the server that cuts, delays, stalls, reorders.

It runs an event loop in a thread of its own. A cut may fall inside a message, at any byte: what is
on the way is forwarded up to there and the rest is lost. Knows no protocol.
"""

import asyncio
import contextlib
import random
import threading
from collections import Counter
from dataclasses import dataclass, field

CHUNK = 1 << 14  # bytes


@dataclass(eq=False)
class _Line:
    """One client's connection and ours to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    cut_after: int | None = None  # bytes that still get through, then both ends are closed
    late: bool = False  # the client is cut off, what it said last arrives all the same, later
    unsaid: bytearray = field(default_factory=bytearray)

    def close(self) -> None:
        for writer in (self.client, self.server):
            with contextlib.suppress(OSError, RuntimeError):
                writer.transport.abort()


class Proxy:
    """Listens on `port` (any free one) and forwards to `target` on this host."""

    def __init__(self, target: int, rng: random.Random) -> None:
        self.target, self.rng = target, rng
        self.port = 0
        self.carried: Counter[str] = Counter()  # connections, bytes, cuts inside a chunk
        self._lines: set[_Line] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._delay = 0.0  # seconds a chunk
        self._flows = asyncio.Event()  # cleared: nothing gets through, either way
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._call(self._listen())

    # --- faults, from the harness's thread -------------------------------------------------

    def cut(self) -> None:
        """Every connection breaks within its next bytes, each at a place of its own."""
        for line in list(self._lines):
            line.cut_after = self.rng.choice((0, self.rng.randrange(64), self.rng.randrange(CHUNK)))
        self._call(self._nudge())

    def cut_and_deliver_late(self, seconds: float) -> None:
        """Clients lose their connections and come back by new ones; what they had said last
        arrives by the old ones when they have said it again."""
        self._call(self._late(seconds))

    def stall(self, flows: bool) -> None:
        self._loop.call_soon_threadsafe(self._flows.set if flows else self._flows.clear)

    def delay(self, seconds: float) -> None:
        self._delay = seconds

    def close(self) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- the loop's side -------------------------------------------------------------------

    def _call(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _listen(self) -> asyncio.Server:
        self._flows.set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:  # the server is dead this moment
            client.transport.abort()
            return
        line = _Line(client, server)
        self._lines.add(line)
        self.carried["connections"] += 1
        try:
            await asyncio.gather(
                self._pump(line, reader, server, says=True),
                self._pump(line, answers, client, says=False),
            )
        finally:
            self._lines.discard(line)
            line.close()

    async def _pump(
        self,
        line: _Line,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        says: bool,
    ) -> None:
        with contextlib.suppress(OSError, ConnectionError):
            while data := await reader.read(CHUNK):
                await self._flows.wait()
                if self._delay:
                    await asyncio.sleep(self._delay)
                if line.late:
                    if says:
                        line.unsaid += data
                    continue
                if line.cut_after is not None:
                    self.carried["cuts inside a chunk"] += 0 < line.cut_after < len(data)
                    data, line.cut_after = data[: line.cut_after], line.cut_after - len(data)
                writer.write(data)
                self.carried["bytes"] += len(data)
                await writer.drain()
                if line.cut_after is not None and line.cut_after <= 0:
                    break
        if not line.late:
            line.close()

    async def _nudge(self) -> None:
        """A line on which nothing is said is cut, too."""
        waiting = [line for line in self._lines if line.cut_after is not None]
        task = asyncio.create_task(self._close_soon(waiting))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close_soon(self, lines: list[_Line]) -> None:
        await asyncio.sleep(0.2)
        for line in lines:
            line.close()

    async def _late(self, seconds: float) -> None:
        lines = list(self._lines)
        for line in lines:
            line.late = True
        await asyncio.sleep(0.1)  # so that there is something to come late
        for line in lines:
            with contextlib.suppress(OSError, RuntimeError):
                line.client.transport.abort()
        await asyncio.sleep(seconds)
        for line in lines:
            self.carried["bytes that came late"] += len(line.unsaid)
            with contextlib.suppress(OSError, RuntimeError):
                line.server.write(bytes(line.unsaid))
                await asyncio.wait_for(line.server.drain(), 1.0)
                await asyncio.sleep(0.05)
            line.close()

    async def _end(self) -> None:
        self._server.close()
        self._flows.set()
        for line in list(self._lines):
            line.close()
        await asyncio.sleep(0.05)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
