"""Sends a host's log lines to the read server, one batch at a time: its answer is the credit.

A batch that is not answered is sent again under its number, so a server that is away or restarted
gets it once.
"""

import contextlib
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from mmzero_async.transport import reading as r
from mmzero_async.transport.errors import BadMessage, WorkerRefused
from mmzero_async.transport.keys import ClientKeys
from mmzero_async.transport.messages import encode
from mmzero_async.transport.sockets import REQUEST_BYTES, read_client_socket

BATCH_BYTES = REQUEST_BYTES - (8 << 10)  # of lines in one request; the rest is their packing
RESEND_SECONDS = 1.0


class LineSender:
    """ValueError for what is no address; NotSecured. Close it."""

    def __init__(
        self,
        url: str,
        host: str,
        keys: ClientKeys | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._socket: zmq.Socket[Any] = read_client_socket(
                self._context, url, keys, most_queued=1
            )
        except BaseException:
            self._context.term()
            raise
        self._host, self._sender, self._clock = host, uuid.uuid4().hex, clock
        self._number, self._frame, self._sent = 0, b"", 0.0
        self._since = clock()

    @property
    def free(self) -> bool:
        """Whether the next batch may be sent."""
        return not self._frame

    @property
    def unanswered_seconds(self) -> float:
        """Since the batch on its way was first sent; 0.0 when none is."""
        return 0.0 if self.free else self._clock() - self._since

    def send(self, lines: Sequence[bytes]) -> None:
        """A batch of at most BATCH_BYTES, when `free`."""
        self._number += 1
        batch = r.Lines(id=self._number, host=self._host, sender=self._sender, lines=list(lines))
        self._frame, self._since = encode(batch), self._clock()
        self._say()

    def wait(self, seconds: float) -> bool:
        """Waits so long for the answer, and sends again what has none; whether it has come.

        WorkerRefused when the server will not have our lines.
        """
        if self.free:
            return False
        if self._socket.poll(round(seconds * 1000)):
            reply = self._reply()
            if isinstance(reply, r.ReadFailed):
                raise WorkerRefused(
                    f"the read server takes no lines: {reply.reason}", for_good=True
                )
            if reply is not None and reply.id == self._number:
                self._frame = b""
                return True
        if self._clock() - self._sent >= RESEND_SECONDS:
            self._say()
        return False

    def _reply(self) -> r.Reply | None:
        frame, *_ = self._socket.recv_multipart()
        try:
            return r.decode_reply(frame)
        except BadMessage:
            return None  # nobody that we know speaks so: as good as no answer

    def _say(self) -> None:
        """Lost when there is no line to the server: it is said again."""
        self._sent = self._clock()
        with contextlib.suppress(zmq.Again):
            self._socket.send(self._frame, zmq.NOBLOCK)

    def close(self) -> None:
        self._context.destroy(linger=0)
