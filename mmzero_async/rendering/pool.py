"""Warm renderer children behind one async call. A child that dies or hangs costs one render.

Knows no roles and reads no SVG itself. Renders are deterministic for one renderer id (engine,
fonts, size, rules) on one machine; what was rendered before is answered from a bounded cache.
A render that is cancelled gives its child away: no answer can reach the wrong caller.
"""

import asyncio
import contextlib
import hashlib
import re
import signal
from collections import OrderedDict
from collections.abc import Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

from mmzero_async.config import DrawingKind, RendererConfig
from mmzero_async.rendering.errors import RenderingError
from mmzero_async.rendering.fonts import font_files, fonts_digest
from mmzero_async.rendering.frames import Options, Reply, Request
from mmzero_async.rendering.kinds import KINDS as KINDS_OF_DRAWING
from mmzero_async.rendering.outcomes import FLEETING, KINDS, Outcome, Picture, RenderFailure
from mmzero_async.rendering.warm import Lost, WarmChild
from mmzero_async.schemas.writing import Writing

__all__ = ["Outcome", "Picture", "RenderFailure", "RenderPool"]

BLANK_INK = 0.002  # a picture with less ink shows nothing
CACHED_MIB = 32
_MAY_WRITE = re.compile(r"text|title|desc|aria-label")
APART_SECONDS = 2.0  # for a child that ends a render itself, and can go on, to say so
CPU_SHARE = 3.0  # wall limit over CPU limit: room for a busy machine


class RenderPool:
    """`async with RenderPool(config) as pool: outcome = await pool.render(svg)`

    As many renders run at once as there are children; further ones wait their turn, in order.
    `drawing` says what is drawn. `command` starts a child; another than the usual serves tests.
    """

    def __init__(
        self,
        config: RendererConfig,
        *,
        drawing: DrawingKind = "svg",
        cached_mib: int = CACHED_MIB,
        command: Sequence[str] = (),
    ) -> None:
        if config.children < 1:
            raise RenderingError("renderer.children must be 1 at least, or nothing is rendered")
        self._config = config
        self._drawing = KINDS_OF_DRAWING[drawing]
        self._command = command or self._drawing.command
        self._font_folder = self._drawing.fonts()
        self._options = Options(
            size=config.size,
            memory_mib=config.memory_mib,
            cpu_seconds=config.wall_seconds / CPU_SHARE,
            wall_seconds=config.wall_seconds,
            max_svg_bytes=config.max_svg_kib << 10,
            fonts=[str(path) for path in font_files(self._font_folder)],
            font_folder=str(self._font_folder),
            engine=config.engine,
            structure=config.structure,
        )
        self._open = False
        self._alive: set[WarmChild] = set()
        self._idle: asyncio.Queue[WarmChild | None] = asyncio.Queue()  # None: one to be started
        self._replacing: set[asyncio.Task[None]] = set()
        self._cache: _Cache[Outcome] = _Cache(cached_mib << 20)
        self._written: _Cache[Writing] = _Cache(cached_mib << 18)
        self._engine = ""
        self._isolation: tuple[str, ...] = ()

    @property
    def renderer_id(self) -> str:
        """What a picture depends on besides its drawing; complete once a child has started."""
        fonts = fonts_digest(self._font_folder)
        return f"{self._engine} {self._config.size}px fonts {fonts} rules {self._drawing.rules}"

    @property
    def isolation(self) -> tuple[str, ...]:
        """What confines the children here, e.g. ("process", "rlimits", "landlock")."""
        return self._isolation

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the children that are alive."""
        return tuple(sorted(child.pid for child in self._alive))

    async def __aenter__(self) -> Self:
        """RenderingError if no child can be started here."""
        self._open = True
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._config.children):
                    group.create_task(self._replace(None, strict=True))
        except BaseException as error:
            await asyncio.shield(self._close())
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.shield(self._close())

    async def render(self, svg: str) -> Outcome:
        """The picture, or why there is none.

        Raises for no text; RenderingError where the pool is not open or no child can start.
        """
        content = svg.encode("utf-8", "surrogatepass")
        limit = self._options.max_svg_bytes
        if len(content) > limit:
            return RenderFailure("too_large", f"{len(content)} bytes, at most {limit}")
        try:
            svg.encode()
        except UnicodeEncodeError as error:
            return RenderFailure("invalid", f"no valid text: {error.reason}")
        key = _key(content)
        if (known := self._cache.get(key)) is not None:
            return known
        reply = await self._asked(Request(svg))
        outcome = self._outcome(reply) if isinstance(reply, Reply) else reply
        if isinstance(outcome, Picture) or outcome.kind not in FLEETING:
            self._cache.put(key, outcome, _weight(outcome))
        return outcome

    async def writing(self, svg: str) -> Writing | None:
        """What is written in a drawing that was rendered; None where it cannot be found out.

        Costs several renders where there is text. Raises as `render` does.
        """
        if not self._drawing.tells_writing:
            return None
        if not _MAY_WRITE.search(svg):
            return Writing()
        key = _key(svg.encode("utf-8", "surrogatepass"))
        if (known := self._written.get(key)) is not None:
            return known
        reply = await self._asked(Request(svg, writing=True))
        if not isinstance(reply, Reply) or reply.writing is None:
            return None
        self._written.put(key, reply.writing, 64 * (1 + len(reply.writing.inscriptions)))
        return reply.writing

    async def _asked(self, request: Request) -> Reply | RenderFailure:
        """One answer of one child, which goes back to the queue if it is still sound."""
        self._check_open()
        child = await self._idle.get()
        sound = False
        try:
            self._check_open()
            if child is not None and child.gone:  # lost between renders: nobody's failure
                self._alive.discard(child)
                await child.end()
                child = None
            if child is None:
                child = await self._start()
            patience = self._config.wall_seconds + APART_SECONDS * child.ready.apart
            async with asyncio.timeout(patience):
                reply = await child.ask(request)
            sound = child.ready.apart or not reply.failure or _kind(reply) not in FLEETING
            return reply
        except TimeoutError:
            seconds = self._config.wall_seconds
            return RenderFailure("timeout", f"no reply within {seconds:g} s", seconds)
        except Lost as lost:
            assert child is not None
            status, words = await child.ended()
            self._check_open()  # closing ends children too: that says nothing about the SVG
            return _cause(lost, status, words)
        finally:
            if sound or not self._open:
                self._idle.put_nowait(child)
            else:
                task = asyncio.create_task(self._replace(child))
                self._replacing.add(task)
                task.add_done_callback(self._replacing.discard)

    async def _start(self) -> WarmChild:
        child = await WarmChild.start(self._options, self._command)
        if not self._open:  # closed meanwhile
            await child.end()
            self._check_open()
        self._alive.add(child)
        self._engine, self._isolation = child.ready.engine, tuple(child.ready.isolation)
        return child

    async def _replace(self, lost: WarmChild | None, *, strict: bool = False) -> None:
        """Queues a fresh child for a lost one; no caller waits for it.

        Where it does not start, the next render tries again and meets the error; `strict` raises.
        """
        fresh = None
        try:
            if lost is not None:
                await asyncio.shield(lost.end())
                self._alive.discard(lost)
            with contextlib.suppress(*(() if strict else (RenderingError,))):
                fresh = await self._start()
        finally:
            self._idle.put_nowait(fresh)

    async def _close(self) -> None:
        """Ends every child, also of renders that still run: these raise RenderingError."""
        self._open = False
        for task in self._replacing:
            task.cancel()
        await asyncio.gather(*self._replacing, return_exceptions=True)
        self._idle.put_nowait(None)  # whoever waits for a child is woken, and wakes the next
        for child in tuple(self._alive):
            await child.end()
        self._alive.clear()

    def _check_open(self) -> None:
        if not self._open:
            raise RenderingError("the pool is closed: render inside `async with RenderPool(...)`")

    def _outcome(self, reply: Reply) -> Outcome:
        if reply.failure:
            return RenderFailure(_kind(reply), reply.detail, reply.seconds)
        if reply.ink < BLANK_INK:
            detail = f"{reply.ink:.2%} of the pixels are drawn on"
            return RenderFailure("blank", detail, reply.seconds, reply.ink)
        size = self._config.size
        return Picture(
            reply.png,
            size,
            size,
            reply.mended,
            reply.ink,
            reply.seconds,
            reply.fingerprint,
            reply.structure,
        )


def _cause(lost: Lost, status: int, words: str) -> RenderFailure:
    """What ended a child: its CPU timer, an allocation that failed, or something else."""
    if status == -signal.SIGPROF:
        return RenderFailure("timeout", "its CPU time ran out")
    refused = [line for line in words.splitlines() if "memory allocation" in line]
    if status == -signal.SIGABRT and refused:
        return RenderFailure("memory", refused[-1])
    return RenderFailure("crashed", f"{lost}, status {status}: {words[-200:]}")


def _kind(reply: Reply) -> str:
    return reply.failure if reply.failure in KINDS else "crashed"


def _key(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


T = TypeVar("T")


class _Cache(Generic[T]):
    """The least recently used answers, within a sum of weights."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._answers: OrderedDict[bytes, tuple[T, int]] = OrderedDict()

    def get(self, key: bytes) -> T | None:
        if key not in self._answers:
            return None
        self._answers.move_to_end(key)
        return self._answers[key][0]

    def put(self, key: bytes, answer: T, weight: int) -> None:
        if key not in self._answers:
            self._held += weight
            self._answers[key] = (answer, weight)
        while self._held > self._limit and self._answers:
            _, (_, old) = self._answers.popitem(last=False)
            self._held -= old


def _weight(outcome: Outcome) -> int:
    return 512 + (len(outcome.png) if isinstance(outcome, Picture) else len(outcome.detail))
