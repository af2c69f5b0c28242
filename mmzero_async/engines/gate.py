"""What stands before vLLM's HTTP where other hosts reach it: a key for everything, and a depot.

Runs inside vLLM's process, as ASGI middleware. vLLM's own key covers some paths only and has to
stand in an argument or the environment; this one covers all but /health and is read from a file.
The depot takes policies from a learner on another host: content under its own digest, checked;
adapters at once, full weights, which may be gigabytes, piece by piece.
"""

import asyncio
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import msgspec

from mmzero_async.engines.secret import read_secret

KEY_FILE, DEPOT = "MMZERO_ENGINE_KEY_FILE", "MMZERO_ENGINE_DEPOT"  # of the environment: paths
PREFIX = "/mmzero/policies/"
MAX_BYTES = 4 << 30  # of one policy
KEEP = 4  # policies of a role: two are served, one is being published, one to spare
WEIGHTS_PREFIX = "/mmzero/weights/"
WEIGHTS = "model.safetensors"
MAX_WEIGHTS = 1 << 40  # bytes of one file
KEEP_WEIGHTS = 2  # files of a role: an engine reads one once, and again when it was started anew
_PIECE = 8 << 20  # bytes that are written at a time
_NAME = re.compile(r"(proposer|coder|solver)/(\d{1,9})/([0-9a-f]{64})")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Refused(Exception):
    """What is answered instead: a status, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Gate:
    """The middleware. EngineKeyUnusable on construction ends the engine's start."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app
        self._digest = _sha(read_secret(Path(os.environ[KEY_FILE])).encode())
        self._depot = Path(os.environ[DEPOT])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = str(scope.get("path", ""))
        if scope["type"] == "lifespan" or path == "/health":
            await self._app(scope, receive, send)
            return
        try:
            if scope["type"] != "http" or not self._knows(scope):
                raise Refused(401, "the engine wants a key: name its file with --engine-key")
            prefix = next((p for p in (PREFIX, WEIGHTS_PREFIX) if path.startswith(p)), None)
            if prefix is None:
                await self._app(scope, receive, send)
                return
            name = path.removeprefix(prefix)
            take = self._handed_over if prefix == PREFIX else self._weights
            answer = await take(scope["method"], name, receive)
        except Refused as refusal:
            if scope["type"] == "http":
                error = {"error": {"message": str(refusal), "code": refusal.status}}
                await _answer(send, refusal.status, error)
            return
        await _answer(send, 200, {"path": answer})

    def _knows(self, scope: Scope) -> bool:
        given = next((v for k, v in scope["headers"] if k.lower() == b"authorization"), b"")
        scheme, _, key = given.partition(b" ")
        return scheme.lower() == b"bearer" and secrets.compare_digest(_sha(key), self._digest)

    async def _handed_over(self, method: str, name: str, receive: Receive) -> str:
        """The folder of the policy; Refused (404) where it is asked for and not there."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise Refused(400, f"{name[:100]!r} is no role/version/digest")
        folder = self._depot / match[1] / f"{int(match[2]):06d}-{match[3][:16]}"
        if folder.is_dir():
            os.utime(folder)  # young again: it is about to be served
            return str(folder)
        if method != "PUT":
            raise Refused(404, f"{name} is not here")
        body = await _body(receive)
        await asyncio.to_thread(store, folder, body, match[3])
        return str(folder)

    async def _weights(self, method: str, name: str, receive: Receive) -> str:
        """The weights file's path; Refused (404) where it is asked for and not there."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise Refused(400, f"{name[:100]!r} is no role/version/digest")
        folder = self._depot / "weights" / match[1] / f"{int(match[2]):06d}-{match[3][:16]}"
        if folder.is_dir():
            os.utime(folder)
        elif method != "PUT":
            raise Refused(404, f"{name} is not here")
        else:
            try:
                await _store_weights(folder, receive, match[3])
            except OSError as error:
                raise Refused(507, f"{folder} could not be written: {error.strerror}") from None
        return str(folder / WEIGHTS)


def policy_digest(files: Mapping[str, bytes]) -> str:
    """Sha-256 (64 hex digits) over names and contents, whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name} {len(files[name])}\n".encode())
        digest.update(files[name])
    return digest.hexdigest()


def store(folder: Path, body: bytes, digest: str) -> None:
    """Whole or not at all; the oldest of the role's policies beyond KEEP go. Refused."""
    try:
        files = msgspec.msgpack.decode(body, type=dict[str, bytes])
    except msgspec.DecodeError as error:
        raise Refused(400, f"no policy: {error}") from None
    if not files or not all(_FILE.fullmatch(name) for name in files):
        raise Refused(400, "no policy: names of files, without folders, are expected")
    if policy_digest(files) != digest:
        raise Refused(400, "the policy does not have the digest that it was sent under")
    making = _begun(folder)
    for name, content in files.items():
        (making / name).write_bytes(content)
    _finished(making, folder, KEEP)


async def _store_weights(folder: Path, receive: Receive, digest: str) -> None:
    """As they come, no more than a piece in memory; whole or not at all. Refused, OSError."""
    making = await asyncio.to_thread(_begun, folder)
    sha, size, piece = hashlib.sha256(), 0, bytearray()
    parts = _parts(receive)
    try:
        with (making / WEIGHTS).open("wb") as file:

            def keep(data: bytes) -> None:
                sha.update(data)
                file.write(data)

            async for part in parts:
                size += len(part)
                if size > MAX_WEIGHTS:
                    raise Refused(413, f"more than {MAX_WEIGHTS} bytes")
                piece += part
                if len(piece) >= _PIECE:
                    await asyncio.to_thread(keep, bytes(piece))
                    piece.clear()
            await asyncio.to_thread(keep, bytes(piece))
        if sha.hexdigest() != digest:
            raise Refused(400, "the weights do not have the digest that they were sent under")
        await asyncio.to_thread(_finished, making, folder, KEEP_WEIGHTS)
    except (Refused, OSError):
        async for _ in parts:  # who still sends would not hear why
            pass
        raise
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _begun(folder: Path) -> Path:
    """Where a folder is made before it has its name; what was left half made goes."""
    parent = folder.parent
    parent.mkdir(parents=True, exist_ok=True)
    for litter in parent.glob(".*"):
        shutil.rmtree(litter, ignore_errors=True)
    making = parent / f".making-{folder.name}-{os.getpid()}"
    making.mkdir()
    return making


def _finished(making: Path, folder: Path, keep: int) -> None:
    """The folder has its name; the oldest beside it beyond `keep` go."""
    making.rename(folder)
    old = sorted(folder.parent.iterdir(), key=lambda path: path.stat().st_mtime_ns)[:-keep]
    for path in old:
        shutil.rmtree(path, ignore_errors=True)


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in _parts(receive):
        parts.append(part)
        size += len(part)
        if size > MAX_BYTES:
            raise Refused(413, f"more than {MAX_BYTES} bytes")
    return b"".join(parts)


async def _parts(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise Refused(400, "the line was cut")
        yield message.get("body", b"")
        more = message.get("more_body", False)


async def _answer(send: Send, status: int, said: dict[str, Any]) -> None:
    body = msgspec.json.encode(said)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
