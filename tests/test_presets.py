"""The presets: the paper's figures, and the learner on the architecture of each one of Qwen3-VL.

The models are those of transformers, small and with random weights, but with what tells the
family's members apart: grouped heads, three deepstack levels, tied or untied output weights. The
other presets' models are in test_families.py.
"""

import math
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tiny_model
import torch
from model_words import independently
from PIL import Image
from test_config import leaves
from tiny_model import Album, group
from transformers import (
    AutoProcessor,
    AutoTokenizer,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)

from mmzero_async.config import Config, RoleLearning, load
from mmzero_async.engines.model import check_model
from mmzero_async.learner import model as learner_model
from mmzero_async.learner.batch import build
from mmzero_async.learner.errors import LearnerError
from mmzero_async.learner.step import Trainer
from mmzero_async.learner.window import Window
from mmzero_async.roles.prompts import load_templates, solver_messages
from mmzero_async.schemas.events import ROLES
from mmzero_async.seedling import tokenizer

# name: (heads, key-value heads, tied output, width of the language model, of the vision tower)
SHAPES = {
    "qwen3-vl-2b": (4, 2, True, 64, 48),
    "qwen3-vl-4b": (4, 1, True, 80, 48),
    "qwen3-vl-8b": (4, 1, False, 96, 80),
}
QWEN3 = sorted(SHAPES)
PRESETS = [*QWEN3, "mimo-vl-7b", "smolvlm"]
QUESTION = "How many bars are there?"


def shaped(name: str, folder: Path, image_size: int) -> Path:
    """A model folder of the preset's architecture, with the family's own picture sizes."""
    heads, kv_heads, tied, hidden, seen = SHAPES[name]
    tokenizer.build(folder, image_size=image_size, vocabulary=300)
    words = AutoTokenizer.from_pretrained(folder)
    ids = {token: words.convert_tokens_to_ids(token) for token in tokenizer.SPECIALS}
    text = dict(
        vocab_size=len(words),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=4,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=32,
        max_position_embeddings=4096,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 5_000_000.0,
            "mrope_section": [6, 5, 5],
            "mrope_interleaved": True,
        },
        pad_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|im_end|>"],
        bos_token_id=None,
        tie_word_embeddings=tied,
    )
    vision = dict(
        depth=4,
        hidden_size=seen,
        intermediate_size=2 * seen,
        num_heads=4,
        patch_size=16,
        spatial_merge_size=2,
        temporal_patch_size=2,
        out_hidden_size=hidden,
        num_position_embeddings=2304,
        deepstack_visual_indexes=[1, 2, 3],
    )
    config = Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20260310)
        Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
    images = Qwen2VLImageProcessor(
        size={"shortest_edge": 65_536, "longest_edge": 16_777_216},
        patch_size=16,
        merge_size=2,
        temporal_patch_size=2,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    given = AutoProcessor.from_pretrained(folder)
    Qwen3VLProcessor(
        images, words, given.video_processor, chat_template=tokenizer.TEMPLATE
    ).save_pretrained(folder)
    return check_model(folder)


@pytest.fixture(scope="module", params=QWEN3)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    name = str(request.param)
    config = load(name)
    return name, config, shaped(name, tmp_path_factory.mktemp(name), config.renderer.size)


def asked(folder: Path, picture: Image.Image) -> list[int]:
    """The solver's prompt as the family's own processor makes it, placeholders expanded."""
    processor = AutoProcessor.from_pretrained(folder)
    [message] = solver_messages(load_templates("mmzero"), QUESTION, "data:x")
    shown = [{"type": "image", "image": picture}, message["content"][1]]
    text = processor.apply_chat_template(
        [{"role": "user", "content": shown}], add_generation_prompt=True, tokenize=False
    )
    made = processor(text=[text], images=[picture], return_tensors="pt")
    return [int(token) for token in made["input_ids"][0]]


def window(folder: Path, policy: learner_model.PolicyModel, size: int) -> tuple[Window, Album]:
    album = Album()
    picture = tiny_model.picture(3, (size, size))
    prompt = asked(folder, picture)
    assert prompt.count(policy.spec.image_token_id) == size * size // 32**2
    answers = [[20, 21, 22], [23], [24, 25], [30, 31]]
    return Window("solver", (group("g", prompt, answers, images=(album.add(picture),)),)), album


def adapters(config: Config, folder: Path, **changes: Any) -> learner_model.PolicyModel:
    learner = config.learner
    settings = {"rank": learner.lora_rank, "alpha": learner.lora_alpha, "seed": 1, **changes}
    return learner_model.load(folder, **settings)


def test_the_learner_reads_a_picture_of_the_presets_size_as_the_family_does(case: Any) -> None:
    """Log-probabilities of the learner's own forward pass against transformers' whole model."""
    _, config, folder = case
    policy = adapters(config, folder)
    seen, album = window(folder, policy, config.renderer.size)
    batch = build(seen, album.__getitem__, policy.spec, config.learner.micro_batch_tokens)
    views = policy.look(batch)
    assert views is not None and len(views.levels) == 4
    with torch.no_grad():
        mine = [policy.logprobs(micro, views) for micro in batch.micro_batches]
    theirs = independently(Qwen3VLForConditionalGeneration.from_pretrained(folder), batch)
    for ours, reference in zip(mine, theirs, strict=True):
        torch.testing.assert_close(ours, reference, rtol=0, atol=2e-5)


def test_every_role_takes_a_step_with_the_presets_own_settings(case: Any) -> None:
    _, config, folder = case
    policy = adapters(config, folder)
    seen, album = window(folder, policy, config.renderer.size)
    for role in ROLES:
        assert len(policy.parameters(role)) == 2 * 7 * 4  # A and B of seven layers, in four blocks
    before = policy.adapter("solver")
    result = Trainer(policy, "solver", config.learner).train(seen, album.__getitem__)
    assert all(math.isfinite(value) for value in result.metrics.values())
    after = policy.adapter("solver")
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_adapters_are_float32_over_a_base_of_half_the_precision(case: Any) -> None:
    _, config, folder = case
    policy = adapters(config, folder, dtype=config.learner.dtype)
    assert {p.dtype for p in policy.parameters("coder").values()} == {torch.float32}
    seen, album = window(folder, policy, 256)
    batch = build(seen, album.__getitem__, policy.spec, 4096)
    found = policy.logprobs(batch.micro_batches[0], policy.look(batch))
    assert found.dtype == torch.float32 and bool(torch.isfinite(found).all())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_a_learner_on_one_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(LearnerError, match=r"no CUDA device.*learner\.device=cpu"):
        learner_model.load(tmp_path, rank=1, alpha=1, seed=1, device="cuda")


# --- the figures ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_papers_figures(name: str) -> None:
    config = load(name)
    proposer, coder, solver, learner = config.proposer, config.coder, config.solver, config.learner
    assert config.templates == "mmzero"
    assert (proposer.samples, coder.samples, solver.hard_samples, solver.easy_samples) == (
        *(8, 8, 8),
        5,
    )
    temperatures = (proposer.sampling, coder.sampling, solver.sampling)
    assert [s.temperature for s in temperatures] == [1.0, 0.7, 1.0]
    assert {s.max_tokens for s in temperatures} == {4096} and {s.top_p for s in temperatures} == {1}
    assert (learner.proposer.groups, learner.coder.groups, learner.solver.groups) == (18, 64, 128)
    assert (learner.kl_coefficient, learner.weight_decay, learner.max_grad_norm) == (0.01, 0.01, 1)
    assert config.filters.coder_render_rate == (0.25, 0.75)
    assert config.filters.solver_hard_consistency == (0.25, 0.75)
    assert config.filters.solver_easy_consistency == 0.5
    assert config.renderer.wall_seconds == 30.0
    assert 262_144 <= config.renderer.size**2 <= 4_194_304
    rewards = leaves(msgspec.to_builtins({"p": proposer, "c": coder, "s": solver}))
    defaults = {"p": Config().proposer, "c": Config().coder, "s": Config().solver}
    for key, value in leaves(msgspec.to_builtins(defaults)).items():
        assert rewards[key] == value or "sampl" in key, key


@pytest.mark.parametrize("name", PRESETS)
def test_what_a_preset_asks_of_engine_and_learner_fits_together(name: str) -> None:
    config = load(name)
    assert config.engine.max_model_len >= 8192 + config.solver.sampling.max_tokens
    assert config.engine.max_lora_rank >= config.learner.lora_rank
    assert config.engine.max_loras >= 2 * len(ROLES)
    assert config.engine.dtype == config.learner.dtype
    assert config.log.lease_seconds >= config.engine.request_seconds
    assert isinstance(config.learner.solver, RoleLearning) and config.learner.solver.lr == 1e-5


@pytest.mark.parametrize("name", PRESETS)
def test_the_papers_own_form_is_a_few_overrides_away(name: str) -> None:
    rates = [f"learner.{role}.lr=1e-6" for role in ROLES]
    config = load(name, ["learner.weights=full", "learner.dtype=float32", *rates])
    assert config.learner.weights == "full" and not config.learner.freeze_vision
    assert {getattr(config.learner, role).lr for role in ROLES} == {1e-6}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_every_key_that_the_default_preset_says(name: str) -> None:
    """But for those that were added since with a default that is off there too."""
    folder = resources.files("mmzero_async.presets")
    said, known = (
        leaves(tomllib.loads(folder.joinpath(f"{preset}.toml").read_text()))
        for preset in (name, "seedling")
    )
    defaults = leaves(msgspec.to_builtins(Config()))
    for key in known.keys() - said.keys():
        value = defaults[key]
        assert (list(value) if isinstance(value, tuple) else value) == known[key], key


@pytest.mark.parametrize("name", QWEN3)
def test_members_of_the_family_differ_in_their_model_and_memory_alone(name: str) -> None:
    one, other = (leaves(msgspec.to_builtins(load(preset))) for preset in (name, QWEN3[0]))
    differing = {key for key in one if one[key] != other[key]}
    assert differing <= {
        "run.base_model",
        "engine.gpu_memory_utilization",
        "learner.micro_batch_tokens",
    }


@pytest.mark.parametrize("name", ["mimo-vl-7b", "smolvlm"])
def test_other_families_differ_from_qwen3_vl_in_their_picture_too(name: str) -> None:
    one, other = (leaves(msgspec.to_builtins(load(preset))) for preset in (name, "qwen3-vl-8b"))
    differing = {key for key in one if one[key] != other[key]}
    assert differing <= {
        "run.base_model",
        "renderer.size",
        "engine.gpu_memory_utilization",
        "learner.micro_batch_tokens",
    }
