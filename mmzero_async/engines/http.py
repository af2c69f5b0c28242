"""HTTP to one engine: bounded connections and waiting, and a lost connection is tried again.

Knows statuses, no prompts and no policies. What an answer's body means is for who asked.
"""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, BinaryIO, Self

import aiohttp
import msgspec

from mmzero_async.engines.errors import EngineRejected, EngineSlow, EngineUnavailable
from mmzero_async.engines.wire import error_message

CONTROL_SECONDS = 60.0  # loading an adapter, listing, metrics
HEALTH_SECONDS = 5.0
# vLLM closes idle connections after 5 s; letting go first avoids writing into a closed one.
_KEEPALIVE_SECONDS = 4.0
_BUSY = frozenset({502, 503, 504})
_UNAUTHORIZED = 401


class EngineHttp:
    """One engine's address. Close it, or use it as an async context manager.

    Args:
        url: of the server, without a path.
        request_seconds: how long one generation may take.
        connections: at most this many at once; further requests wait for one.
        retries: after a lost connection or a 502, 503 or 504.
        backoff_seconds: before the first retry; doubles each time.
        key: of an engine that wants one (gate.py); empty: none.
    """

    def __init__(
        self,
        url: str,
        *,
        request_seconds: float = 120.0,
        connections: int = 64,
        retries: int = 3,
        backoff_seconds: float = 0.25,
        key: str = "",
    ) -> None:
        self.url = url.rstrip("/")
        self._seconds = request_seconds
        self._connections = connections
        self._retries = retries
        self._backoff = backoff_seconds
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._session: aiohttp.ClientSession | None = None

    async def health(self) -> bool:
        """Whether the engine answers now. Never raises, never retries."""
        try:
            status, _ = await self._attempt("GET", "/health", None, HEALTH_SECONDS)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
        return status == 200

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _get(self, path: str, seconds: float = CONTROL_SECONDS) -> bytes:
        status, body = await self._request("GET", path, None, seconds)
        if status != 200:
            said = error_message(body)
            kind = EngineRejected if status < 500 else EngineUnavailable
            raise kind(f"the engine at {self.url} refused {path} ({status}): {said}")
        return body

    async def _control(
        self, path: str, request: Mapping[str, Any] | None = None, seconds: float = CONTROL_SECONDS
    ) -> bytes:
        """The body of a 200, asked for once: to do it again may not be the same."""
        data = None if request is None else msgspec.json.encode(request)
        try:
            status, body = await self._attempt("POST", path, data, seconds)
        except (aiohttp.ClientError, TimeoutError) as error:
            why = f"{type(error).__name__}: {error}"
            raise EngineUnavailable(
                f"the engine at {self.url} gave no answer to {path} ({why})"
            ) from error
        if status != 200:
            said = error_message(body)
            dead = "EngineDead" in said or "encountered an issue" in said
            kind = EngineUnavailable if dead or status in _BUSY else EngineRejected
            raise kind(f"the engine at {self.url} refused {path} ({status}): {said}")
        return body

    async def _request(
        self, method: str, path: str, request: Mapping[str, Any] | None, seconds: float
    ) -> tuple[int, bytes]:
        """Status and body, after as many tries as are allowed."""
        data = None if request is None else msgspec.json.encode(request)
        return await self._send(method, path, data, seconds)

    async def _send(
        self, method: str, path: str, data: bytes | None, seconds: float
    ) -> tuple[int, bytes]:
        why = ""
        for attempt in range(self._retries + 1):
            if attempt:
                await asyncio.sleep(self._backoff * 2 ** (attempt - 1))
            try:
                status, body = await self._attempt(method, path, data, seconds)
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
                why = f"{type(error).__name__}: {error}"
                # aiohttp's own timeouts are connection errors too; repeating a slow request
                # would only add to the load that made it slow.
                if isinstance(error, TimeoutError):
                    raise self._slow(path, why) from error
                continue
            except TimeoutError as error:
                raise self._slow(path, f"no answer within {seconds:g} s") from error
            if status == _UNAUTHORIZED:  # nobody's work is to blame for it
                raise EngineUnavailable(f"the engine at {self.url}: {error_message(body)}")
            if status not in _BUSY:
                return status, body
            why = f"status {status}: {error_message(body)}"
        raise EngineUnavailable(
            f"the engine at {self.url} gave no answer to {path} ({why}). Does it run?"
        )

    def _slow(self, path: str, why: str) -> EngineSlow:
        return EngineSlow(
            f"the engine at {self.url} gave no answer to {path} ({why}). Does it run, and is "
            "engine.request_seconds long enough?"
        )

    async def _attempt(
        self, method: str, path: str, data: bytes | BinaryIO | None, seconds: float
    ) -> tuple[int, bytes]:
        async with self._opened().request(
            method,
            self.url + path,
            data=data,
            headers={"content-type": "application/json"} if data is not None else None,
            timeout=aiohttp.ClientTimeout(total=seconds),
        ) as response:
            return response.status, await response.read()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._connections, keepalive_timeout=_KEEPALIVE_SECONDS
                ),
                headers=self._headers,
            )
        return self._session
