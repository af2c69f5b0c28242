"""The engine's client and its publisher of adapters, held against the fake engine."""

import asyncio
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_questions import LOOK, ask, client_of
from fake_engine import END, IMAGE_PAD, PADS, VISION_END, VISION_START, FakeEngine
from hypothesis import given, settings
from hypothesis import strategies as st

from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.errors import (
    EngineError,
    EngineRejected,
    EngineUnavailable,
    PolicyNotLoaded,
    PublishFailed,
)
from mmzero_async.engines.publisher import AdapterPublisher, policy_name
from mmzero_async.engines.wire import chat_answer, sampling_fields
from mmzero_async.schemas.events import Sampling, VersionSpan
from mmzero_async.schemas.packing import unpack_logprobs, unpack_tokens

# --- the client --------------------------------------------------------------------------------


async def test_a_generation_bears_the_provenance_of_every_token() -> None:
    async with FakeEngine() as engine, client_of(engine) as client:
        engine.adapters["solver@3"] = "/adapter"
        sampling = Sampling(temperature=0.7, max_tokens=64, seed=5)
        generation = await client.generate(
            LOOK,
            policy="solver@3",
            version=3,
            role="solver",
            n=2,
            sampling=sampling,
            template="digest",
            images=["picture-digest"],
        )
    assert generation.policy == "solver@3" and generation.sampling == sampling
    assert generation.images == ["picture-digest"] and generation.template == "digest"
    assert "0-fake" in generation.engine and generation.seconds > 0
    image = [VISION_START, *[IMAGE_PAD] * PADS, VISION_END]
    prompt = unpack_tokens(generation.prompt_token_ids).tolist()
    assert prompt == [*image, *b"what?", END]
    for i, sample in enumerate(generation.samples):
        tokens = unpack_tokens(sample.token_ids).tolist()
        assert sample.text == f"answer {i}"
        assert tokens == [*sample.text.encode(), END]
        assert len(unpack_logprobs(sample.logprobs)) == len(tokens)
        assert sample.versions == [VersionSpan(0, len(tokens), 3)]
        assert sample.finish_reason == "stop"


async def test_token_ids_go_in_and_come_out_of_a_completion() -> None:
    async with FakeEngine() as engine, client_of(engine) as client:
        generation = await client.complete(
            list(b"abc"),
            policy="base",
            version=0,
            role="coder",
            n=3,
            sampling=Sampling(temperature=1.0, max_tokens=2),
        )
    assert unpack_tokens(generation.prompt_token_ids).tolist() == list(b"abc")
    assert [sample.finish_reason for sample in generation.samples] == ["length"] * 3
    assert all(len(unpack_tokens(sample.token_ids)) == 2 for sample in generation.samples)


async def test_a_policy_that_is_not_loaded_is_its_own_error() -> None:
    async with FakeEngine() as engine, client_of(engine) as client:
        with pytest.raises(PolicyNotLoaded, match="solver@9"):
            await ask(client, policy="solver@9", version=9)
        with pytest.raises(PolicyNotLoaded, match="solver@9"):
            await client.unload_policy("solver@9")


async def test_a_refusal_carries_the_engines_words_and_is_not_repeated() -> None:
    async with FakeEngine(failures=[400]) as engine, client_of(engine) as client:
        with pytest.raises(EngineRejected, match="failure 400 as ordered"):
            await ask(client)
        assert len(engine.requests) == 1


async def test_an_engine_that_breaks_inside_is_unavailable() -> None:
    async with FakeEngine(failures=[500]) as engine, client_of(engine) as client:
        with pytest.raises(EngineUnavailable, match="500"):
            await ask(client)


@pytest.mark.parametrize("failure", ["drop", 503])
async def test_a_lost_connection_or_a_busy_engine_is_tried_again(failure: str | int) -> None:
    async with FakeEngine(failures=[failure] * 3) as engine, client_of(engine) as client:
        generation = await ask(client)
        assert generation.samples[0].text == "answer 0"
        assert len(engine.requests) == 4


async def test_trying_again_has_an_end() -> None:
    async with FakeEngine(failures=["drop"] * 9) as engine, client_of(engine, retries=2) as client:
        with pytest.raises(EngineUnavailable, match=engine.url):
            await ask(client)
        assert len(engine.requests) == 3


async def test_nobody_at_the_address_is_unavailable_and_not_healthy() -> None:
    async with VllmClient("http://127.0.0.1:9", retries=1, backoff_seconds=0.001) as client:
        assert not await client.health()
        with pytest.raises(EngineUnavailable, match=r"127\.0\.0\.1:9"):
            await ask(client)


async def test_a_slow_engine_is_given_up_on_without_repeating_the_request() -> None:
    async with FakeEngine(latency=5.0) as engine, client_of(engine, request_seconds=0.05) as client:
        with pytest.raises(EngineUnavailable, match=r"within 0\.05 s"):
            await ask(client)
        assert len(engine.requests) == 1


async def test_connections_are_bounded_and_the_rest_waits() -> None:
    async with FakeEngine(latency=0.01) as engine, client_of(engine, connections=3) as client:
        await asyncio.gather(*(ask(client) for _ in range(12)))
        assert len(engine.requests) == 12
        assert engine.peak_running == 3


def _drop_a_logprob(answer: dict[str, Any]) -> None:
    answer["choices"][0]["logprobs"]["content"].pop()


def _drop_a_choice(answer: dict[str, Any]) -> None:
    answer["choices"].pop()


def _drop_token_ids(answer: dict[str, Any]) -> None:
    answer["choices"][0]["token_ids"] = None


def _drop_prompt(answer: dict[str, Any]) -> None:
    answer["prompt_token_ids"] = None


def _other_json(answer: dict[str, Any]) -> None:
    answer.clear()


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (_drop_a_logprob, "9 tokens but 8 log-probabilities"),
        (_drop_a_choice, "1 samples, 2 were asked for"),
        (_drop_token_ids, "no token_ids"),
        (_drop_prompt, "no prompt_token_ids"),
        (_other_json, "not what vLLM sends"),
    ],
)
async def test_an_answer_that_contradicts_itself_is_an_error(
    tamper: Callable[[dict[str, Any]], None], said: str
) -> None:
    async with FakeEngine() as engine, client_of(engine) as client:
        engine.tamper = tamper
        with pytest.raises(EngineError, match=said):
            await ask(client, n=2)


async def test_health_policies_and_metrics_are_read() -> None:
    async with FakeEngine() as engine, client_of(engine) as client:
        assert await client.health()
        await client.load_policy("coder@1", "/adapter")
        assert await client.policies() == ["base", "coder@1"]
        await ask(client)
        metrics = await client.metrics()
        assert metrics["tokens_generated"] == len("answer 0") + 1
        assert metrics["running"] == 0 and metrics["waiting"] == 0


def test_every_sampling_knob_is_sent_and_top_k_zero_means_off() -> None:
    fields = sampling_fields(Sampling(temperature=0.5, top_p=0.9, max_tokens=7, seed=1))
    assert fields["top_k"] == -1 and fields["top_p"] == 0.9
    assert fields["repetition_penalty"] == 1.0 and fields["min_p"] == 0.0
    assert fields["max_tokens"] == 7 and fields["seed"] == 1
    bare = sampling_fields(Sampling(temperature=1.0, top_k=20))
    assert bare["top_k"] == 20 and "max_tokens" not in bare and "seed" not in bare


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(0, 6), max_size=4), version=st.integers(0, 99))
def test_version_spans_cover_every_token_once(lengths: list[int], version: int) -> None:
    edges = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    total = edges[-1]
    numbered = [
        {"version": str(i), "start": start, "end": stop}
        for i, (start, stop) in enumerate(itertools.pairwise(edges))
    ]
    unnumbered = [{"version": "default", "start": 0, "end": total}]
    for engines_spans in (numbered, unnumbered, None):
        choice = {
            "index": 0,
            "message": {"content": ""},
            "finish_reason": "length",
            "token_ids": [1] * total,
            "logprobs": {"content": [{"logprob": -1.0}] * total},
            "weight_versions": engines_spans,
        }
        body = json.dumps({"prompt_token_ids": [1], "choices": [choice]}).encode()
        spans = chat_answer(body, n=1, version=version).samples[0].versions
        covered = [place for span in spans for place in range(span.start, span.stop)]
        assert covered == list(range(total))
        if engines_spans is not numbered:
            assert {span.version for span in spans} <= {version}


# --- publishing --------------------------------------------------------------------------------


async def test_a_version_is_published_beside_the_one_before_it(tmp_path: Path) -> None:
    async with FakeEngine() as engine, client_of(engine) as client:
        publisher = AdapterPublisher(client)
        assert publisher.current("solver") == "base"
        for version in (1, 2, 3):
            name = await publisher.publish("solver", version, tmp_path / str(version))
            assert name == policy_name("solver", version) == publisher.current("solver")
        await publisher.publish("coder", 1, tmp_path / "c1")
        assert await client.policies() == ["base", "solver@2", "solver@3", "coder@1"]
        assert publisher.current("coder") == "coder@1"
        # Loaded before the oldest goes: at no time is a role without its last two.
        assert engine.events.index("load solver@3") < engine.events.index("unload solver@1")


async def test_an_adapter_that_cannot_be_read_leaves_the_old_version(tmp_path: Path) -> None:
    async with FakeEngine() as engine, client_of(engine) as client:
        publisher = AdapterPublisher(client)
        await publisher.publish("solver", 1, tmp_path / "1")
        engine.broken_folders.add(str(tmp_path / "2"))
        with pytest.raises(PublishFailed, match=r"still served as solver@1.*No adapter found"):
            await publisher.publish("solver", 2, tmp_path / "2")
        assert publisher.current("solver") == "solver@1"
        assert await client.policies() == ["base", "solver@1"]


async def test_an_adapter_that_cannot_generate_is_withdrawn(tmp_path: Path) -> None:
    async with FakeEngine() as engine, client_of(engine) as client:
        publisher = AdapterPublisher(client)
        await publisher.publish("solver", 1, tmp_path / "1")
        engine.broken_policies.add("solver@2")
        with pytest.raises(PublishFailed, match="solver@1"):
            await publisher.publish("solver", 2, tmp_path / "2")
        assert await client.policies() == ["base", "solver@1"]


async def test_publishing_a_version_again_loads_nothing(tmp_path: Path) -> None:
    async with FakeEngine() as engine, client_of(engine) as client:
        await AdapterPublisher(client).publish("solver", 1, tmp_path / "1")
        publisher = AdapterPublisher(client)  # a new process, the same engine
        assert await publisher.publish("solver", 1, tmp_path / "1") == "solver@1"
        assert engine.events == ["load solver@1"]


async def test_what_another_run_left_in_the_engine_is_replaced(tmp_path: Path) -> None:
    async with FakeEngine() as engine, client_of(engine) as client:
        engine.adapters |= {"solver@1": "/other/1", "solver@7": "/other/7", "coder@7": "/other/c"}
        await AdapterPublisher(client).publish("solver", 1, tmp_path / "1")
        assert engine.adapters == {"coder@7": "/other/c", "solver@1": str(tmp_path / "1")}
