"""Advantages and the mask of truncated samples, against the numbers of TRL's own trainers.

TRL is given what was generated and what it earned; the rest of its scoring is its own. How a cut
sample leaves the loss is compared through its `_compute_loss` and its gradient.
"""

from dataclasses import replace

import pytest
import torch
from test_losses_trl import trl_trainer
from test_losses_trl_options import MU, drawn, theirs

from mmzero_async.config import LearnerConfig
from mmzero_async.learner.losses import Whole, loss_from
from mmzero_async.loss_options import LossOptions
from mmzero_async.roles.advantages import window_advantages

GROUPS = [[1.0, 0.1, 0.1, 1.0], [0.5, 0.5, 0.5, 0.5], [-1.0, 0.25, 2.25, 1.25]]
END = 2


@pytest.fixture(scope="module")
def grpo(tiny_folder, tmp_path_factory):
    from peft import LoraConfig

    lora = LoraConfig(r=1, target_modules=["q_proj"])
    return trl_trainer(tiny_folder, tmp_path_factory.mktemp("grpo"), lora, 0.0)


@pytest.fixture(scope="module")
def rloo(tiny_folder, tmp_path_factory):
    from datasets import Dataset
    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration
    from trl import RLOOConfig, RLOOTrainer

    return RLOOTrainer(
        model=Qwen3VLForConditionalGeneration.from_pretrained(tiny_folder, dtype=torch.float32),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=RLOOConfig(
            output_dir=str(tmp_path_factory.mktemp("rloo")),
            use_cpu=True,
            report_to=[],
            beta=0.0,
            per_device_train_batch_size=4,
            num_generations=4,
            bf16=False,
            gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_dict({"prompt": ["a", "b"]}),
        processing_class=AutoProcessor.from_pretrained(tiny_folder),
    )


def scored(trainer, completions: list[list[int]], monkeypatch) -> dict:
    """What TRL makes of samples that earned GROUPS."""
    rewards = [r for group in GROUPS for r in group]
    count = len(completions)
    words = ["x"] * count
    prompts = [[5, 6]] * count
    told: tuple = (prompts, completions, None, words, None, {}, None, None)
    if type(trainer).__name__ == "RLOOTrainer":
        told = (prompts, completions, words)
    monkeypatch.setattr(trainer, "num_generations", 4)
    monkeypatch.setattr(trainer, "use_vllm", False)  # no engine's log-probabilities are told
    monkeypatch.setattr(trainer, "_generate", lambda _: told)
    monkeypatch.setattr(
        trainer, "_calculate_rewards", lambda *_: torch.tensor(rewards).double()[:, None]
    )
    trainer.model.train()
    return trainer._generate_and_score_completions([{"prompt": "a"}] * count)


WHOLE = [[7, 8, END]] * 12


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_the_group_s_baseline_is_grpo_s(grpo, monkeypatch, scale):
    monkeypatch.setattr(grpo, "scale_rewards", scale)
    expected = scored(grpo, WHOLE, monkeypatch)["advantages"]
    ours = [a for group in window_advantages(GROUPS, scale) for a in group]
    assert ours == pytest.approx(expected.tolist(), rel=1e-6, abs=1e-9)
    assert any(ours)


@pytest.mark.parametrize(("scale", "normalize"), [("none", False), ("batch", True)])
def test_the_baseline_of_the_others_is_rloo_s(rloo, monkeypatch, scale, normalize):
    monkeypatch.setattr(rloo, "normalize_advantages", normalize)
    expected = scored(rloo, WHOLE, monkeypatch)["advantages"]
    ours = [a for group in window_advantages(GROUPS, scale, "leave_one_out") for a in group]
    assert ours == pytest.approx(expected.tolist(), rel=1e-6, abs=1e-9)
    assert any(ours)


def test_a_cut_sample_counts_in_the_baseline_and_not_in_the_mask(grpo, monkeypatch):
    """TRL knows it by its last token, we by the engine's finish reason."""
    monkeypatch.setattr(grpo, "mask_truncated_completions", True)
    monkeypatch.setattr(grpo, "scale_rewards", "group")
    monkeypatch.setattr(grpo, "eos_token_ids", [END])
    cut = {1, 4}
    made = scored(grpo, [[7, 8, 9 if i in cut else END] for i in range(12)], monkeypatch)
    assert {i for i, row in enumerate(made["completion_mask"]) if not row.any()} == cut
    ours = [a for group in window_advantages(GROUPS) for a in group]
    assert ours == pytest.approx(made["advantages"].tolist(), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "luspo", "dapo"])
def test_a_cut_sample_has_no_loss_and_no_gradient_and_the_others_keep_their_share(
    grpo, monkeypatch, name
):
    """Value and gradient are TRL's where it divides by samples. By tokens TRL divides by those left
    in the loss; here a mask never touches the denominator (AReaL), so shares do not grow."""
    changes = {**MU, "max_completion_length": 9} if name == "dr_grpo" else MU
    options, whole = LossOptions(**changes), drawn(torch.float64)
    in_loss = torch.tensor([True, False, True, True, False, True, True, True])
    tokens = replace(whole, mask=whole.mask & in_loss[:, None])
    loss = loss_from(LearnerConfig(loss=name, loss_options=options))
    count = int(whole.mask.sum())
    value, _ = loss(tokens, Whole(count, 8, 9))
    (ours,) = torch.autograd.grad(value, tokens.logprobs)
    expected = theirs(grpo, tokens, name, options, monkeypatch)
    (gradient,) = torch.autograd.grad(expected, tokens.logprobs)
    kept = int(tokens.mask.sum()) / count if name == "dapo" else 1.0
    assert value.item() == pytest.approx(kept * expected.item(), rel=1e-9)
    torch.testing.assert_close(ours, kept * gradient, rtol=1e-9, atol=1e-12)
    assert not ours[~in_loss].any() and ours[in_loss].any()
