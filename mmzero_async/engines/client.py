"""The HTTP client of one vLLM server: prompts in, generations with their provenance out.

Knows no roles' prompts and no log. Guarantees: what it returns is complete and consistent or an
error is raised, connections and waiting are bounded, and a lost connection is tried again.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec

from mmzero_async.engines.errors import (
    EngineError,
    EngineRejected,
    EngineUnavailable,
    PolicyNotLoaded,
)
from mmzero_async.engines.gate import PREFIX, policy_digest
from mmzero_async.engines.wire import (
    chat_answer,
    error_message,
    sampling_fields,
    text_answer,
)
from mmzero_async.schemas.events import Generation, Role, Sampling
from mmzero_async.schemas.packing import unpack_tokens

_CONTROL_SECONDS = 60.0  # loading an adapter, listing, metrics
_LOOK_SECONDS, _MISSED = 1.0, 3  # whether an engine lives that takes new weights
# vLLM closes idle connections after 5 s; letting go first avoids writing into a closed one.
_KEEPALIVE_SECONDS = 4.0
_BUSY = frozenset({502, 503, 504})
_UNAUTHORIZED = 401
_METRICS = {
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:generation_tokens_total": "tokens_generated",
    "vllm:prompt_tokens_total": "tokens_prompted",
    "vllm:kv_cache_usage_perc": "kv_cache_usage",
}


class VllmClient:
    """Client of the engine at `url`. Close it, or use it as an async context manager.

    Args:
        url: of the server, without a path.
        engine: engine id for the events; empty: asked from the server.
        request_seconds: how long one generation may take.
        connections: at most this many at once; further requests wait for one.
        retries: after a lost connection or a 502, 503 or 504.
        backoff_seconds: before the first retry; doubles each time.
        numbered: the engine's weights change in place, so what it says of each token's version is
            taken from it alone; an answer of weights without a number is EngineUnavailable.
        key: of an engine that wants one (gate.py); empty: none.
    """

    def __init__(
        self,
        url: str,
        *,
        engine: str = "",
        request_seconds: float = 120.0,
        connections: int = 64,
        retries: int = 3,
        backoff_seconds: float = 0.25,
        numbered: bool = False,
        key: str = "",
    ) -> None:
        self.url = url.rstrip("/")
        self._engine = engine
        self._seconds = request_seconds
        self._connections = connections
        self._retries = retries
        self._backoff = backoff_seconds
        self._numbered = numbered
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._session: aiohttp.ClientSession | None = None

    async def generate(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        policy: str,
        version: int,
        role: Role,
        n: int,
        sampling: Sampling,
        template: str,
        images: Sequence[str] = (),
    ) -> Generation:
        """n samples of a chat; an image is a `data:` URL inside an `image_url` part.

        `prompt_token_ids` are those that the engine saw, image placeholders expanded. A sample
        that stopped ends with its end token, log-probability included. `images` are the digests
        of the pictures in the messages; they are passed through.

        Raises PolicyNotLoaded, EngineRejected, EngineUnavailable, or EngineError for an answer
        that contradicts itself.
        """
        request = {"model": policy, "messages": messages, "n": n, "logprobs": True}
        started = time.monotonic()
        body = await self._post("/v1/chat/completions", request | sampling_fields(sampling))
        seconds = time.monotonic() - started
        answer = chat_answer(body, n=n, version=version, numbered=self._numbered)
        drawn = [span.version for sample in answer.samples for span in sample.versions]
        return Generation(
            role=role,
            policy=policy,
            version=min(drawn, default=version) if self._numbered else version,
            prompt_token_ids=answer.prompt_token_ids,
            sampling=sampling,
            template=template,
            samples=answer.samples,
            images=list(images),
            engine=await self.engine_id(),
            seconds=seconds,
        )

    async def complete(
        self,
        prompt_token_ids: Sequence[int],
        *,
        policy: str,
        version: int,
        role: Role,
        n: int,
        sampling: Sampling,
        template: str = "",
    ) -> Generation:
        """n samples that continue exactly these tokens; for prompts without images.

        Raises as `generate` does, and EngineError if the engine saw another prompt.
        """
        request = {"model": policy, "prompt": list(prompt_token_ids), "n": n, "logprobs": 0}
        started = time.monotonic()
        body = await self._post("/v1/completions", request | sampling_fields(sampling))
        seconds = time.monotonic() - started
        answer = text_answer(body, n=n, version=version)
        if unpack_tokens(answer.prompt_token_ids).tolist() != list(prompt_token_ids):
            raise EngineError("the engine changed the prompt's tokens")
        return Generation(
            role=role,
            policy=policy,
            version=version,
            prompt_token_ids=answer.prompt_token_ids,
            sampling=sampling,
            template=template,
            samples=answer.samples,
            engine=await self.engine_id(),
            seconds=seconds,
        )

    async def engine_id(self) -> str:
        """The engine's name and version, asked once."""
        if not self._engine:
            said = msgspec.json.decode(await self._get("/version"), type=dict[str, Any])
            self._engine = f"vllm {said.get('version', '?')}"
        return self._engine

    async def health(self) -> bool:
        """Whether the engine answers now. Never raises, never retries."""
        try:
            status, _ = await self._attempt("GET", "/health", None, 5.0)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
        return status == 200

    async def policies(self) -> list[str]:
        """The names that a request can ask for: the base, then the adapters."""
        return list(await self.policy_paths())

    async def policy_paths(self) -> dict[str, str]:
        """Each policy's name and the folder that it was loaded from."""
        listed = msgspec.json.decode(await self._get("/v1/models"), type=dict[str, Any])
        return {str(card["id"]): str(card.get("root") or "") for card in listed["data"]}

    async def load_policy(self, name: str, path: str) -> None:
        """Loads the LoRA adapter in the folder `path`, as the engine's machine sees it, as `name`.

        Raises EngineRejected when the engine cannot read it, its rank is too high, or the name
        is taken.
        """
        await self._adapter("load", name, {"lora_name": name, "lora_path": path})

    async def hand_over(self, role: Role, version: int, files: Mapping[str, bytes]) -> str:
        """Brings a policy's files to an engine on another host, which has gate.py before it;
        returns their folder there. Files that it has already are not sent again.

        Raises EngineRejected when the engine has no depot or will not have them.
        """
        path = f"{PREFIX}{role}/{version}/{policy_digest(files)}"
        status, body = await self._send("GET", path, None, _CONTROL_SECONDS)
        if status == 404:
            packed = msgspec.msgpack.encode(files)
            status, body = await self._send("PUT", path, packed, self._seconds)
        if status != 200:
            said = error_message(body)
            raise EngineRejected(f"the engine at {self.url} took no policy ({status}): {said}")
        return str(msgspec.json.decode(body, type=dict[str, str])["path"])

    async def unload_policy(self, name: str) -> None:
        """Withdraws a name. Requests that run under it end as they began.

        Raises PolicyNotLoaded when the engine has no such policy.
        """
        await self._adapter("unload", name, {"lora_name": name})

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

    async def weight_version(self) -> str:
        """The number of the engine's weights; "default" before it got one."""
        said = msgspec.json.decode(await self._get("/weight_info"), type=dict[str, Any])
        return str(said["weight_version"])

    async def is_paused(self) -> bool:
        said = msgspec.json.decode(await self._get("/is_paused"), type=dict[str, Any])
        return bool(said["is_paused"])

    async def different_weights(self, path: str) -> list[str]:
        """Tensors of a safetensors file that the engine's layers do not compute with."""
        request = {"method": "different_weights", "args": [path]}
        said = msgspec.json.decode(await self._control("/collective_rpc", request))
        return sorted({name for worker in said["results"] for name in worker})

    async def metrics(self) -> dict[str, float]:
        """running, waiting, tokens_generated, tokens_prompted (since start), kv_cache_usage."""
        figures = dict.fromkeys(_METRICS.values(), 0.0)
        for line in (await self._get("/metrics")).decode().splitlines():
            series, _, value = line.rpartition(" ")
            name = _METRICS.get(series.partition("{")[0])
            if name is not None:
                figures[name] += float(value)
        return figures

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

    async def _post(self, path: str, request: Mapping[str, Any]) -> bytes:
        """The body of a 200 to a generation request, or the error that the status means."""
        status, body = await self._request("POST", path, request, self._seconds)
        if status == 200:
            return body
        policy, said = request["model"], error_message(body)
        if status == 404 and policy in said:
            raise PolicyNotLoaded(
                f"the engine at {self.url} does not serve {policy!r}. It may have been replaced "
                "by a newer version: lease the work again"
            )
        if status < 500:
            raise EngineRejected(f"the engine at {self.url} refused {path} ({status}): {said}")
        raise EngineUnavailable(f"the engine at {self.url} failed ({status}): {said}")

    async def _get(self, path: str) -> bytes:
        status, body = await self._request("GET", path, None, _CONTROL_SECONDS)
        if status != 200:
            said = error_message(body)
            kind = EngineRejected if status < 500 else EngineUnavailable
            raise kind(f"the engine at {self.url} refused {path} ({status}): {said}")
        return body

    async def _control(
        self, path: str, request: Mapping[str, Any] | None = None, seconds: float = _CONTROL_SECONDS
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

    async def _adapter(self, verb: str, name: str, request: Mapping[str, Any]) -> None:
        path = f"/v1/{verb}_lora_adapter"
        status, body = await self._request("POST", path, request, _CONTROL_SECONDS)
        if status == 200:
            return
        said = error_message(body)
        if verb == "unload" and status == 404 and name in said:
            raise PolicyNotLoaded(f"the engine at {self.url} has no policy {name!r} to unload")
        # An adapter of a wrong rank or shape is a 500 at vLLM; it is the adapter's fault.
        raise EngineRejected(
            f"the engine at {self.url} did not {verb} policy {name!r} ({status}): {said}"
        )

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
                    break
                continue
            except TimeoutError:
                why = f"no answer within {seconds:g} s"
                break
            if status == _UNAUTHORIZED:  # nobody's work is to blame for it
                raise EngineUnavailable(f"the engine at {self.url}: {error_message(body)}")
            if status not in _BUSY:
                return status, body
            why = f"status {status}: {error_message(body)}"
        raise EngineUnavailable(
            f"the engine at {self.url} gave no answer to {path} ({why}). Does it run, and is "
            "engine.request_seconds long enough?"
        )

    async def _attempt(
        self, method: str, path: str, data: bytes | None, seconds: float
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
