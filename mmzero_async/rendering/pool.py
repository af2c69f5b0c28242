"""Warm renderer children behind one async call. A child that dies or hangs costs one render.

Knows no roles and reads no SVG itself. Renders are deterministic for one renderer id (engine,
fonts, options) on one machine; what was rendered before is answered from a bounded cache.
"""

import asyncio
import contextlib
import hashlib
import os
import signal
import sys
import tempfile
from collections import OrderedDict
from importlib import metadata
from types import TracebackType
from typing import IO, Self

import msgspec

from mmzero_async.config import RendererConfig
from mmzero_async.rendering.child import LENGTH, Options, Ready, Reply, Request
from mmzero_async.rendering.errors import RenderingError
from mmzero_async.rendering.fonts import font_files, font_folder, fonts_digest
from mmzero_async.rendering.outcomes import Outcome, Picture, RenderFailure

__all__ = ["Outcome", "Picture", "RenderFailure", "RenderPool"]

BLANK_INK = 0.002  # a picture with less ink shows nothing
CACHED_MIB = 32
MAX_REPLY = 64 << 20
START_SECONDS = 60.0
CPU_SHARE = 3.0  # wall limit over CPU limit: room for a busy machine
# What the same text need not meet again: never answered from the cache.
FLEETING = frozenset({"timeout", "memory", "crashed"})


class _Child:
    """One warm process. After any failure it is unusable and must be ended."""

    def __init__(self, process: asyncio.subprocess.Process, errors: IO[bytes]) -> None:
        self.process = process
        self._errors = errors  # its standard error

    @classmethod
    async def start(cls, options: Options) -> tuple[Self, Ready]:
        """RenderingError when it does not come up."""
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        environment = {
            key: os.environ[key]
            for key in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "HOME")
            if key in os.environ
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mmzero_async.rendering.child"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            # A first panic takes 60-100 ms longer with a backtrace.
            env={**environment, "RUST_BACKTRACE": "0"},
        )
        child = cls(process, errors)
        try:
            async with asyncio.timeout(START_SECONDS):
                ready = msgspec.msgpack.decode(await child._ask(options), type=Ready)
        except (asyncio.IncompleteReadError, OSError, TimeoutError) as error:
            status = await child.end()
            raise RenderingError(
                f"a renderer child did not start (status {status}): {child.last_words()!r}. Run "
                f"`{sys.executable} -m mmzero_async.rendering.child </dev/null` to see why, and "
                "check renderer.memory_mib"
            ) from error
        except BaseException:
            await asyncio.shield(child.end())
            raise
        return child, ready

    async def render(self, svg: str) -> Reply:
        """IncompleteReadError or OSError when the child is gone."""
        return msgspec.msgpack.decode(await self._ask(Request(svg)), type=Reply)

    async def _ask(self, message: msgspec.Struct) -> bytes:
        assert self.process.stdin is not None and self.process.stdout is not None
        data = msgspec.msgpack.encode(message)
        self.process.stdin.write(LENGTH.pack(len(data)) + data)
        await self.process.stdin.drain()
        (length,) = LENGTH.unpack(await self.process.stdout.readexactly(LENGTH.size))
        if length > MAX_REPLY:
            raise ConnectionError(f"a reply of {length} bytes")
        return await self.process.stdout.readexactly(length)

    def last_words(self) -> str:
        """The end of its standard error."""
        with contextlib.suppress(OSError, ValueError):
            end = self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, end - 400))
            return self._errors.read().decode(errors="replace").strip()
        return ""

    async def end(self) -> int:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        return await self.process.wait()


class RenderPool:
    """`async with RenderPool(config) as pool: outcome = await pool.render(svg)`

    As many renders run at once as there are children; further ones wait their turn.
    """

    def __init__(self, config: RendererConfig, *, cached_mib: int = CACHED_MIB) -> None:
        self._wall = config.wall_seconds
        self._children = config.children
        self._options = Options(
            size=config.size,
            memory_mib=config.memory_mib,
            cpu_seconds=config.wall_seconds / CPU_SHARE,
            max_svg_bytes=config.max_svg_kib << 10,
            fonts=[str(path) for path in font_files()],
            font_folder=str(font_folder()),
        )
        self._idle: asyncio.Queue[_Child | None] = asyncio.Queue()
        self._replacing: set[asyncio.Task[None]] = set()
        self._cache = _Cache(cached_mib << 20)
        self.renderer_id = (
            f"resvg-py {metadata.version('resvg_py')} fonts {fonts_digest()} "
            f"{config.size}px rules 1"
        )
        self.isolation = ""  # known once a child runs, e.g. "process, rlimits, landlock"

    async def __aenter__(self) -> Self:
        """RenderingError if no child can be started here."""
        for _ in range(self._children):
            self._idle.put_nowait(await self._start())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._replacing:
            task.cancel()
        await asyncio.gather(*self._replacing, return_exceptions=True)
        while not self._idle.empty():
            child = self._idle.get_nowait()
            if child is not None:
                await child.end()

    async def render(self, svg: str) -> Outcome:
        """The picture, or why there is none. Raises for no text, only when no child can start."""
        content = svg.encode("utf-8", "surrogatepass")
        if len(content) > self._options.max_svg_bytes:
            limit = self._options.max_svg_bytes
            return RenderFailure("too_large", f"{len(content)} bytes, at most {limit}")
        key = hashlib.blake2b(content, digest_size=16).digest()
        if (known := self._cache.get(key)) is not None:
            return known
        try:
            svg.encode()
        except UnicodeEncodeError as error:
            return RenderFailure("invalid", f"no valid text: {error.reason}")
        outcome = await self._guarded(svg)
        if isinstance(outcome, Picture) or outcome.kind not in FLEETING:
            self._cache.put(key, outcome)
        return outcome

    async def _start(self) -> _Child:
        child, ready = await _Child.start(self._options)
        self.isolation = ", ".join(ready.isolation)
        return child

    async def _guarded(self, svg: str) -> Outcome:
        """One render in one child, which goes back to the queue if it is still sound."""
        child = await self._idle.get()
        sound = False
        try:
            if child is None:
                child = await self._start()
            async with asyncio.timeout(self._wall):
                reply = await child.render(svg)
            sound = reply.failure not in FLEETING
            return self._outcome(reply)
        except TimeoutError:
            return RenderFailure("timeout", f"no picture after {self._wall:g} s", self._wall)
        except (asyncio.IncompleteReadError, OSError):
            assert child is not None
            status = await child.process.wait()
            return _cause(status, child.last_words())
        finally:
            if sound:
                self._idle.put_nowait(child)
            else:
                task = asyncio.create_task(self._replace(child))
                self._replacing.add(task)
                task.add_done_callback(self._replacing.discard)

    async def _replace(self, child: _Child | None) -> None:
        """A fresh child for a lost one, without the caller waiting; the next render tries again
        where this one cannot start it."""
        fresh = None
        try:
            if child is not None:
                await asyncio.shield(child.end())
            with contextlib.suppress(RenderingError):
                fresh = await self._start()
        finally:
            self._idle.put_nowait(fresh)

    def _outcome(self, reply: Reply) -> Outcome:
        if reply.failure:
            return RenderFailure(reply.failure, reply.detail, reply.seconds)
        if reply.ink < BLANK_INK:
            detail = f"{reply.ink:.2%} of the pixels are drawn on"
            return RenderFailure("blank", detail, reply.seconds)
        size = self._options.size
        return Picture(reply.png, size, size, reply.ink, reply.mended, reply.seconds)


def _cause(status: int, last_words: str) -> RenderFailure:
    """What ended a child: its CPU timer, an allocation that failed, or something else."""
    if status == -signal.SIGPROF:
        return RenderFailure("timeout", "its CPU time ran out")
    if status == -signal.SIGABRT and "memory allocation" in last_words:
        return RenderFailure("memory", last_words[-200:])
    return RenderFailure("crashed", f"the child ended with status {status}: {last_words[-200:]}")


class _Cache:
    """The least recently used outcomes, within a number of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._outcomes: OrderedDict[bytes, Outcome] = OrderedDict()

    def get(self, key: bytes) -> Outcome | None:
        if key in self._outcomes:
            self._outcomes.move_to_end(key)
        return self._outcomes.get(key)

    def put(self, key: bytes, outcome: Outcome) -> None:
        if key not in self._outcomes:
            self._held += _weight(outcome)
        self._outcomes[key] = outcome
        while self._held > self._limit and self._outcomes:
            _, old = self._outcomes.popitem(last=False)
            self._held -= _weight(old)


def _weight(outcome: Outcome) -> int:
    return 512 + (len(outcome.png) if isinstance(outcome, Picture) else len(outcome.detail))
