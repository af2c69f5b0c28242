"""A reader of a log on another host: the interface of the local one, page by page over ZeroMQ.

Every record's checksum and every blob's digest is checked here, at the end of its way. A request
that is not answered is sent again, so a server that is restarted is only waited for.
"""

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from typing import Any, TypeAlias

import zmq
import zmq.asyncio

from mmzero_async.log import errors as log_errors
from mmzero_async.log.errors import ForeignLog, LogError
from mmzero_async.log.interface import SNAPSHOT_SECONDS
from mmzero_async.log.query import Limits, Page
from mmzero_async.log.snapshot import over
from mmzero_async.log.where import ANYTHING, Where, WhereError
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.record import Record, RecordDamaged, decode_record
from mmzero_async.transport import reading as r
from mmzero_async.transport.errors import BadMessage, NotReachable
from mmzero_async.transport.keys import ClientKeys
from mmzero_async.transport.messages import encode
from mmzero_async.transport.sockets import read_client_socket

RESEND_SECONDS = 1.0
PATIENCE = 30.0  # seconds without any answer
WAIT_SECONDS = 2.0  # that the server may hold a request of a reader that follows

Frames: TypeAlias = Sequence[Any]  # zmq.Frame
_SORTS: dict[str, type[Exception]] = {
    "RecordDamaged": RecordDamaged,
    "WhereError": WhereError,
    "BadMessage": BadMessage,
}


class RemoteReader:
    """Use `open`. May be called from any thread, one call at a time; `follow` has its own line."""

    def __init__(self, url: str, keys: ClientKeys | None, patience: float) -> None:
        self._url, self._keys, self._patience = url, keys, patience
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._socket = read_client_socket(self._context, url, keys)
        except BaseException:
            self._context.term()
            raise
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._asked: dict[int, bytes] = {}  # requests without an answer
        self._answers: dict[int, tuple[r.Reply, Frames]] = {}
        self._run = ""

    @classmethod
    def open(
        cls, url: str, *, keys: ClientKeys | None = None, patience: float = PATIENCE
    ) -> "RemoteReader":
        """NotReachable when no read server answers, or not to our key; ValueError for what is no
        address, NotSecured for another host's without keys."""
        reader = cls(url, keys, patience)
        try:
            reader._end()
        except BaseException:
            reader.close()
            raise
        return reader

    # --- the interface -------------------------------------------------------------------------

    @property
    def run(self) -> str:
        return self._run

    @property
    def next_offset(self) -> int:
        return self._end()

    def get(self, offset: int) -> Record:
        page = self.page(start=offset, stop=offset + 1, limits=Limits(records=1))
        if not page.records or offset < 0:
            raise LogError(f"{self._url} has no event at offset {offset}")
        return page.records[0]

    def page(
        self,
        where: Where = ANYTHING,
        start: int = 0,
        stop: int | None = None,
        limits: Limits = r.MOST,
    ) -> Page:
        return self._page_of(self._take(self._ask_page(where, start, stop, limits)))

    def scan(
        self, start: int = 0, stop: int | None = None, where: Where = ANYTHING
    ) -> Iterator[Record]:
        asked = self._ask_page(where, start, stop, r.MOST)
        try:
            while True:
                page = self._page_of(self._take(asked))
                at_end = page.next >= (page.end if stop is None else min(stop, page.end))
                if not at_end:  # the server reads the next page while this one is used
                    asked = self._ask_page(where, page.next, stop, r.MOST)
                yield from page.records
                if at_end:
                    return
        finally:
            self._forget(asked)

    def blob(self, digest: str) -> bytes:
        _, frames = self._take(self._ask(lambda i: r.ReadBlob(id=i, digest=digest[:256])))
        data = bytes(frames[0].buffer) if frames else b""
        if blob_digest(data) != digest:
            raise RecordDamaged(f"{self._url}: blob {digest} is damaged")
        return data

    def has_blob(self, digest: str) -> bool:
        ask = self._ask(lambda i: r.ReadBlob(id=i, digest=digest[:256], look=True))
        return bool(self._take(ask)[0].there)

    @contextlib.contextmanager
    def snapshot(self, seconds: float = SNAPSHOT_SECONDS) -> Iterator["RemoteSnapshot"]:
        """The log as it is now: events are only added, so its end says it all."""
        view = RemoteSnapshot(self, self._end(), seconds)
        try:
            yield view
        finally:
            view.close()

    async def follow(self, start: int = 0, where: Where = ANYTHING) -> AsyncGenerator[Record, None]:
        async with self._line() as line:
            while True:
                page = await line.page(where, start, r.MOST, WAIT_SECONDS)
                for record in page.records:
                    yield record
                start = page.next

    async def wait(self, offset: int, *, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        async with self._line() as line:
            while True:
                left = deadline - time.monotonic()
                hold = min(max(left, 0.0), WAIT_SECONDS)
                page = await line.page(ANYTHING, offset, Limits(1, 1, 1), hold)
                if page.end > offset or left <= 0:
                    return page.end > offset

    def close(self) -> None:
        self._socket.close(0)
        self._context.term()

    # --- asking and being answered -------------------------------------------------------------

    def _end(self) -> int:
        return self._take(self._ask(lambda i: r.ReadEnd(id=i)))[0].end

    def _ask_page(self, where: Where, start: int, stop: int | None, limits: Limits) -> int:
        return self._ask(lambda i: page_request(i, where, start, stop, limits))

    def _ask(self, make: Callable[[int], r.Request]) -> int:
        """Sends a request; its number, under which the answer is to be taken or forgotten."""
        with self._lock:
            number = next(self._ids)
            self._asked[number] = encode(make(number))
            self._socket.send(self._asked[number])
        return number

    def _take(self, number: int) -> tuple[r.ReadReply, Frames]:
        """The answer, however long the server is being restarted. NotReachable."""
        began = sent = time.monotonic()
        with self._lock:
            while number not in self._answers:
                now = time.monotonic()
                if now - began > self._patience:
                    self._asked.pop(number, None)
                    raise not_reachable(self._url, self._patience)
                if now - sent > RESEND_SECONDS:
                    sent = now
                    with contextlib.suppress(zmq.Again):
                        self._socket.send(self._asked[number], zmq.NOBLOCK)
                if self._socket.poll(100):
                    self._keep(self._socket.recv_multipart(copy=False))
            reply, frames = self._answers.pop(number)
        return self._checked(reply), frames

    def _keep(self, frames: Frames) -> None:
        """What nobody waits for any more, or came twice, is let go."""
        reply = r.decode_reply(frames[0].buffer)
        number = next(iter(self._asked), 0) if reply.id < 0 else reply.id
        if self._asked.pop(number, None) is not None:
            self._answers[number] = (reply, frames[1:])

    def _forget(self, number: int) -> None:
        with self._lock:
            self._asked.pop(number, None)
            self._answers.pop(number, None)

    def _checked(self, reply: r.Reply) -> r.ReadReply:
        """Raises what the server met, as a local reader would."""
        if isinstance(reply, r.ReadFailed):
            sort = _SORTS.get(reply.sort) or getattr(log_errors, reply.sort, None)
            known = isinstance(sort, type) and issubclass(sort, Exception)
            raise (sort if known else LogError)(reply.reason)  # type: ignore[misc]
        if self._run and reply.run != self._run:
            raise ForeignLog(
                f"{self._url} served run {self._run!r} and now serves {reply.run!r}: open it anew"
            )
        self._run = reply.run
        return reply

    def _page_of(self, answer: tuple[r.ReadReply, Frames]) -> Page:
        reply, frames = answer
        return unpacked(reply, frames, self._url)

    @contextlib.asynccontextmanager
    async def _line(self) -> AsyncIterator["_Line"]:
        context = zmq.asyncio.Context()
        try:
            socket = read_client_socket(context, self._url, self._keys)
            try:
                yield _Line(self, socket)
            finally:
                socket.close(0)
        finally:
            context.term()


class _Line:
    """A connection of its own on the event loop, one request at a time."""

    def __init__(self, reader: RemoteReader, socket: Any) -> None:
        self._reader, self._socket = reader, socket
        self._ids = itertools.count(1)

    async def page(self, where: Where, start: int, limits: Limits, wait: float) -> Page:
        number = next(self._ids)
        request = encode(page_request(number, where, start, None, limits, wait))
        patience = self._reader._patience + wait
        try:
            async with asyncio.timeout(patience):
                while True:
                    await self._socket.send(request)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(wait + RESEND_SECONDS):
                            return await self._answer(number)
        except TimeoutError:
            raise not_reachable(self._reader._url, patience) from None

    async def _answer(self, number: int) -> Page:
        while True:
            head, *frames = await self._socket.recv_multipart(copy=False)
            reply = r.decode_reply(head.buffer)
            if reply.id in (number, -1):
                return unpacked(self._reader._checked(reply), frames, self._reader._url)


class RemoteSnapshot:
    """A remote log up to the end that it had, for a bounded time."""

    def __init__(self, reader: RemoteReader, end: int, seconds: float) -> None:
        self._reader, self._last, self._seconds = reader, end, seconds
        self._until = time.monotonic() + seconds

    @property
    def run(self) -> str:
        return self._live().run

    @property
    def next_offset(self) -> int:
        self._live()
        return self._last

    def get(self, offset: int) -> Record:
        if offset >= self._last:
            raise LogError(f"{self._reader._url} had no event at offset {offset} yet")
        return self._live().get(offset)

    def page(
        self,
        where: Where = ANYTHING,
        start: int = 0,
        stop: int | None = None,
        limits: Limits = r.MOST,
    ) -> Page:
        stop = self._last if stop is None else min(stop, self._last)
        page = self._live().page(where, start, stop, limits)
        return page._replace(end=self._last)

    def scan(
        self, start: int = 0, stop: int | None = None, where: Where = ANYTHING
    ) -> Iterator[Record]:
        stop = self._last if stop is None else min(stop, self._last)
        for record in self._live().scan(start, stop, where):
            yield record
            self._live()

    def blob(self, digest: str) -> bytes:
        return self._live().blob(digest)

    def has_blob(self, digest: str) -> bool:
        return self._live().has_blob(digest)

    def close(self) -> None:
        self._until = 0.0

    def _live(self) -> RemoteReader:
        if time.monotonic() > self._until:
            raise over(self._reader._url, self._seconds)
        return self._reader


def page_request(
    number: int,
    where: Where,
    start: int,
    stop: int | None,
    limits: Limits,
    wait: float = 0.0,
) -> r.ReadPage:
    return r.ReadPage(
        id=number,
        start=max(start, 0),
        stop=None if stop is None else max(stop, 0),
        where=str(where),
        limits=limits,
        wait=wait,
    )


def unpacked(reply: r.ReadReply, frames: Frames, url: str) -> Page:
    """The records of a page, each checked. RecordDamaged; BadMessage when the frame is short."""
    data = memoryview(frames[0].buffer if frames else b"")
    if len(reply.offsets) != len(reply.sizes) or sum(reply.sizes) != len(data):
        raise BadMessage(f"{url} sent a page that does not fit its own description")
    ends = itertools.accumulate(reply.sizes)
    records = [
        decode_record(offset, data[end - size : end])
        for offset, size, end in zip(reply.offsets, reply.sizes, ends, strict=True)
    ]
    return Page(records, reply.next, reply.end)


def not_reachable(url: str, patience: float) -> NotReachable:
    return NotReachable(
        f"no read server answers at {url} within {patience:.0f} s: is the run up? Its address "
        "stands in log.read.url in the run's folder; one that has keys answers only to a key that "
        "is authorised there (--key FILE)"
    )
