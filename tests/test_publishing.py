"""A version is served as a whole or not at all: the contract of both publishers.

The fast tests speak to a fake engine; the slow ones hold both publishers against real vLLM on a
CPU, and every token's log-probability against transformers under the version that its span names.
"""

import asyncio
import base64
import hashlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import pytest_asyncio
from engine_questions import HELLO, ask, greatest_difference, transformers_logprobs
from fake_engine import FakeEngine
from fake_weight_engine import FakeWeightEngine

from mmzero_async.config import EngineConfig
from mmzero_async.engines import weight_client
from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.errors import EngineUnavailable, PublishFailed
from mmzero_async.engines.publisher import AdapterPublisher, Publisher
from mmzero_async.engines.server import VllmServer
from mmzero_async.engines.weight_client import WeightClient
from mmzero_async.engines.weight_publisher import WeightPublisher
from mmzero_async.schemas.events import ROLES, Generation, Sampling, VersionSpan
from mmzero_async.schemas.packing import unpack_logprobs, unpack_tokens

PUBLISH = [
    *("pause", "reset_prefix_cache", "reset_encoder_cache"),
    *("start_weight_update", "update_weights", "finish_weight_update", "resume"),
]


def weights_in(folder: Path, content: bytes = b"weights") -> str:
    """A file where a version's weights lie; its digest."""
    (folder / "model.safetensors").write_bytes(content)
    (folder / "adapter_model.safetensors").write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def client_of(engine: FakeEngine, **options: Any) -> WeightClient:
    return WeightClient(engine.url, backoff_seconds=0.001, **options)


def publisher_to(*clients: WeightClient) -> WeightPublisher:
    return WeightPublisher(dict.fromkeys(ROLES, clients))


# --- full weights, fast ---------------------------------------------------------------------------


async def test_weights_are_replaced_while_the_engine_is_paused_and_numbered_before_it_goes_on(
    tmp_path,
):
    digest = weights_in(tmp_path)
    async with FakeWeightEngine() as engine, client_of(engine) as client:
        publisher = publisher_to(client)
        assert not await publisher.serves("solver", 3)
        assert await publisher.publish("solver", 3, tmp_path, digest) == "solver"
        assert engine.calls == PUBLISH
        assert (engine.number, engine.loaded, engine.paused) == ("3", digest, False)
        assert await publisher.serves("solver", 3) and not await publisher.serves("solver", 2)


async def test_a_refused_file_leaves_the_old_version_served_under_its_own_number(tmp_path):
    async with FakeWeightEngine() as engine, client_of(engine) as client:
        publisher = publisher_to(client)
        await publisher.publish("solver", 3, tmp_path, weights_in(tmp_path))
        engine.refuse["update_weights"] = ["it is damaged"]
        with pytest.raises(PublishFailed, match=r"solver 4 .*it is damaged"):
            await publisher.publish("solver", 4, tmp_path, "0" * 64)
        assert await publisher.serves("solver", 3)
        assert "finish_weight_update" not in engine.calls[len(PUBLISH) :]


@pytest.mark.parametrize("where", ["update_weights", "finish_weight_update"])
async def test_an_engine_of_which_nobody_knows_how_far_it_came_stays_paused_until_it_is_whole(
    tmp_path, monkeypatch, where
):
    monkeypatch.setattr(weight_client, "_LOOK_SECONDS", 0.01)
    digest = weights_in(tmp_path)
    async with FakeWeightEngine() as engine, client_of(engine) as client:
        publisher = publisher_to(client)
        await publisher.publish("solver", 3, tmp_path, digest)
        engine.refuse[where] = ["hang" if where == "update_weights" else "it broke"]
        with pytest.raises(PublishFailed):
            await publisher.publish("solver", 4, tmp_path, digest)
        assert engine.paused and not await publisher.serves("solver", 3)
        engine.dead = False
        await publisher.publish("solver", 4, tmp_path, digest)
        assert await publisher.serves("solver", 4)


async def test_an_update_that_a_dead_learner_left_open_is_closed_first(tmp_path):
    async with FakeWeightEngine() as engine, client_of(engine) as client:
        engine.refuse["start_weight_update"] = ["a weight update is already active"]
        publisher = publisher_to(client)
        await publisher.publish("solver", 1, tmp_path, weights_in(tmp_path))
        assert engine.calls[3:6] == [
            *("start_weight_update", "finish_weight_update", "start_weight_update")
        ]
        assert await publisher.serves("solver", 1)


async def test_no_sample_is_taken_from_weights_without_a_number(tmp_path):
    async with FakeWeightEngine() as engine, client_of(engine, numbered=True) as client:
        with pytest.raises(EngineUnavailable, match=r"have no number \(default\)"):
            await ask(client, policy="solver", version=7)
        await publisher_to(client).publish("solver", 8, tmp_path, weights_in(tmp_path))
        generation = await ask(client, policy="solver", version=7)
        assert generation.version == 8  # the lease was older than the engine's weights
        (sample,) = generation.samples
        assert sample.versions == [VersionSpan(0, len(unpack_tokens(sample.token_ids)), 8)]


# --- adapters, fast -------------------------------------------------------------------------------


async def test_an_adapter_with_a_changed_byte_is_not_loaded(tmp_path):
    digest = weights_in(tmp_path)
    async with FakeEngine() as engine, client_of(engine) as client:
        publisher = AdapterPublisher(client)
        await publisher.publish("solver", 1, tmp_path, digest)
        weights_in(tmp_path, b"other weights")
        for folder in (tmp_path, tmp_path / "none"):
            with pytest.raises(PublishFailed, match="still served as solver@1"):
                await publisher.publish("solver", 2, folder, digest)
        assert await publisher.serves("solver", 1) and not await publisher.serves("solver", 2)


# --- both, on real vLLM ---------------------------------------------------------------------------


@dataclass
class Rig:
    """A publisher, its engine, and three versions of the solver that differ in all they train."""

    kind: str
    base: Path
    run: Path
    saved: dict[int, Any]
    server: VllmServer
    client: WeightClient
    publisher: Publisher

    def folder(self, version: int) -> Path:
        return self.run / self.saved[version].checkpoint

    async def publish(self, version: int) -> None:
        digest = self.saved[version].digest
        await self.publisher.publish("solver", version, self.folder(version), digest)

    async def ask(self, picture: bytes | None = None, **options: Any) -> Generation:
        content: Any = "how many shapes are there?"
        if picture is not None:
            url = "data:image/png;base64," + base64.b64encode(picture).decode()
            content = [
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": content},
            ]
        policy = self.publisher.current("solver")
        version = int(policy.partition("@")[2] or 0)
        messages = [{"role": "user", "content": content}]
        return await ask(self.client, messages, policy=policy, version=version, **options)

    def expected(self, generation: Generation, version: int, picture: bytes | None = None):
        if self.kind == "full":
            return transformers_logprobs(self.folder(version), generation, picture)
        return transformers_logprobs(self.base, generation, picture, self.folder(version))

    def check(self, generation: Generation, picture: bytes | None = None) -> set[int]:
        """Every token was drawn by the version that its span names; which ones there were."""
        from tiny_model import IMAGE

        # transformers takes a placeholder that was sampled for one more picture.
        plain = [s for s in generation.samples if IMAGE not in unpack_tokens(s.token_ids)]
        generation = msgspec.structs.replace(generation, samples=plain)
        there = {span.version for s in generation.samples for span in s.versions}
        under = {version: self.expected(generation, version, picture) for version in there}
        for index, sample in enumerate(generation.samples):
            mine = unpack_logprobs(sample.logprobs)
            assert sum(span.stop - span.start for span in sample.versions) == len(mine)
            for span in sample.versions:
                for place in range(span.start, span.stop):
                    theirs = under[span.version][index][place]
                    assert abs(float(mine[place]) - theirs) < 2e-3, (span, place)
        return there


def versions(kind: str, base: Path, run: Path) -> dict[int, Any]:
    """Three versions as the learner saves them."""
    import tiny_model
    import torch

    from mmzero_async.learner.full import FullModel
    from mmzero_async.learner.step import Trainer

    model = FullModel(base) if kind == "full" else tiny_model.policy(base)
    trainer, saved = Trainer(model, "solver", tiny_model.config(weights=kind)), {}
    for version in (1, 2, 3):
        source = torch.Generator().manual_seed(version)
        model.set_adapter(
            "solver",
            {
                name: tensor + 0.05 * torch.randn(tensor.shape, generator=source)
                for name, tensor in model.adapter("solver").items()
            },
        )
        saved[version] = trainer.save(run, version)
    return saved


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["lora", "full"])
async def rig(
    request, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Rig]:
    kind, run = request.param, tmp_path_factory.mktemp("run")
    saved = versions(kind, tiny_folder, run)
    role = "solver" if kind == "full" else None
    config = EngineConfig(port=0, kv_cache_gib=0.1)
    async with (
        VllmServer(tiny_folder, config, run / "engine.log", role=role) as server,
        WeightClient(server.url, numbered=kind == "full") as client,
    ):
        publisher = publisher_to(client) if kind == "full" else AdapterPublisher(client)
        yield Rig(kind, tiny_folder, run, saved, server, client, publisher)


slow = pytest.mark.slow
real = pytest.mark.asyncio(loop_scope="module")
long = pytest.mark.timeout(900)


@slow
@real
@long
async def test_what_was_published_is_what_answers(rig: Rig) -> None:
    import tiny_model

    picture = tiny_model.png(tiny_model.picture(5))
    said = set()
    for version in (1, 2, 1):
        await rig.publish(version)
        assert await rig.publisher.serves("solver", version)
        seeded = Sampling(temperature=1.0, max_tokens=12, seed=3)
        looked = await rig.ask(picture, sampling=seeded)
        assert rig.check(looked, picture) == {version}
        said.add(looked.samples[0].logprobs)
        assert rig.check(await rig.ask(n=8)) == {version}
        if rig.kind == "full":
            file = str(rig.folder(version) / "model.safetensors")
            assert await rig.client.different_weights(file) == []
            other = rig.folder(3) / "model.safetensors"
            assert len(await rig.client.different_weights(str(other))) > 50
    assert len(said) > 1


@slow
@real
@long
async def test_under_load_no_request_is_lost_and_every_token_has_its_version(rig: Rig) -> None:
    import tiny_model

    picture = tiny_model.png(tiny_model.picture(6))
    await rig.publish(1)
    long_ones = Sampling(temperature=1.0, max_tokens=300, seed=5)
    asked = [
        asyncio.create_task(rig.ask(picture if i % 2 else None, n=4, sampling=long_ones))
        for i in range(8)
    ]
    while (await rig.client.metrics())["tokens_generated"] == 0:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await rig.publish(2)
    await asyncio.sleep(0.1)
    await rig.publish(3)
    generations = await asyncio.gather(*asked)
    seen = set()
    for i, generation in enumerate(generations):
        seen |= rig.check(generation, picture if i % 2 else None)
    assert seen == {1} if rig.kind == "lora" else len(seen) > 1
    assert rig.check(await rig.ask(n=8)) == {3}


@slow
@real
@long
async def test_a_version_that_cannot_be_leaves_the_old_one_whole(rig: Rig, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    await rig.publish(2)
    name = "model.safetensors" if rig.kind == "full" else "adapter_model.safetensors"
    folders = {what: tmp_path / what for what in ("a byte", "short", "shape", "missing", "none")}
    for folder in list(folders.values())[:-1]:
        shutil.copytree(rig.folder(3), folder)
    whole = (rig.folder(3) / name).read_bytes()
    digests = dict.fromkeys(folders, rig.saved[3].digest)
    (folders["a byte"] / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (folders["short"] / name).write_bytes(whole[: len(whole) // 2])
    digests["short"] = hashlib.sha256(whole[: len(whole) // 2]).hexdigest()
    tensors = load_file(rig.folder(3) / name)
    key = next(k for k in tensors if "q_proj" in k)
    longer = {**tensors, key: tensors[key].repeat(2, 1)}
    fewer = {k: t for k, t in tensors.items() if k != key}
    for what, content in (("shape", longer), ("missing", fewer)):
        save_file(content, folders[what] / name, metadata={"format": "pt"})
        digests[what] = hashlib.sha256((folders[what] / name).read_bytes()).hexdigest()
    for what, folder in folders.items():
        if rig.kind == "lora" and what in ("shape", "missing"):
            continue  # vLLM may take it for an adapter; that it is not ours its digest tells
        with pytest.raises(PublishFailed):
            await rig.publisher.publish("solver", 3, folder, digests[what])
        assert await rig.publisher.serves("solver", 2), what
        assert not await rig.publisher.serves("solver", 3), what
        assert rig.check(await rig.ask(n=8)) == {2}, what


@slow
@real
@long
async def test_an_engine_killed_in_a_publish_serves_nothing_until_the_next_one(rig: Rig) -> None:
    """Stands last: the engine is another one after it."""
    await rig.publish(1)
    assert rig.server.pid is not None
    family = psutil.Process(rig.server.pid).children(recursive=True)
    publishing = asyncio.create_task(rig.publish(2))
    if rig.kind == "full":
        while not await rig.client.is_paused():  # noqa: ASYNC110
            await asyncio.sleep(0)
    for process in reversed(family):
        process.kill()
    with pytest.raises(PublishFailed):
        await publishing
        if rig.kind == "lora":
            raise PublishFailed("an adapter may be in before the kill")
    await rig.server.wait()
    await rig.server.stop()
    url = await rig.server.start()
    async with WeightClient(url, numbered=rig.kind == "full") as client:
        again = publisher_to(client) if rig.kind == "full" else AdapterPublisher(client)
        rig.client, rig.publisher = client, again
        assert not await again.serves("solver", 1) and not await again.serves("solver", 2)
        if rig.kind == "full":
            with pytest.raises(EngineUnavailable, match="no number"):
                await rig.ask()
        await rig.publish(2)
        assert rig.check(await rig.ask(n=8)) == {2}


@slow
@long
async def test_an_engine_starts_from_a_version_of_full_weights(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """What was saved is a model like any other: nothing is published into this engine."""
    import tiny_model

    folder = tmp_path / versions("full", tiny_folder, tmp_path)[2].checkpoint
    picture = tiny_model.png(tiny_model.picture(5))
    url = "data:image/png;base64," + base64.b64encode(picture).decode()
    looking = [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": "how many shapes are there?"},
            ],
        }
    ]
    config = EngineConfig(port=0, kv_cache_gib=0.1)
    async with (
        VllmServer(folder, config, tmp_path / "engine.log") as server,
        VllmClient(server.url) as client,
    ):
        for messages, seen in ((HELLO, None), (looking, picture)):
            sampling = Sampling(temperature=1.0, max_tokens=12, seed=3)
            generation = await ask(client, messages, n=8, sampling=sampling)
            expected = transformers_logprobs(folder, generation, seen)
            assert greatest_difference(generation, expected) < 2e-3
            base = transformers_logprobs(tiny_folder, generation, seen)
            assert greatest_difference(generation, base) > 0.1
