"""The parent's end of one child: started, asked, ended. Knows no queue and no outcome.

Guarantees that a child that was started is either usable or ended, also when the caller is
cancelled; after any exception from `ask` it is unusable and must be ended.
"""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Sequence
from typing import IO, Self, TypeVar

import msgspec

from mmzero_async.rendering.errors import RenderingError
from mmzero_async.rendering.frames import LENGTH, Options, Ready, Reply, Request, framed

START_SECONDS = 60.0
GRACE_SECONDS = 1.0  # for a child whose pipe ended to end too, and so to tell why
# Pixels are in blocks of megabytes, allocated and freed at each render: kept, not given back to the
# kernel, which would clear each of their pages again.
_KEPT = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "33554432"}
_KEPT |= {"MALLOC_TRIM_THRESHOLD_": "134217728"}
_INHERITED = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "HOME")
_OVERHEAD = 1 << 18  # of a reply over its pixels; what is written is within it

_Answer = TypeVar("_Answer", Ready, Reply)


class Lost(Exception):
    """The child is gone or babbles; `ended()` tells more."""


class WarmChild:
    """One process that has said Ready."""

    def __init__(
        self, process: asyncio.subprocess.Process, errors: IO[bytes], max_reply: int
    ) -> None:
        self._process = process
        self._errors = errors  # its standard error
        self._max_reply = max_reply
        self.ready = Ready([], "")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def gone(self) -> bool:
        """Whether its end has been noticed."""
        return self._process.returncode is not None

    @classmethod
    async def start(cls, options: Options, command: Sequence[str]) -> Self:
        """RenderingError when it does not come up."""
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        environment = {key: os.environ[key] for key in _INHERITED if key in os.environ}
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                # A first panic takes 60-100 ms longer with a backtrace; a program may draw what
                # lies in a set, in the set's order.
                env={
                    **environment,
                    **_KEPT,
                    "RUST_BACKTRACE": "0",
                    "PYTHONHASHSEED": "0",
                },
            )
        except OSError as error:
            errors.close()
            raise RenderingError(
                f"a renderer child cannot be started: {command[0]}: {error.strerror}. Check that "
                "the file is there and that the user may have more processes (ulimit -u)"
            ) from error
        except BaseException:
            errors.close()
            raise
        child = cls(process, errors, options.size * options.size * 4 + _OVERHEAD)
        try:
            async with asyncio.timeout(START_SECONDS):
                child.ready = await child._ask(options, Ready)
        except (Lost, TimeoutError) as error:
            status, words = await child.ended()
            raise RenderingError(
                f"a renderer child did not start (status {status}): {words or error}. Check that "
                f"renderer.memory_mib ({options.memory_mib}) is enough, and run "
                f"`{' '.join(command[:3])} </dev/null` to see whether it can be imported"
            ) from error
        except BaseException:
            await asyncio.shield(child.end())
            raise
        return child

    async def ask(self, request: Request) -> Reply:
        """The child's answer; Lost when there will be none."""
        return await self._ask(request, Reply)

    async def ended(self) -> tuple[int, str]:
        """Its status and last words; it is killed unless it ends by itself at once."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                await self._process.wait()
        words = self._last_words()
        return await self.end(), words

    async def end(self) -> int:
        """Kills it; may be called again."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        status = await self._process.wait()
        self._errors.close()
        if self._process.stdin is not None:  # or it outlives the event loop
            self._process.stdin.close()
            with contextlib.suppress(ConnectionError):
                await self._process.stdin.wait_closed()
        return status

    async def _ask(self, message: msgspec.Struct, kind: type[_Answer]) -> _Answer:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(framed(message))
            await self._process.stdin.drain()
            (length,) = LENGTH.unpack(await self._process.stdout.readexactly(LENGTH.size))
            if length > self._max_reply:
                raise Lost(f"a reply of {length} bytes")
            data = await self._process.stdout.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Lost("its pipe ended") from error
        try:
            return msgspec.msgpack.decode(data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Lost(f"an unreadable reply: {error}") from error

    def _last_words(self) -> str:
        """The end of its standard error."""
        with contextlib.suppress(OSError, ValueError):
            end = self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, end - 400))
            return self._errors.read().decode(errors="replace").strip()
        return ""
