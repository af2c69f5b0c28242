"""A worker's line to the log server: append until acknowledged, lease, give back.

Survives lost connections and restarts of the server: what is not acknowledged is sent again, in
order, under the same epoch. Bounded by the server's credits.
"""

import asyncio
import contextlib
import os
import socket
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import msgspec
import zmq
import zmq.asyncio

from mmzero_async.schemas.events import AnyEvent, Event, encode_event, kind_of
from mmzero_async.schemas.work import Stage, Work, completes
from mmzero_async.transport import handshake
from mmzero_async.transport import messages as m
from mmzero_async.transport.errors import BadMessage, NotReachable, TransportError, WorkerRefused
from mmzero_async.transport.keys import ClientKeys
from mmzero_async.transport.security import secure_client

RESEND_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Lease:
    """Work to do, with the picture's bytes where it has one."""

    work: Work
    picture: bytes | None
    seconds: float


@dataclass(slots=True)
class _Pending:
    frames: list[bytes]
    acknowledged: asyncio.Future[list[int | None]]


class LogClient:
    """Use `connect`. Methods may be called from many tasks at once."""

    def __init__(
        self, url: str, worker: str, role: str, config_digest: str, keys: ClientKeys | None
    ) -> None:
        self._url = url
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 500)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 100)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)  # finds half-open connections
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 10000)
        self._monitor = handshake.monitor(self._socket)
        self._keys = keys
        try:
            secure_client(self._socket, url, keys)
            self._socket.connect(url)
        except BaseException:
            self._close()
            raise
        self._hello = m.Hello(
            worker=worker,
            role=role,
            incarnation=uuid.uuid4().hex,
            host=socket.gethostname(),
            pid=os.getpid(),
            config_digest=config_digest,
            version=m.VERSION,
        )
        self._welcome: m.Welcome | None = None  # the latest
        self._joined = False  # the server has welcomed our latest Hello
        self._welcomed = asyncio.Event()
        self._failure: TransportError | None = None
        self.trouble = ""  # why the log server cannot take what it was sent; it is sent again
        self._sequence = 0
        self._pending: dict[int, _Pending] = {}
        self._room = asyncio.Condition()
        self._waiting: dict[Stage, list[asyncio.Future[Lease]]] = {}
        self._holding: set[str] = set()
        self._status: list[asyncio.Future[dict[str, Any]]] = []
        self._heard = 0.0
        self._resend: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str,
        *,
        worker: str,
        role: str,
        config_digest: str,
        patience: float = 30.0,
        keys: ClientKeys | None = None,
    ) -> AsyncIterator["LogClient"]:
        """NotReachable when nobody welcomes us within `patience` seconds; WorkerRefused.

        HandshakeFailed when the ends do not have the keys that they expect of each other, at the
        start or later; NotSecured for another host's address without keys.
        """
        client = cls(url, worker, role, config_digest, keys)
        work = (client._receive(), client._beat(), client._watch())
        tasks = [asyncio.create_task(each) for each in work]
        for task in tasks:
            task.add_done_callback(client._on_end)
        try:
            await client._join(patience)
            try:
                yield client
            finally:  # also when we are cancelled: leases go back at once, not after silence
                if client._failure is None:
                    with contextlib.suppress(zmq.ZMQError, TimeoutError):
                        async with asyncio.timeout(1.0):
                            await client._send([m.encode(m.Goodbye())])
        finally:
            if client._resend is not None:
                tasks.append(client._resend)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            client._close()

    def _close(self) -> None:
        self._socket.disable_monitor()
        self._monitor.close()
        self._socket.close()
        self._context.term()

    @property
    def run(self) -> str:
        return self._welcome.run if self._welcome else ""

    @property
    def joined(self) -> bool:
        """The log server knows us, as far as we know."""
        return self._joined and self._failure is None

    async def _join(self, patience: float) -> None:
        try:
            async with asyncio.timeout(patience):
                while not self._welcomed.is_set():
                    await self._send([m.encode(self._hello)])
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(1.0):
                            await self._welcomed.wait()
        except TimeoutError:
            raise NotReachable(
                f"no log server answers at {self._url} within {patience:.0f} s: is the run up?"
            ) from None
        self._raise_failure()

    # --- what workers do -------------------------------------------------------------------

    async def append(
        self, events: Sequence[Event], blobs: Mapping[str, bytes] | None = None
    ) -> list[int | None]:
        """All events in one transaction; returns their offsets after the commit.

        None stands for an event that was superseded. Waits for credit, for a server that is
        being restarted and for a full disk. WorkerRefused when the server will not have it.
        """
        if not events:
            return []
        blobs = blobs or {}
        async with self._room:
            await self._room.wait_for(lambda: len(self._pending) < self._credits or self._failure)
        self._raise_failure()
        message = m.Append(
            sequence=self._sequence,
            kinds=[kind_of(event) for event in events],
            bodies=[encode_event(event) for event in events],
            blobs=list(blobs),
        )
        frames = [m.encode(message), *blobs.values()]
        self._check_size(sum(map(len, frames)))
        sequence, self._sequence = self._sequence, self._sequence + len(events)
        pending = _Pending(frames, asyncio.get_running_loop().create_future())
        self._pending[sequence] = pending
        if self._joined:
            await self._send(pending.frames)
        offsets = await asyncio.shield(pending.acknowledged)
        for event in events:
            self.done(completes(cast(AnyEvent, event)) or "")
        return offsets

    async def lease(self, stage: Stage) -> Lease:
        """The next piece of work; waits until there is one. Give it back with `fail`, or append.

        May be cancelled at any moment: a lease that arrives all the same is given back.
        """
        self._raise_failure()
        future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(stage, []).append(future)
        try:
            if self._joined:
                await self._send([m.encode(m.Want(stage=stage, slots=1))])
            return await future
        except asyncio.CancelledError:
            if future.cancel() or future.cancelled() or future.exception() is not None:
                raise
            await self.fail(future.result().work.key, "its caller was cancelled", counts=False)
            raise

    async def fail(self, key: str, reason: str, *, counts: bool = True) -> None:
        """Gives a lease back: due again, or abandoned when it has failed too often."""
        self._holding.discard(key)
        await self._send([m.encode(m.Fail(key=key, reason=reason, counts=counts))])

    @property
    def holding(self) -> frozenset[str]:
        """The keys of the leases in hand."""
        return frozenset(self._holding)

    def done(self, key: str) -> None:
        """The lease came to its end. `append` says so itself of the work that an event settles."""
        self._holding.discard(key)

    async def status(self) -> dict[str, Any]:
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._status.append(future)
        await self._send([m.encode(m.Status())])
        return await future

    # --- the line --------------------------------------------------------------------------

    @property
    def _credits(self) -> int:
        return self._welcome.credits if self._welcome else 1

    async def _send(self, frames: list[bytes]) -> None:
        await self._socket.send_multipart(frames)

    async def _receive(self) -> None:
        while True:
            frame, *blobs = await self._socket.recv_multipart()
            self._heard = asyncio.get_running_loop().time()
            try:
                message = m.decode_to_worker(frame)
            except BadMessage as error:
                self._fail(TransportError(f"{self._url} does not speak our protocol: {error}"))
                return
            await self._handle(message, blobs)

    async def _watch(self) -> None:
        def trouble(why: str) -> None:
            self.trouble = why

        self._fail(await handshake.failed(self._monitor, self._url, self._keys, trouble))

    async def _handle(self, message: m.ToWorker, blobs: list[bytes]) -> None:
        match message:
            case m.Welcome():
                await self._on_welcome(message)
            case m.Appended():
                self.trouble = ""
                pending = self._pending.pop(message.sequence, None)
                if pending is not None and not pending.acknowledged.done():
                    pending.acknowledged.set_result(message.offsets)
                await self._make_room()
            case m.AppendRefused() if message.again:
                self.trouble = message.reason
                if self._resend is None or self._resend.done():
                    self._resend = asyncio.create_task(self._send_again_soon())
            case m.AppendRefused():
                self._fail(WorkerRefused(f"the log server refused an event: {message.reason}"))
            case m.Leased():
                await self._on_lease(
                    Lease(message.work, blobs[0] if blobs else None, message.seconds)
                )
            case m.Refused():
                self._fail(WorkerRefused(message.reason, for_good=not message.anew))
            case m.Unknown():
                await self._rejoin()
            case m.StatusReply():
                while self._status:
                    future = self._status.pop()
                    if not future.done():
                        future.set_result(message.status)
            case m.Malformed():
                self._fail(WorkerRefused(message.reason))
            case _:
                pass

    async def _on_welcome(self, welcome: m.Welcome) -> None:
        if self._joined:
            return  # the answer to a Hello said twice
        self._welcome, self._joined = welcome, True
        self._hello = msgspec.structs.replace(self._hello, epoch=welcome.epoch)
        self._welcomed.set()
        await self._make_room()
        await self._send_again()
        for stage, futures in self._waiting.items():
            futures[:] = [future for future in futures if not future.done()]
            if futures:
                await self._send([m.encode(m.Want(stage=stage, slots=len(futures)))])
        if self._status:
            await self._send([m.encode(m.Status())])

    async def _on_lease(self, lease: Lease) -> None:
        futures = self._waiting.get(lease.work.stage, [])
        while futures:
            future = futures.pop(0)
            if not future.done():
                self._holding.add(lease.work.key)
                future.set_result(lease)
                return
        await self.fail(lease.work.key, "nobody waits for it any more", counts=False)

    async def _rejoin(self) -> None:
        if self._joined:
            await self._say_hello()

    async def _say_hello(self) -> None:
        """Again, under the epoch we have. Until the answer comes, nothing else is worth saying."""
        self._joined = False
        hello = msgspec.structs.replace(self._hello, holding=sorted(self._holding))
        await self._send([m.encode(hello)])

    async def _beat(self) -> None:
        """Says that we live; says Hello again when the server has been silent too long."""
        loop = asyncio.get_running_loop()
        await self._welcomed.wait()
        while self._failure is None and self._welcome is not None:
            await asyncio.sleep(self._welcome.heartbeat_seconds)
            if not self._joined or loop.time() - self._heard > self._welcome.dead_seconds:
                await self._say_hello()
            else:
                await self._send([m.encode(m.Heartbeat())])

    async def _send_again_soon(self) -> None:
        await asyncio.sleep(RESEND_SECONDS)
        await self._send_again()

    async def _send_again(self) -> None:
        for sequence in sorted(self._pending):
            await self._send(self._pending[sequence].frames)

    def _check_size(self, size: int) -> None:
        limit = self._welcome.max_message_bytes if self._welcome else 0
        if limit and size > limit:
            raise WorkerRefused(
                f"a message of {size} bytes is more than the log server takes ({limit}): append "
                "fewer events at once, or raise log.max_message_mib"
            )

    def _on_end(self, task: asyncio.Task[None]) -> None:
        """An error of our own in a background task must not look like a silent server."""
        error = None if task.cancelled() else task.exception()
        if error is not None and self._failure is None:
            self._fail(TransportError(f"the line to {self._url} broke: {error!r}"))

    async def _make_room(self) -> None:
        async with self._room:
            self._room.notify_all()

    def _fail(self, error: TransportError) -> None:
        """Final: everybody who waits hears of it."""
        self._failure = error
        self._welcomed.set()
        futures: list[asyncio.Future[Any]] = [p.acknowledged for p in self._pending.values()]
        futures += [future for waiting in self._waiting.values() for future in waiting]
        futures += self._status
        for future in futures:
            if not future.done():
                future.set_exception(error)
        task = asyncio.create_task(self._make_room())
        task.add_done_callback(lambda _: None)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
