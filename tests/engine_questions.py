"""Questions to an engine, real or fake, and what transformers says of the answers."""

import io
from pathlib import Path
from typing import Any

from fake_engine import FakeEngine

from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.pool import Engine
from mmzero_async.schemas.events import Generation, Sampling
from mmzero_async.schemas.packing import unpack_logprobs, unpack_tokens

HELLO = [{"role": "user", "content": "hello"}]
PICTURE = "data:image/png;base64,AAAA"
LOOK = [
    {
        "role": "user",
        "content": [
            {"type": "image_url", "image_url": {"url": PICTURE}},
            {"type": "text", "text": "what?"},
        ],
    }
]


async def ask(
    client: Engine,
    messages: list[dict[str, Any]] = HELLO,
    *,
    policy: str = "base",
    version: int = 0,
    n: int = 1,
    sampling: Sampling | None = None,
) -> Generation:
    return await client.generate(
        messages,
        policy=policy,
        version=version,
        role="solver",
        n=n,
        sampling=sampling or Sampling(temperature=1.0, max_tokens=64),
        template="t",
    )


def client_of(engine: FakeEngine, **options: Any) -> VllmClient:
    return VllmClient(engine.url, backoff_seconds=0.001, **options)


def transformers_logprobs(
    model: Path, generation: Generation, picture: bytes | None, adapter: Path | None = None
) -> list[list[float]]:
    """What transformers gives each sampled token of a generation, in float32."""
    import torch
    from peft import PeftModel
    from PIL import Image
    from transformers import AutoImageProcessor, Qwen3VLForConditionalGeneration

    net: Any = Qwen3VLForConditionalGeneration.from_pretrained(model, dtype=torch.float32)
    image_token = net.config.image_token_id
    if adapter is not None:
        net = PeftModel.from_pretrained(net, adapter)
    net.eval()
    prompt = unpack_tokens(generation.prompt_token_ids).tolist()
    seen: dict[str, Any] = {}
    if picture is not None:
        processor = AutoImageProcessor.from_pretrained(model)
        seen = dict(processor(images=[Image.open(io.BytesIO(picture))], return_tensors="pt"))
    found = []
    for sample in generation.samples:
        tokens = unpack_tokens(sample.token_ids).tolist()
        ids = torch.tensor([prompt + tokens])
        kinds = {"mm_token_type_ids": (ids == image_token).int()} if seen else {}
        with torch.no_grad():
            logits = net(input_ids=ids, **kinds, **seen).logits[0, len(prompt) - 1 : -1]
        logprobs = (logits / generation.sampling.temperature).log_softmax(-1)
        found.append(logprobs[torch.arange(len(tokens)), torch.tensor(tokens)].tolist())
    return found


def greatest_difference(generation: Generation, expected: list[list[float]]) -> float:
    return max(
        abs(float(mine) - theirs)
        for sample, theirs_all in zip(generation.samples, expected, strict=True)
        for mine, theirs in zip(unpack_logprobs(sample.logprobs), theirs_all, strict=True)
    )
