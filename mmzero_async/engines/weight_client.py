"""What is asked of an engine whose weights change in place: pause, replace, read back, number."""

import asyncio
from typing import Any

import msgspec

from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.errors import EngineRejected, EngineUnavailable

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
        working = asyncio.ensure_future(self._control("/update_weights", update, self._seconds))
        missed = 0
        try:
            # An engine that dies of an update leaves its request without an answer.
            while not (await asyncio.wait({working}, timeout=_LOOK_SECONDS))[0]:
                missed = 0 if await self.health() else missed + 1
                if missed == _MISSED:
                    raise EngineUnavailable(f"the engine at {self.url} died of a weight update")
            await working
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
