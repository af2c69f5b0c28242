"""Full weights: begins as the base, all of it is trained, saved as a model that others load."""

import json

import pytest
import tiny_model
import torch
from tiny_training import ALBUM, WINDOWS, files, same, train, trainer
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    Qwen3VLForConditionalGeneration,
)

from mmzero_async import config as configuration
from mmzero_async.config import ConfigError
from mmzero_async.learner.batch import Batch, build
from mmzero_async.learner.errors import CheckpointError
from mmzero_async.learner.full import FullModel
from mmzero_async.learner.rerun import policy_for
from mmzero_async.learner.window import Window
from mmzero_async.schemas.events import Role

pytestmark = pytest.mark.usefixtures("deterministic")


@pytest.fixture
def full(tiny_folder) -> FullModel:
    return FullModel(tiny_folder)


def batch_of(model, window: Window, budget: int = 4096) -> Batch:
    return build(window, ALBUM.__getitem__, model.spec, budget)


def spoken(model, window: Window = WINDOWS[0], role: Role = "solver") -> Tensor:
    batch = batch_of(model, window)
    model.activate(role)
    with torch.no_grad():
        return torch.cat(
            [model.logprobs(m, model.look(batch)).flatten() for m in batch.micro_batches]
        )


def gradients(model: FullModel, budget: int, role: Role = "solver") -> dict[str, Tensor]:
    """Of the sum of all sampled tokens' log-probabilities."""
    batch = batch_of(model, WINDOWS[0], budget)
    model.activate(role)
    views = model.look(batch)
    for micro in batch.micro_batches:
        model.logprobs(micro, views).sum().backward()
    found = {n: p.grad for n, p in model.parameters(role).items() if p.grad is not None}
    for parameter in model.parameters(role).values():
        parameter.grad = None
    return found


# --- what it says, and what gradients it has ------------------------------------------------------


def test_every_role_begins_as_the_base(tiny_folder, full):
    adapters = tiny_model.policy(tiny_folder)
    for role in ("proposer", "coder", "solver"):
        torch.testing.assert_close(spoken(full, role=role), spoken(adapters, role=role))


def test_gradients_are_those_of_transformers_own_forward_pass(tiny_folder, full):
    """Vision tower included, however a window is cut into forward passes."""
    found = [gradients(full, budget) for budget in (4096, 40)]
    net = Qwen3VLForConditionalGeneration.from_pretrained(tiny_folder, dtype=torch.float32)
    batch = batch_of(full, WINDOWS[0])
    (micro,) = batch.micro_batches
    pictures = iter(micro.pictures.tolist())
    for row in range(len(micro.input_ids)):
        prompt, length = int(micro.prompt_lengths[row]), int(micro.mask[row].sum())
        seen = {}
        if bool(micro.token_types[row].any()):
            picture = next(pictures)
            seen = {
                **batch.pictures.part(picture, picture + 1).tensors,
                "mm_token_type_ids": micro.token_types[row : row + 1, : prompt + length],
            }
        logits = net(input_ids=micro.input_ids[row : row + 1, : prompt + length], **seen).logits[0]
        scores = (logits[prompt - 1 : -1] / micro.temperatures[row]).log_softmax(-1)
        scores[torch.arange(length), micro.completion_ids[row, :length]].sum().backward()
    expected = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
    assert any("visual.blocks" in name for name in expected)
    for one in found:
        assert one.keys() == expected.keys()
        for name, gradient in one.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=2e-4, msg=name)


@pytest.mark.parametrize("freeze", [False, True])
def test_a_step_moves_all_weights_of_its_role_and_no_others(tiny_folder, freeze):
    model = FullModel(tiny_folder, freeze_vision=freeze)
    before = {role: model.adapter(role) for role in ("coder", "solver")}
    train(trainer(model), WINDOWS[0])
    assert same(model.adapter("coder"), before["coder"])
    still = {n for n, t in model.adapter("solver").items() if torch.equal(t, before["solver"][n])}
    vision = {name for name in before["solver"] if ".visual." in name}
    assert vision and still >= vision if freeze else not (still & vision)
    assert not {name for name in still if ".layers." in name}


def test_the_reference_stays_the_base_while_the_policy_moves(full, tiny_folder):
    base = spoken(tiny_model.policy(tiny_folder))
    it = trainer(full, kl_coefficient=0.1)
    assert train(it, WINDOWS[0]).metrics["kl"] == pytest.approx(0.0, abs=1e-9)
    assert train(it, WINDOWS[0]).metrics["kl"] > 0
    with full.base():
        batch = batch_of(full, WINDOWS[0])
        found = [full.logprobs(m, full.look(batch)).flatten() for m in batch.micro_batches]
    torch.testing.assert_close(torch.cat(found), base)
    assert (spoken(full) - base).abs().max() > 1e-3


def test_checkpointed_layers_give_the_same_gradients(tiny_folder, full):
    again = gradients(FullModel(tiny_folder, gradient_checkpointing=True), 4096)
    assert same(again, gradients(full, 4096))


# --- versions on disk -----------------------------------------------------------------------------


def test_save_restore_continue_equals_training_without_a_break(tiny_folder, tmp_path):
    straight = trainer(FullModel(tiny_folder))
    train(straight, WINDOWS[0])
    saved = straight.save(tmp_path / "a", 1)
    resumed = trainer(FullModel(tiny_folder))
    train(resumed, WINDOWS[2])  # weights and moments that must not survive
    resumed.restore(tmp_path / "a", saved)
    ends = []
    for name, it in (("a", straight), ("b", resumed)):
        metrics = train(it, WINDOWS[1]).metrics
        ends.append((metrics, files(tmp_path / name, it.save(tmp_path / name, 2))))
    assert ends[0] == ends[1]


def test_a_version_is_a_model_folder_for_transformers(full, tiny_folder, tmp_path):
    it = trainer(full)
    train(it, WINDOWS[0])
    folder = tmp_path / it.save(tmp_path, 1).checkpoint
    net = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto")
    assert net.dtype == torch.float32
    assert same({n: p.detach() for n, p in net.named_parameters()}, full.adapter("solver"))
    mine, bases = (AutoProcessor.from_pretrained(f) for f in (folder, tiny_folder))
    assert mine.tokenizer.get_vocab() == bases.tokenizer.get_vocab()
    assert mine.image_processor.to_dict() == bases.image_processor.to_dict()
    # Engines load every *.safetensors there is: the optimiser's state must be none of them.
    assert [p.name for p in folder.glob("*.safetensors")] == ["model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["Qwen3VLForConditionalGeneration"]


def test_another_kind_of_version_is_refused_and_changes_nothing(full, tiny_folder, tmp_path):
    adapter = trainer(tiny_model.policy(tiny_folder))
    before, it = full.adapter("solver"), trainer(full)
    with pytest.raises(CheckpointError, match="another base, or with another"):
        it.restore(tmp_path, adapter.save(tmp_path, 1))
    with pytest.raises(CheckpointError, match="adapter has other matrices"):
        adapter.restore(tmp_path, it.save(tmp_path, 2))
    assert same(full.adapter("solver"), before)


# --- settings -------------------------------------------------------------------------------------


def test_the_setting_chooses_the_model(tiny_folder):
    chosen = configuration.load("seedling", ["learner.weights=full", "learner.freeze_vision=true"])
    model = policy_for(tiny_folder, chosen)
    assert isinstance(model, FullModel)
    assert not any("visual" in name for name in model.parameters("coder"))
    assert not isinstance(policy_for(tiny_folder, configuration.load()), FullModel)


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (["learner.weights=full", "learner.dtype=bfloat16"], "bfloat16 would lose"),
        (["learner.weights=full", "engine.url=http://x:1"], "an engine for each role"),
        (["learner.freeze_vision=true"], "says nothing"),
        (["learner.weights=half"], "half"),
    ],
)
def test_settings_that_cannot_be_are_refused(overrides, why):
    with pytest.raises(ConfigError, match=why):
        configuration.load("seedling", overrides)
