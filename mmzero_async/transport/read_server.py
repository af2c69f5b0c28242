"""Serves pages of the log to remote readers, in a process that the writer never waits for; and
keeps the log lines that other hosts send (collected.py), which so never stand before an event.

It opens the log's files as any local reader does and holds no transaction between two requests. A
page is copied once, out of the map into one frame, which ZeroMQ then sends without copying: views
into the map would die with their transaction, and the frame is sent long after that.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zmq

from mmzero_async.collected import Collected, TooManyHosts
from mmzero_async.config import LogConfig
from mmzero_async.log.errors import LogError
from mmzero_async.log.query import Limits
from mmzero_async.log.reader import LogReader
from mmzero_async.log.where import parse_where
from mmzero_async.metrics import Metrics
from mmzero_async.schemas.record import RecordDamaged
from mmzero_async.transport import reading as r
from mmzero_async.transport.errors import BadMessage
from mmzero_async.transport.keys import Authorized
from mmzero_async.transport.messages import encode
from mmzero_async.transport.security import gate_of, receive, send
from mmzero_async.transport.sockets import read_server_socket

MOST_WAITING = 1024  # readers that follow; more are answered at once
_TURN = 64  # requests between two looks at those who wait
REVOKED = "the key that this connection came in with is not authorised any more"
_LOOK_MS = 50  # between two looks at whether to stop, and at those who wait


@dataclass(frozen=True, slots=True)
class _Waiting:
    request: r.ReadPage
    until: float


class ReadServer:
    """Binds on construction (PortInUse, NotSecured, KeysUnusable); `run` serves until `stop`."""

    def __init__(
        self,
        reader: LogReader,
        config: LogConfig,
        logger: Any,
        clock: Callable[[], float] = time.monotonic,
        metrics: Metrics | None = None,
        collected: Collected | None = None,
    ) -> None:
        self._reader, self._log, self._clock = reader, logger, clock
        self._collected = collected
        self._metrics = metrics or Metrics()
        self._waiting: dict[bytes, _Waiting] = {}  # one a reader: its latest
        self._stopping = False
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._gate = gate_of(self._context, config, logger)
        try:
            self._socket, self.url = read_server_socket(self._context, config, self._gate)
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        if self._gate is not None:
            self._gate.close()
        self._context.destroy(linger=0)

    def stop(self) -> None:
        """Signal-safe."""
        self._stopping = True

    def run(self) -> None:
        try:
            while not self._stopping:
                self._socket.poll(_LOOK_MS)
                self._turn()
                self._metrics.beat(ready=True)
        finally:
            self._close()

    def _turn(self) -> None:
        for _ in range(_TURN):
            try:
                identity, key, frames = receive(self._socket, self._gate)
            except zmq.Again:
                break
            client = self._gate.client(key) if self._gate is not None else None
            if self._gate is not None and client is None:
                self._refuse(identity, REVOKED)
            else:
                self._handle(identity, client, frames)
        if self._waiting:
            self._look_again()

    def _handle(self, identity: bytes, client: Authorized | None, frames: list[bytes]) -> None:
        try:
            if len(frames) != 1:
                raise BadMessage(f"a request is one frame, not {len(frames)}")
            request = r.decode_request(frames[0])
            if isinstance(request, r.Lines):
                self._collect(client, request)
        except (BadMessage, TooManyHosts) as error:
            self._refuse(identity, str(error))
            return
        self._waiting.pop(identity, None)
        if isinstance(request, r.ReadPage) and self._is_to_wait(request):
            self._waiting[identity] = _Waiting(request, self._clock() + request.wait)
        else:
            self._answer(identity, request)

    def _collect(self, client: Authorized | None, batch: r.Lines) -> None:
        """BadMessage for lines that nobody keeps here, or not of that host from who sent them."""
        if self._collected is None:
            raise BadMessage("no log lines are collected here")
        if client is not None and not client.may_write_as(batch.host):
            raise BadMessage(client.refusal(batch.host))
        strange = self._collected.take(batch.host, batch.sender, batch.id, batch.lines)
        if strange:
            self._log.warning("no log lines", of=batch.host, count=strange)

    def _refuse(self, identity: bytes, reason: str) -> None:
        self._log.warning("request refused", error=reason)
        self._send(identity, r.ReadFailed(id=-1, sort="BadMessage", reason=reason))

    def _is_to_wait(self, request: r.ReadPage) -> bool:
        return (
            request.wait > 0
            and len(self._waiting) < MOST_WAITING
            and request.start >= self._reader.next_offset
        )

    def _look_again(self) -> None:
        end, now = self._reader.next_offset, self._clock()
        for identity, waiting in list(self._waiting.items()):
            if waiting.request.start < end or now >= waiting.until:
                del self._waiting[identity]
                self._answer(identity, waiting.request)

    def _answer(self, identity: bytes, request: r.Request) -> None:
        try:
            reply, frames = self._read(request)
        except (LogError, RecordDamaged, ValueError) as error:
            reason = str(error.args[0]) if error.args else str(error)
            failed = r.ReadFailed(id=request.id, sort=type(error).__name__, reason=reason)
            self._send(identity, failed)
            return
        self._send(identity, reply, *frames)

    def _read(self, request: r.Request) -> tuple[r.ReadReply, list[bytes]]:
        number, run = request.id, self._reader.run
        match request:
            case r.ReadPage():
                offsets, sizes, packed, after, end = self._reader.packed_page(
                    parse_where(request.where), request.start, request.stop, capped(request.limits)
                )
                reply = r.ReadReply(
                    id=number, run=run, end=end, next=after, offsets=offsets, sizes=sizes
                )
                return reply, [packed]
            case r.ReadBlob(look=True):
                there = self._reader.has_blob(request.digest)
                end = self._reader.next_offset
                return r.ReadReply(id=number, run=run, end=end, there=there), []
            case r.ReadBlob():
                blob = self._reader.blob(request.digest)
                end = self._reader.next_offset
                return r.ReadReply(id=number, run=run, end=end, there=True), [blob]
            case _:
                return r.ReadReply(id=number, run=run, end=self._reader.next_offset), []

    def _send(self, identity: bytes, message: r.Reply, *frames: bytes) -> None:
        """Dropped when the reader is gone, or does not take what it was sent: it asks again."""
        try:
            send(self._socket, [identity, encode(message), *frames], copy=False)
        except zmq.ZMQError as error:
            self._log.debug("could not send", error=str(error))


def capped(limits: Limits) -> Limits:
    """What one page may have, however much is asked for."""
    return Limits(
        records=min(max(limits.records, 1), r.MOST.records),
        bytes=min(max(limits.bytes, 1), r.MOST.bytes),
        looked=min(max(limits.looked, 1), r.MOST.looked),
    )
