"""The processes of a whole run for test_pipeline_torture.py: the real ones, and a fake engine.

The engine is the fake that the engine's tests use: it computes nothing, but speaks the tiny model's
token ids, and its texts are proposals, drawings and answers. Each kind of it is a fixed function of
the prompt.
"""

import asyncio
import json
import random
import runpy
import sys
from typing import Any

import tiny_model
from fake_engine import FakeEngine

# Imported for the forks to come: what is here need not be read from disk after every kill.
from mmzero_async.workers import coder, learner, log_server, proposer, renderer, solver

MODULES = (coder, learner, log_server, proposer, renderer, solver)
IMAGE_TOKENS = 4  # of a picture of tiny_model.IMAGE_SIZE pixels
FIRST_WORD = tiny_model.WORDS[0]
COLOURS = ("red", "green", "blue", "black")


class TinyEngine(FakeEngine):
    """A byte of text is a word of the tiny model's."""

    end = tiny_model.WORDS[-1]

    def text_ids(self, text: str) -> list[int]:
        return [FIRST_WORD + byte for byte in text.encode()]

    def decode(self, tokens: Any, text: str) -> str:
        return text

    def prompt_ids(self, messages: list[dict[str, Any]]) -> list[int]:
        ids: list[int] = []
        for part in _parts(messages):
            if part["type"] == "image_url":
                pads = [tiny_model.IMAGE] * IMAGE_TOKENS
                ids += [tiny_model.VISION_START, *pads, tiny_model.VISION_END]
            else:
                ids += self.text_ids(part["text"])
        return ids


def respond(messages: list[dict[str, Any]], n: int) -> list[str]:
    """Mostly sound, sometimes not: unparseable proposals, drawings that cannot be rendered."""
    rng = random.Random(json.dumps(messages))
    parts = _parts(messages)
    if any(part["type"] == "image_url" for part in parts):
        return [_answer(rng) for _ in range(n)]
    writers = {"Draw as SVG": _drawing, "Draw with m": _program}
    writes = writers.get(parts[0]["text"][:11], _proposal)
    return [writes(rng) for _ in range(n)]


def _parts(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for message in messages:
        content = message["content"]
        found += [{"type": "text", "text": content}] if isinstance(content, str) else content
    return found


def _proposal(rng: random.Random) -> str:
    if rng.random() < 0.1:
        return "no idea"
    words = {
        "content_type": "data_chart",
        "caption": f"{rng.randint(1, 9)} {rng.choice(COLOURS)} bars",
        "easy_question": "How many bars?",
        "easy_answer": str(rng.randint(1, 4)),
        "hard_question": f"How many above {rng.randint(1, 99)}?",
        "hard_answer": str(rng.randint(1, 4)),
    }
    return "".join(f"<{tag}>{text}</{tag}>" for tag, text in words.items())


def _drawing(rng: random.Random) -> str:
    if rng.random() < 0.1:
        return "<svg><rect"
    x, y, width = (rng.randint(5, 25) for _ in range(3))
    shape = f'<rect x="{x}" y="{y}" width="{width}" height="30" fill="{rng.choice(COLOURS)}"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">{shape}</svg>'


def _program(rng: random.Random) -> str:
    if rng.random() < 0.1:
        return "```python\nopen('x')\n```"
    bars = f"plt.bar([1, 2, {rng.randint(3, 9)}], [3, 1, 2], color='{rng.choice(COLOURS)}')"
    return f"```python\nimport matplotlib.pyplot as plt\n{bars}\n```"


def _answer(rng: random.Random) -> str:
    said = f"\\boxed{{{rng.randint(1, 3)}}}"
    return f"<think>hm</think>{said}" if rng.random() < 0.8 else said


def worker() -> None:
    """A process of the run as the supervisor starts it: `python -m MODULE ...`."""
    module = sys.argv[1]
    sys.argv = [module, *sys.argv[2:]]
    runpy.run_module(module, run_name="__main__")


def engine() -> None:
    port, *host = sys.argv[1:]

    async def serve() -> None:
        at = host[0] if host else "127.0.0.1"
        async with TinyEngine(respond, port=int(port), host=at, latency=0.005):
            await asyncio.Event().wait()

    asyncio.run(serve())
