"""A real vLLM that serves the seedling: its figures are those of transformers."""

import asyncio
import base64
import io
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from engine_questions import HELLO, ask, greatest_difference, transformers_logprobs

from mmzero_async import torchvision_shim
from mmzero_async.config import EngineConfig
from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.errors import (
    EngineRejected,
    EngineUnavailable,
    PolicyNotLoaded,
    PublishFailed,
)
from mmzero_async.engines.launch import installed
from mmzero_async.engines.publisher import AdapterPublisher
from mmzero_async.engines.server import VllmServer
from mmzero_async.schemas.events import ROLES, Sampling, VersionSpan
from mmzero_async.schemas.packing import unpack_tokens

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.asyncio(loop_scope="module")]
MODEL = Path(
    os.environ.get("MMZERO_TEST_MODEL")
    or Path(torchvision_shim.__file__).parent / "seedling" / "weights"
)


@pytest.fixture(scope="module")
def model() -> Path:
    if not (MODEL / "config.json").exists():
        pytest.skip(f"no seedling at {MODEL}")
    try:
        installed()
    except EngineUnavailable as error:
        pytest.skip(str(error))
    return MODEL


@pytest.fixture(scope="module")
def picture() -> bytes:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (96, 96), "white")
    ImageDraw.Draw(image).ellipse((20, 30, 60, 70), fill="red")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def looking(picture: bytes) -> list[dict[str, Any]]:
    url = "data:image/png;base64," + base64.b64encode(picture).decode()
    parts = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "how many shapes are there?"},
    ]
    return [{"role": "user", "content": parts}]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(
    model: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[VllmServer]:
    log = tmp_path_factory.mktemp("engine") / "engine.log"
    async with VllmServer(model, EngineConfig(port=0), log) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def vllm(server: VllmServer) -> AsyncIterator[VllmClient]:
    async with VllmClient(server.url, engine=server.engine_id) as client:
        yield client


@pytest.fixture(scope="module")
def adapters(model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six LoRA adapters whose B is random, so that each is another policy."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen3VLForConditionalGeneration

    from mmzero_async.families import of_folder

    targets, folders = of_folder(model).lora_targets, []
    for seed in range(6):
        torch.manual_seed(seed)
        base = Qwen3VLForConditionalGeneration.from_pretrained(model, dtype=torch.float32)
        peft = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules=targets))
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        folders.append(tmp_path_factory.mktemp("adapter") / str(seed))
        peft.save_pretrained(folders[-1])
    return folders


@pytest.mark.parametrize("temperature", [1.0, 0.7])
async def test_text_logprobs_are_those_of_transformers(
    vllm: VllmClient, model: Path, temperature: float
) -> None:
    sampling = Sampling(temperature=temperature, max_tokens=40, seed=1)
    generation = await ask(vllm, n=4, sampling=sampling)
    assert len({sample.text for sample in generation.samples}) > 1
    expected = transformers_logprobs(model, generation, None)
    assert greatest_difference(generation, expected) < 1e-3


async def test_image_logprobs_are_those_of_transformers_on_the_expanded_prompt(
    vllm: VllmClient, model: Path, looking: list[dict[str, Any]], picture: bytes
) -> None:
    generation = await ask(vllm, looking, n=4)
    config = json.loads((model / "config.json").read_text())
    prompt = unpack_tokens(generation.prompt_token_ids).tolist()
    start = prompt.index(config["vision_start_token_id"])
    stop = prompt.index(config["vision_end_token_id"])
    assert prompt[start + 1 : stop] == [config["image_token_id"]] * 9  # (96 / 16 / 2) squared
    expected = transformers_logprobs(model, generation, picture)
    assert greatest_difference(generation, expected) < 1e-3


async def test_a_sample_that_stopped_ends_with_its_end_token(vllm: VllmClient, model: Path) -> None:
    eos = json.loads((model / "config.json").read_text())["text_config"]["eos_token_id"]
    stopped = []
    for seed in range(20):
        sampling = Sampling(temperature=1.0, max_tokens=200, seed=seed)
        generation = await ask(vllm, n=8, sampling=sampling)
        for sample in generation.samples:
            tokens = unpack_tokens(sample.token_ids).tolist()
            assert (sample.finish_reason == "stop") == (tokens[-1] == eos)
            assert eos not in tokens[:-1]
            if sample.finish_reason == "stop":
                stopped.append(sample)
        if stopped:
            break
    assert stopped


async def test_a_seed_makes_samples_repeatable_and_different_from_each_other(
    vllm: VllmClient,
) -> None:
    sampling = Sampling(temperature=2.0, max_tokens=24, seed=11)
    first, second = [await ask(vllm, n=4, sampling=sampling) for _ in range(2)]
    tokens = [[sample.token_ids for sample in g.samples] for g in (first, second)]
    assert tokens[0] == tokens[1]
    assert len(set(tokens[0])) == 4


async def test_token_ids_in_give_the_chat_s_logprobs(vllm: VllmClient) -> None:
    sampling = Sampling(temperature=1.0, max_tokens=24, seed=11)
    chat = await ask(vllm, n=2, sampling=sampling)
    text = await vllm.complete(
        unpack_tokens(chat.prompt_token_ids).tolist(),
        policy="base",
        version=0,
        role="coder",
        n=2,
        sampling=sampling,
    )
    assert [s.token_ids for s in chat.samples] == [s.token_ids for s in text.samples]


async def test_each_adapter_is_another_policy_and_transformers_agrees(
    vllm: VllmClient, model: Path, adapters: list[Path], looking: list[dict[str, Any]]
) -> None:
    publisher = AdapterPublisher(vllm)
    for role, adapter in zip(ROLES, adapters, strict=False):
        await publisher.publish(role, 1, adapter)
    greedy = Sampling(temperature=0.0, max_tokens=16)
    said = {
        (await ask(vllm, looking, policy=policy, sampling=greedy)).samples[0].logprobs
        for policy in ("base", *map(publisher.current, ROLES))
    }
    assert len(said) == 4, "two of them are equally sure of every token"
    generation = await ask(vllm, policy="solver@1", version=1, n=2)
    expected = transformers_logprobs(model, generation, None, adapters[2])
    assert greatest_difference(generation, expected) < 1e-3


async def test_publishing_under_load_loses_no_request_and_mixes_no_versions(
    vllm: VllmClient, model: Path, adapters: list[Path], looking: list[dict[str, Any]]
) -> None:
    publisher = AdapterPublisher(vllm)
    await publisher.publish("solver", 11, adapters[0])
    sampling = Sampling(temperature=1.0, max_tokens=200)
    asked = [
        asyncio.create_task(
            ask(vllm, HELLO, policy="solver@11", version=11, n=4, sampling=sampling)
        )
        for _ in range(16)
    ]
    while (await vllm.metrics())["running"] == 0:  # noqa: ASYNC110 - there is nothing to await
        await asyncio.sleep(0.01)
    for version in (12, 13, 14):  # 11 is unloaded while its requests run
        await publisher.publish("solver", version, adapters[version - 11])
    assert not all(task.done() for task in asked)
    generations = await asyncio.gather(*asked)
    for generation in generations:
        for sample in generation.samples:
            length = len(unpack_tokens(sample.token_ids))
            assert sample.versions == [VersionSpan(0, length, 11)]
    # Not only in name: the weights of version 11 gave every token, before and after the publish.
    for generation in generations[:3]:
        expected = transformers_logprobs(model, generation, None, adapters[0])
        assert greatest_difference(generation, expected) < 1e-3
    with pytest.raises(PolicyNotLoaded):
        await ask(vllm, policy="solver@11", version=11)
    assert publisher.current("solver") == "solver@14"


async def test_a_broken_adapter_leaves_the_engine_as_it_was(
    vllm: VllmClient, adapters: list[Path], tmp_path: Path
) -> None:
    publisher = AdapterPublisher(vllm)
    await publisher.publish("coder", 21, adapters[0])
    (tmp_path / "adapter_config.json").write_text("{}")
    for broken in (tmp_path, tmp_path / "none"):
        with pytest.raises(PublishFailed, match="still served as coder@21"):
            await publisher.publish("coder", 22, broken)
    assert (await ask(vllm, policy="coder@21", version=21)).samples
    assert "coder@22" not in await vllm.policies()


async def test_a_prompt_too_long_is_rejected_with_vllms_words(vllm: VllmClient) -> None:
    with pytest.raises(EngineRejected, match="1024"):
        await ask(vllm, [{"role": "user", "content": "0 " * 4000}])


async def test_stopping_leaves_no_process(server: VllmServer) -> None:
    """Stands last: the module's server is gone after it."""
    assert server.pid is not None
    top = psutil.Process(server.pid)
    family = [top, *top.children(recursive=True)]
    assert len(family) >= 3  # guard, API server, engine
    await server.stop()
    assert [process for process in family if process.is_running()] == []
