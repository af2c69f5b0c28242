"""An engine that computes nothing: canned, legal generations after a fixed latency.

On two cores an engine and a learner slow each other, and what is gained by letting them overlap
cannot be seen. This engine stands for one on a device of its own: a request takes `latency`
seconds, `slots` requests run at once, others queue. It speaks vLLM's HTTP surface and the
seedling's tokens; its texts follow from the request alone and teach a policy nothing.
"""

import asyncio
import hashlib
import random
from pathlib import Path
from typing import Any

from aiohttp import web
from tokenizers import Tokenizer

from mmzero_async.seedling.lessons import answer_reply
from mmzero_async.seedling.scenes import Bars, draw

END = "<|im_end|>"
LOGPROB = -0.5  # of every token


class FixedLatencyEngine:
    """Serves from `start` until its process ends.

    Args:
        tokenizer: the seedling's tokenizer.json.
        image_tokens: placeholders of one picture.
        latency: seconds a request, whatever its n.
        slots: requests at once.
    """

    def __init__(self, tokenizer: Path, *, image_tokens: int, latency: float, slots: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        picture = "<|image_pad|>" * image_tokens
        self._picture = f"<|vision_start|>{picture}<|vision_end|>"
        self._latency = latency
        self._slots = asyncio.Semaphore(slots)
        self._adapters: dict[str, str] = {}

    async def start(self, port: int) -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_get("/version", self._version)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/v1/unload_lora_adapter", self._unload)
        app.router.add_post("/v1/chat/completions", self._generate)
        app.router.add_post("/v1/completions", self._verify)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()

    async def _generate(self, request: web.Request) -> web.Response:
        body = await request.json()
        async with self._slots:
            await asyncio.sleep(self._latency)
        prompt, looks = self._prompt(body["messages"])
        choices = []
        for i, text in enumerate(replies(prompt, looks, body["n"], body.get("seed"))):
            tokens = self._tokenizer.encode(text + END).ids
            choices.append(
                {
                    "index": i,
                    "message": {"role": "assistant", "content": text},
                    "logprobs": {"content": [{"token": "", "logprob": LOGPROB}] * len(tokens)},
                    "finish_reason": "stop",
                    "token_ids": tokens,
                }
            )
        ids = self._tokenizer.encode(prompt).ids
        return web.json_response({"prompt_token_ids": ids, "choices": choices})

    def _prompt(self, messages: list[dict[str, Any]]) -> tuple[str, bool]:
        """The seedling's chat template filled in, and whether it shows a picture."""
        [message] = messages
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        looks = any(part["type"] == "image_url" for part in parts)
        said = "".join(
            self._picture if part["type"] == "image_url" else part["text"] for part in parts
        )
        return f"<|im_start|>user\n{said}{END}\n<|im_start|>assistant\n", looks

    async def _verify(self, request: web.Request) -> web.Response:
        """The one token that a publisher asks for."""
        prompt = (await request.json())["prompt"]
        one = {"index": 0, "text": "", "finish_reason": "length", "token_ids": [0]}
        logprobs = {"token_logprobs": [LOGPROB]}
        return web.json_response(
            {"choices": [{**one, "logprobs": logprobs, "prompt_token_ids": prompt}]}
        )

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "fixed-latency"})

    async def _models(self, _: web.Request) -> web.Response:
        cards = [{"id": name, "root": folder} for name, folder in self._adapters.items()]
        return web.json_response({"data": cards})

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        self._adapters[body["lora_name"]] = body["lora_path"]
        return web.Response(text="loaded")

    async def _unload(self, request: web.Request) -> web.Response:
        self._adapters.pop((await request.json())["lora_name"], None)
        return web.Response(text="unloaded")


def replies(prompt: str, looks: bool, n: int, seed: int | None) -> list[str]:
    """n texts of the kind that the prompt asks for, all of them legal.

    Answers to one question: half alike, the others all different, so that the group has a majority
    and something to learn from it.
    """
    rng = random.Random(hashlib.sha256(f"{seed}/{prompt}".encode()).digest())
    if looks:
        most = rng.randint(1, 9)
        return [
            answer_reply(f"it shows {most}", str(most if i % 2 == 0 else 20 + i)) for i in range(n)
        ]
    write = _drawing if "Draw as SVG" in prompt else _proposal
    return [write(rng) for _ in range(n)]


def _bars(rng: random.Random) -> Bars:
    scene = draw(rng, "bars")
    assert isinstance(scene, Bars), "as asked for"
    return scene


def _drawing(rng: random.Random) -> str:
    return f"```svg\n{_bars(rng).svg()}\n```"


def _proposal(rng: random.Random) -> str:
    scene = _bars(rng)
    easy, hard = scene.easy(rng), scene.hard(rng)
    blocks = {
        "content_type": scene.content_type,
        "caption": scene.caption(),
        "easy_question": easy.question,
        "easy_answer": easy.answer,
        "hard_question": hard.question,
        "hard_answer": hard.answer,
    }
    return "".join(f"<{tag}>{text}</{tag}>" for tag, text in blocks.items())


async def serve(tokenizer: Path, image_tokens: int, latency: float, slots: int, port: int) -> None:
    engine = FixedLatencyEngine(tokenizer, image_tokens=image_tokens, latency=latency, slots=slots)
    await engine.start(port)
    await asyncio.Event().wait()
