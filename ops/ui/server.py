"""The HTTP server: the page's files, its state as server-sent events, drawings, pictures, audit.

Reads of the log run in threads of their own, so that the loop never waits for a disk; each kind of
them has few, so that nobody's requests pile up.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from mmzero_async.config import Config
from mmzero_async.log.errors import BlobDropped, BlobMissing, LogError
from mmzero_async.log.interface import View
from mmzero_async.ops.ui.auditor import Auditor
from mmzero_async.ops.ui.follower import Follower
from mmzero_async.ops.ui.gallery import MOST, Gallery
from mmzero_async.ops.ui.guard import guarding, with_headers
from mmzero_async.ops.ui.live import Ask, Board
from mmzero_async.ops.ui.moments import moments
from mmzero_async.ops.ui.wanted import WantedError, count_of, parse_wanted
from mmzero_async.schemas.record import RecordDamaged
from mmzero_async.transport.errors import TransportError

WATCHERS = 16  # pages that are kept up to date at once
WAITING = 32  # requests that may wait for a read of the log
ALIVE_SECONDS = 10.0  # between two signs of life on a page's line
LAST_OFFSET = 2**63 - 1
PNG = b"\x89PNG\r\n\x1a\n"
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".LICENSE": "text/plain",
}
T = TypeVar("T")


@dataclass(slots=True)
class Ui:
    """One dashboard over one log."""

    reader: View
    config: Config
    ask: Ask
    token: str = ""
    follower: Follower = field(init=False)
    auditor: Auditor = field(init=False)
    board: Board = field(init=False)
    gallery: Gallery = field(init=False)
    _one: ThreadPoolExecutor = field(init=False)
    _pictures: ThreadPoolExecutor = field(init=False)
    _waiting: int = 0

    def __post_init__(self) -> None:
        self.follower = Follower(self.reader, self.config)
        self.auditor = Auditor(self.reader)
        self.board = Board(self.follower, self.auditor, self.config, self.ask)
        self.gallery = Gallery(self.reader)
        self._one = ThreadPoolExecutor(1, "gallery")
        self._pictures = ThreadPoolExecutor(2, "pictures")

    def app(self) -> web.Application:
        app = web.Application(middlewares=guarding(self.token), client_max_size=1024)
        app.on_response_prepare.append(with_headers)
        app.cleanup_ctx.append(self._running)
        app.on_shutdown.append(self._closing)
        files = _files()
        app.router.add_get("/", _serve(files["index.html"]))
        for name, (content, kind) in files.items():
            app.router.add_get(f"/static/{name}", _serve((content, kind)))
        app.router.add_get("/api/state", self._state)
        app.router.add_get("/api/events", self._events)
        app.router.add_get("/api/curves", self._curves)
        app.router.add_get("/api/drawings", self._newest)
        app.router.add_get("/api/informative", self._informative)
        app.router.add_get("/api/drawings/{id}", self._whole)
        app.router.add_get("/api/moments", self._moments)
        app.router.add_get("/api/pictures/{digest}.png", self._picture)
        app.router.add_post("/api/audit", self._audit)
        return app

    async def _running(self, _: web.Application) -> AsyncIterator[None]:
        self.follower.start()
        board = asyncio.create_task(self.board.run())
        yield
        board.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await board
        await asyncio.to_thread(self._stop)

    async def _closing(self, _: web.Application) -> None:
        await self.board.close()

    def _stop(self) -> None:
        self.auditor.stop()
        self.follower.stop()
        self._one.shutdown()
        self._pictures.shutdown()

    # --- answers -------------------------------------------------------------------------------

    async def _state(self, _: web.Request) -> web.Response:
        return _json(self.board.tell())

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if self.board.watchers >= WATCHERS:
            raise web.HTTPServiceUnavailable(text=f"{WATCHERS} pages are open already\n")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        with self.board.watching():
            await response.prepare(request)
            number = self.board.number
            with contextlib.suppress(ConnectionError):
                await _send(response, self.board.tell())
                while not self.board.closing:
                    news = await self.board.newer(number, ALIVE_SECONDS)
                    if news is None:
                        await response.write(b": still here\n\n")
                    else:
                        number, state = news
                        await _send(response, state)
        return response

    async def _curves(self, _: web.Request) -> web.Response:
        return _json(self.follower.curves)

    async def _newest(self, request: web.Request) -> web.Response:
        query = request.query
        with _said():
            wanted = parse_wanted(query)
            before = count_of(query, "before", LAST_OFFSET, LAST_OFFSET)
            after = count_of(query, "after", 0, LAST_OFFSET)
            limit = max(1, count_of(query, "limit", 24, MOST))
        named = query.get("ids")
        if named is not None:  # how those that somebody looks at are getting on
            these = named.split(",")[:MOST]
            found = await self._read(self._one, lambda: self.gallery.these(these, MOST, wanted))
        else:
            found = await self._read(
                self._one, lambda: self.gallery.newest(before, after, limit, wanted)
            )
        return _json(msgspec.json.encode(found.figures()))

    async def _informative(self, request: web.Request) -> web.Response:
        with _said():
            wanted = parse_wanted(request.query)
            limit = max(1, count_of(request.query, "limit", 24, MOST))
            first = count_of(request.query, "first", 0, LAST_OFFSET)
        named = self.follower.look.informative
        found = await self._read(self._one, lambda: self.gallery.these(named, limit, wanted, first))
        return _json(msgspec.json.encode(found.figures()))

    async def _whole(self, request: web.Request) -> web.Response:
        drawing = request.match_info["id"]
        found = await self._read(self._one, lambda: self.gallery.whole(drawing))
        if found is None:
            raise web.HTTPNotFound(text="the log knows no such drawing\n")
        return _json(msgspec.json.encode(found))

    async def _moments(self, _: web.Request) -> web.Response:
        look = self.follower.look
        return _json(msgspec.json.encode(moments(look.end, look.iterations, look.versions)))

    async def _picture(self, request: web.Request) -> web.Response:
        digest = request.match_info["digest"]
        try:
            data = await self._read(self._pictures, lambda: self.reader.blob(digest))
        except BlobDropped as error:
            raise web.HTTPGone(text=f"{error}\n") from None
        except BlobMissing as error:
            raise web.HTTPNotFound(text=f"{error}\n") from None
        if not data.startswith(PNG):  # whatever it is, it is not shown
            raise web.HTTPUnsupportedMediaType(text=f"blob {digest} is no PNG\n")
        # A digest names these bytes for ever.
        cache = {"Cache-Control": "private, max-age=31536000, immutable"}
        return web.Response(body=data, content_type="image/png", headers=cache)

    async def _audit(self, _: web.Request) -> web.Response:
        started = self.auditor.start()
        return web.json_response({"started": started}, status=202 if started else 409)

    async def _read(self, pool: ThreadPoolExecutor, read: Callable[[], T]) -> T:
        if self._waiting >= WAITING:
            raise web.HTTPServiceUnavailable(text="too many requests wait for the log\n")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, read)
        except (BlobDropped, BlobMissing):
            raise
        except (LogError, RecordDamaged, TransportError) as error:
            raise web.HTTPInternalServerError(text=f"{error}\n") from None
        finally:
            self._waiting -= 1


@contextlib.contextmanager
def _said() -> Iterator[None]:
    """What is wrong with a query, as an answer."""
    try:
        yield
    except WantedError as error:
        raise web.HTTPBadRequest(text=f"{error}\n") from None


async def _send(response: web.StreamResponse, state: bytes) -> None:
    await response.write(b"event: state\ndata: " + state + b"\n\n")


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


def _serve(file: tuple[bytes, str]) -> Any:
    content, kind = file

    async def serve(_: web.Request) -> web.Response:
        return web.Response(body=content, content_type=kind, charset="utf-8")

    return serve


def _files() -> dict[str, tuple[bytes, str]]:
    """Name -> (bytes, type) of all that the page consists of."""
    found: dict[str, tuple[bytes, str]] = {}
    folder = resources.files("mmzero_async.ops.ui").joinpath("static")
    for place, prefix in ((folder, ""), (folder.joinpath("vendor"), "vendor/")):
        for file in place.iterdir():
            kind = TYPES.get("." + file.name.rpartition(".")[2])
            if kind is not None and file.is_file():
                found[prefix + file.name] = (file.read_bytes(), kind)
    return found
