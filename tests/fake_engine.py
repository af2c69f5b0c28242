"""A fake inference engine: vLLM's HTTP surface with canned texts, for tests of what surrounds it.

It computes nothing. Tokens are the UTF-8 bytes of a text, closed by END; an image is nine
IMAGE_PAD between its two marks; log-probabilities are drawn from a hash of seed, policy, prompt,
text and place. The same requests therefore get the same answers, byte for byte.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Self

from aiohttp import web

END, VISION_START, IMAGE_PAD, VISION_END = 256, 257, 258, 259
PADS = 9

Respond = Callable[[list[dict[str, Any]], int], Sequence[str]]
Failure = int | str  # an HTTP status, or "drop": the connection is closed without an answer


def echo(messages: list[dict[str, Any]], n: int) -> list[str]:
    """The default answers."""
    return [f"answer {i}" for i in range(n)]


class FakeEngine:
    """`async with FakeEngine(respond) as engine: VllmClient(engine.url)`.

    Args:
        respond: (messages, n) -> n texts. A text completion's prompt comes as one user message.
        seed: changes all log-probabilities.
        latency: seconds that each generation takes.
        failures: what happens to the next generations, one each, before they succeed again.
        port: to listen at; 0: any free one.
        host: to listen at.
    """

    def __init__(
        self,
        respond: Respond = echo,
        *,
        seed: int = 0,
        latency: float = 0.0,
        failures: Iterable[Failure] = (),
        port: int = 0,
        host: str = "127.0.0.1",
    ) -> None:
        self._respond = respond
        self._seed = seed
        self._port, self._host = port, host
        self.latency = latency
        self.failures: list[Failure] = list(failures)
        self.adapters: dict[str, str] = {}  # name -> folder
        self.broken_folders: set[str] = set()  # loading from these fails as at vLLM
        self.broken_policies: set[str] = set()  # load, but fail to generate
        self.tamper: Callable[[dict[str, Any]], None] = lambda answer: None
        self.requests: list[dict[str, Any]] = []  # generations, as they came
        self.events: list[str] = []  # "load solver@1", "unload solver@1"
        self.waiting = self.preemptions = 0.0  # what /metrics tells
        self.frozen = False  # nothing is answered any more, no connection closed
        self.running = 0
        self.peak_running = 0
        self._tokens = 0
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> str:
        app = web.Application(client_max_size=64 * 2**20, middlewares=[self._unless_frozen])
        app.router.add_get("/health", self._health)
        app.router.add_get("/version", self._version)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/v1/unload_lora_adapter", self._unload)
        app.router.add_post("/v1/chat/completions", self._generation(self._chat))
        app.router.add_post("/v1/completions", self._generation(self._text))
        self.add_routes(app)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self.url

    def add_routes(self, app: web.Application) -> None:
        """More of vLLM's surface, for a subclass that has more of it."""

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    @web.middleware
    async def _unless_frozen(
        self, request: web.Request, handler: Callable[..., Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        answer = await handler(request)
        while self.frozen:  # noqa: ASYNC110 - until a test thaws or stops it
            await asyncio.sleep(0.01)
        return answer

    def _generation(
        self, answer: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            body = await request.json()
            self.requests.append(body)
            policy = body["model"]
            if policy != "base" and policy not in self.adapters:
                return _error(404, f"The model `{policy}` does not exist.")
            self.running += 1
            self.peak_running = max(self.peak_running, self.running)
            try:
                if self.latency:
                    await asyncio.sleep(self.latency)
                if self.failures:
                    failure = self.failures.pop(0)
                    if failure == "drop":
                        assert request.transport is not None
                        request.transport.close()
                        return web.Response()
                    return _error(int(failure), f"failure {failure} as ordered")
                if policy in self.broken_policies:
                    return _error(500, "EngineCore encountered an issue")
                result = answer(body)
                self.tamper(result)
                return web.json_response(result)
            finally:
                self.running -= 1

        return handle

    def _chat(self, body: dict[str, Any]) -> dict[str, Any]:
        texts = self._respond(body["messages"], body["n"])
        prompt = self.prompt_ids(body["messages"])
        choices = []
        for index, text in enumerate(texts):
            tokens, logprobs, finish = self._sample(body, prompt, text)
            choices.append(
                {
                    "index": index,
                    "message": {"role": "assistant", "content": self.decode(tokens, text)},
                    "logprobs": {"content": [{"token": "?", "logprob": x} for x in logprobs]},
                    "finish_reason": finish,
                    "token_ids": tokens,
                }
            )
        return {"model": body["model"], "prompt_token_ids": prompt, "choices": choices}

    def _text(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body["prompt"]
        texts = self._respond([{"role": "user", "content": _decode(prompt)}], body["n"])
        choices = []
        for index, text in enumerate(texts):
            tokens, logprobs, finish = self._sample(body, prompt, text)
            choices.append(
                {
                    "index": index,
                    "text": _decode(tokens),
                    "logprobs": {"token_logprobs": logprobs},
                    "finish_reason": finish,
                    "token_ids": tokens,
                    "prompt_token_ids": prompt,
                }
            )
        return {"model": body["model"], "choices": choices}

    def _sample(
        self, body: dict[str, Any], prompt: list[int], text: str
    ) -> tuple[list[int], list[float], str]:
        limit = body.get("max_tokens") or 1_000_000
        tokens = [*self.text_ids(text), self.end][:limit]
        self._tokens += len(tokens)
        key = json.dumps([self._seed, body["model"], prompt, text]).encode()
        stream = hashlib.shake_256(key).digest(len(tokens))
        logprobs = [-(byte + 1) / 128 for byte in stream]
        return tokens, logprobs, "stop" if tokens[-1] == self.end else "length"

    # What a real tokenizer would decide; a subclass may speak another model's ids.
    end = END

    def text_ids(self, text: str) -> list[int]:
        return list(text.encode())

    def prompt_ids(self, messages: list[dict[str, Any]]) -> list[int]:
        return _prompt(messages)

    def decode(self, tokens: Sequence[int], text: str) -> str:
        return _decode(tokens)

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "0-fake"})

    async def _metrics(self, request: web.Request) -> web.Response:
        label = '{engine="0",model_name="base"}'
        return web.Response(
            text="# HELP vllm:num_requests_running now\n"
            f"vllm:num_requests_running{label} {float(self.running)}\n"
            f"vllm:num_requests_waiting{label} {self.waiting}\n"
            f"vllm:num_preemptions_total{label} {self.preemptions}\n"
            f'vllm:num_requests_waiting_by_reason{{engine="0",reason="capacity"}} 7.0\n'
            f"vllm:generation_tokens_total{label} {float(self._tokens)}\n"
        )

    async def _models(self, request: web.Request) -> web.Response:
        cards = [{"id": "base", "root": "/base"}]
        cards += [{"id": name, "root": folder} for name, folder in self.adapters.items()]
        return web.json_response({"object": "list", "data": cards})

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        name, folder = body["lora_name"], body["lora_path"]
        if name in self.adapters:
            return _error(400, f"The lora adapter '{name}' has already been loaded.")
        if folder in self.broken_folders:
            return _error(404, f"Loading lora {name} failed: No adapter found for {folder}")
        self.adapters[name] = folder
        self.events.append(f"load {name}")
        return web.Response(text="Success")

    async def _unload(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        if name not in self.adapters:
            return _error(404, f"The lora adapter '{name}' cannot be found.")
        del self.adapters[name]
        self.events.append(f"unload {name}")
        return web.Response(text="Success")


def _error(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "Error", "param": None, "code": status}
    return web.json_response({"error": error}, status=status)


def _prompt(messages: list[dict[str, Any]]) -> list[int]:
    tokens: list[int] = []
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            if part["type"] == "image_url":
                tokens += [VISION_START, *[IMAGE_PAD] * PADS, VISION_END]
            else:
                tokens += part["text"].encode()
        tokens.append(END)
    return tokens


def _decode(tokens: Sequence[int]) -> str:
    return bytes(token for token in tokens if token < 256).decode(errors="replace")
