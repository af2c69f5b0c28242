"""What is asked of an engine whose weights change in place: pause, replace, read back, number."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import msgspec

from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.errors import EngineRejected, EngineUnavailable
from mmzero_async.engines.gate import WEIGHTS_PREFIX
from mmzero_async.engines.http import CONTROL_SECONDS
from mmzero_async.engines.wire import error_message
from mmzero_async.schemas.events import Role

HAND_OVER_SECONDS = 3600.0  # for gigabytes; a host that is lost is noticed long before
_T = TypeVar("_T")
_LOOK_SECONDS, _MISSED = 1.0, 3  # whether an engine lives that takes new weights


class WeightClient(VllmClient):
    """A VllmClient of an engine that serves one role with weights of its own."""

    async def pause(self) -> None:
        """No token is drawn until `resume`; requests are kept, and what running ones computed so
        far is forgotten, so that they go on as if all of it had been said to other weights.

        Processed pictures stay in their cache: they depend on no weights.
        """
        await self._control("/pause?mode=keep&clear_cache=false")
        await self._control("/reset_prefix_cache?reset_running_requests=true")
        await self._control("/reset_encoder_cache")

    async def resume(self) -> None:
        """Goes on with everything that waits."""
        await self._control("/resume")

    async def replace_weights(self, path: str, sha256: str) -> None:
        """The model's weights become those of a safetensors file as the engine's machine sees it.

        For a paused engine. EngineRejected when it refused the file and is as it was;
        EngineUnavailable when it died of it, or nobody can tell.
        """
        try:
            await self._control("/start_weight_update")
        except EngineRejected:  # somebody died between a start and a finish
            await self._control("/finish_weight_update", {})
            await self._control("/start_weight_update")
        update = {"update_info": {"path": path, "sha256": sha256}}
        # An engine that dies of an update leaves its request without an answer.
        updating = self._control("/update_weights", update, self._seconds)
        await self._while_alive(updating, "died of a weight update")

    async def hand_over_weights(self, role: Role, version: int, file: Path, sha256: str) -> str:
        """Brings a weights file to an engine on another host, which has gate.py before it;
        returns its path there. One that it has already is not sent again.

        EngineRejected when the engine has no depot or will not have it, EngineUnavailable when it
        is lost. OSError for a file that cannot be read.
        """
        path = f"{WEIGHTS_PREFIX}{role}/{version}/{sha256}"
        status, body = await self._send("GET", path, None, CONTROL_SECONDS)
        if status == 404:
            with file.open("rb") as content:
                sending = self._attempt("PUT", path, content, HAND_OVER_SECONDS)
                try:
                    status, body = await self._while_alive(sending, "was lost taking weights")
                except (aiohttp.ClientError, TimeoutError) as error:
                    why = f"{type(error).__name__}: {error}"
                    raise EngineUnavailable(
                        f"the engine at {self.url} did not take {file} ({why})"
                    ) from error
        if status != 200:
            said = error_message(body)
            raise EngineRejected(f"the engine at {self.url} took no weights ({status}): {said}")
        return str(msgspec.json.decode(body, type=dict[str, str])["path"])

    async def _while_alive(self, request: Coroutine[Any, Any, _T], what: str) -> _T:
        """Its answer. EngineUnavailable once the engine has not answered a few looks."""
        working = asyncio.ensure_future(request)
        missed = 0
        try:
            while not (await asyncio.wait({working}, timeout=_LOOK_SECONDS))[0]:
                missed = 0 if await self.health() else missed + 1
                if missed == _MISSED:
                    raise EngineUnavailable(f"the engine at {self.url} {what}")
            return await working
        finally:
            working.cancel()

    async def number_weights(self, version: int) -> None:
        """The weights are those of this version: tokens drawn from here on say so."""
        try:
            await self._control("/finish_weight_update", {"weight_version": str(version)})
        except EngineRejected as error:
            raise EngineUnavailable(str(error)) from error

    async def is_paused(self) -> bool:
        said = msgspec.json.decode(await self._get("/is_paused"), type=dict[str, Any])
        return bool(said["is_paused"])

    async def different_weights(self, path: str) -> list[str]:
        """Tensors of a safetensors file that the engine's layers do not compute with."""
        request = {"method": "different_weights", "args": [path]}
        said = msgspec.json.decode(await self._control("/collective_rpc", request))
        return sorted({name for worker in said["results"] for name in worker})
