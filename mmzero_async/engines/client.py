"""The client of one vLLM server: prompts in, generations with their provenance out.

Knows no roles' prompts and no log. Guarantees: what it returns is complete and consistent or an
error is raised.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mmzero_async.engines.errors import (
    EngineError,
    EngineRejected,
    EngineUnavailable,
    PolicyNotLoaded,
)
from mmzero_async.engines.gate import PREFIX, policy_digest
from mmzero_async.engines.http import CONTROL_SECONDS, EngineHttp
from mmzero_async.engines.wire import (
    chat_answer,
    error_message,
    sampling_fields,
    text_answer,
)
from mmzero_async.schemas.events import Generation, Role, Sampling
from mmzero_async.schemas.packing import unpack_tokens

LOOK_SECONDS = 5.0  # for figures: an engine that is late with them is a busy one
_METRICS = {
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:num_preemptions_total": "preemptions",
    "vllm:generation_tokens_total": "tokens_generated",
    "vllm:prompt_tokens_total": "tokens_prompted",
    "vllm:kv_cache_usage_perc": "kv_cache_usage",
}


class VllmClient(EngineHttp):
    """Client of the engine at `url`.

    Args:
        engine: engine id for the events; empty: asked from the server.
        numbered: the engine's weights change in place, so what it says of each token's version is
            taken from it alone; an answer of weights without a number is EngineUnavailable.
        options: EngineHttp's.
    """

    def __init__(
        self, url: str, *, engine: str = "", numbered: bool = False, **options: Any
    ) -> None:
        super().__init__(url, **options)
        self._engine = engine
        self._numbered = numbered

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
        status, body = await self._send("GET", path, None, CONTROL_SECONDS)
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

    async def weight_version(self) -> str:
        """The number of the engine's weights; "default" before it got one."""
        said = msgspec.json.decode(await self._get("/weight_info"), type=dict[str, Any])
        return str(said["weight_version"])

    async def metrics(self) -> dict[str, float]:
        """running, waiting, kv_cache_usage now; preemptions, tokens_generated and tokens_prompted
        since its start."""
        figures = dict.fromkeys(_METRICS.values(), 0.0)
        for line in (await self._get("/metrics", LOOK_SECONDS)).decode().splitlines():
            series, _, value = line.rpartition(" ")
            name = _METRICS.get(series.partition("{")[0])
            if name is not None:
                figures[name] += float(value)
        return figures

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

    async def _adapter(self, verb: str, name: str, request: Mapping[str, Any]) -> None:
        path = f"/v1/{verb}_lora_adapter"
        status, body = await self._request("POST", path, request, CONTROL_SECONDS)
        if status == 200:
            return
        said = error_message(body)
        if verb == "unload" and status == 404 and name in said:
            raise PolicyNotLoaded(f"the engine at {self.url} has no policy {name!r} to unload")
        # An adapter of a wrong rank or shape is a 500 at vLLM; it is the adapter's fault.
        raise EngineRejected(
            f"the engine at {self.url} did not {verb} policy {name!r} ({status}): {said}"
        )
