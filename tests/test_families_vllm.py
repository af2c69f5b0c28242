"""Each family in real vLLM: the engine's prompts and log-probabilities are the learner's.

Qwen3-VL, as the seedling, is in test_engine_vllm.py.
"""

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
import small_families
import tiny_model
import torch
from tiny_model import Album, group
from transformers.utils import is_num2words_available

from mmzero_async.config import EngineConfig
from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.errors import EngineUnavailable
from mmzero_async.engines.launch import BASE_POLICY, installed
from mmzero_async.engines.publisher import AdapterPublisher
from mmzero_async.engines.server import VllmServer
from mmzero_async.learner.batch import build
from mmzero_async.learner.model import load
from mmzero_async.learner.step import Trainer
from mmzero_async.learner.window import GroupBatch, Window
from mmzero_async.roles.prompts import load_templates, solver_messages
from mmzero_async.schemas.events import Generation, Sampling
from mmzero_async.schemas.packing import unpack_logprobs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]
PICTURES = [(756, 756), (120, 60)]  # what a preset renders, and another shape
# vLLM 0.32 rounds the places of a tile's patches: of 27 rows and columns, the eleventh is taken for
# the tenth. transformers in float32, and the learner always, have each in its own; 32 are exact.
NEAR = {"mimo-vl-7b": 2e-3, "smolvlm": 2e-2, "smolvlm2": 2e-3}


@dataclass
class Served:
    small: small_families.Small
    client: VllmClient
    trained: Trainer
    album: Album
    policy: str  # the trained adapter's name

    async def ask(self, size: tuple[int, int] | None, policy: str) -> Generation:
        """Four answers to a question on a picture of the size, or to a question alone."""
        messages = [{"role": "user", "content": "Draw three bars."}]
        digests = []
        if size is not None:
            digests = [self.album.add(tiny_model.picture(7, size))]
            url = "data:image/png;base64," + base64.b64encode(self.album[digests[0]]).decode()
            messages = solver_messages(load_templates("mmzero"), "How many bars are there?", url)
        return await self.client.generate(
            messages,
            policy=policy,
            version=0 if policy == BASE_POLICY else 1,
            role="solver",
            n=4,
            sampling=Sampling(temperature=1.0, max_tokens=24, seed=5),
            template="t",
            images=digests,
        )

    @torch.no_grad()
    def difference(self, generation: Generation, *, base: bool) -> float:
        """Largest between the engine's log-probabilities and the learner's, in nats.

        Building the batch refuses a prompt that is not the learner's own expansion.
        """
        count = len(generation.samples)
        one = GroupBatch("g", generation, [0.0] * count, [1.0] * count)
        model = self.trained.model
        batch = build(Window("solver", (one,)), self.album.__getitem__, model.spec, 1)
        model.activate("solver")
        views = model.look(batch)
        found = []
        for micro in batch.micro_batches:
            if base:
                with model.base():
                    mine = model.logprobs(micro, views)
            else:
                mine = model.logprobs(micro, views)
            found.append((mine - micro.behaviour).abs()[micro.mask].max())
        return float(max(found))


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=sorted(small_families.BUILDERS))
async def served(request, tmp_path_factory) -> AsyncIterator[Served]:
    name = request.param
    try:
        installed()
    except EngineUnavailable as error:
        pytest.skip(str(error))
    if name == "smolvlm2" and not is_num2words_available():
        pytest.skip("SmolVLM2's processor needs num2words, in the engine too")
    run: Path = tmp_path_factory.mktemp(name)
    small = small_families.BUILDERS[name](run / "model")
    album = Album()
    trained = Trainer(load(small.folder, rank=4, alpha=8, seed=1), "solver", tiny_model.config())
    trained.train(
        Window("solver", (group("g", [40, 41], [[50, 51], [52]], [1.0, -1.0]),)), album.__getitem__
    )
    config = EngineConfig(port=0, max_model_len=4096, max_lora_rank=8, kv_cache_gib=0.25)
    async with (
        VllmServer(small.folder, config, run / "engine.log") as server,
        VllmClient(server.url, engine=server.engine_id) as client,
    ):
        saved = trained.save(run, 1)
        policy = await AdapterPublisher(client).publish("solver", 1, run / saved.checkpoint)
        yield Served(small, client, trained, album, policy)


@pytest.mark.parametrize("size", [*PICTURES, None])
async def test_the_engine_s_prompt_and_log_probabilities_are_the_learner_s(served, size) -> None:
    spoken = {}
    for policy in (BASE_POLICY, served.policy):
        generation = await served.ask(size, policy)
        near = NEAR[served.small.name] if size else 2e-3
        assert served.difference(generation, base=policy == BASE_POLICY) < near
        spoken[policy] = [unpack_logprobs(s.logprobs).tolist() for s in generation.samples]
    assert spoken[BASE_POLICY] != spoken[served.policy]  # vLLM applies the family's adapter
