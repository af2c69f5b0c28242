"""Every loss type and importance-sampling mode that TRL has: its own `_compute_loss` agrees.

TRL's model is replaced by a table of log-probabilities, so a case costs milliseconds and the
gradient is compared token by token. test_losses_trl.py compares through a real model.
"""

import pytest
import torch
from test_losses_trl import trl_trainer
from torch import Tensor

from mmzero_async.config import LearnerConfig
from mmzero_async.learner.losses import Tokens, Whole, loss_from
from mmzero_async.loss_options import LossOptions, upper_epsilon

LONGEST = 9
MU = {"proximal": "behaviour"}
GSPO = {"importance_sampling_level": "sequence", "epsilon": 0.03, "epsilon_high": 0.04}
BY_SEQUENCE = {**MU, **GSPO}
WIDE = {"vllm_importance_sampling_clip_max": 1.5, "vllm_importance_sampling_clip_min": 0.6}

CASES = [
    *((name, MU) for name in ("grpo", "bnpo", "dapo", "dr_grpo", "cispo", "sapo", "luspo")),
    *((name, BY_SEQUENCE) for name in ("grpo", "dapo", "dr_grpo", "luspo")),
    ("dapo", {**MU, "epsilon": 0.1, "epsilon_high": 0.28, "delta": 1.6}),
    ("cispo", {**MU, "epsilon_high": 1.2, "importance_sampling_level": "sequence"}),
    ("sapo", {**MU, "sapo_temperature_neg": 1.5, "importance_sampling_level": "sequence"}),
    ("vespo", {}),
    ("vespo", {"vespo_k_neg": 1.0, "vespo_lambda_pos": 1.0}),
    *(
        (name, {"vllm_importance_sampling_mode": mode, **bounds})
        for name in ("dapo", "grpo")
        for mode in ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")
        for bounds in ({}, WIDE)
    ),
    ("cispo", {"vllm_importance_sampling_mode": "token_mask"}),
    ("dapo", {"vllm_importance_sampling_correction": False}),
    ("dapo", {"proximal": "loglinear", "vllm_importance_sampling_mode": "token_truncate"}),
    ("grpo", {"proximal": "loglinear", "delta": 1.05, **GSPO}),
    ("dapo", {"proximal": "forward", "vllm_importance_sampling_mode": "token_truncate"}),
    ("grpo", {"proximal": "forward", "epsilon": 0.1, "beta": 0.1}),
    ("cispo", {"proximal": "forward", "epsilon_high": 1.1}),
    ("dapo", {**MU, "off_policy_mask_threshold": 0.05}),
    ("dapo", {"off_policy_mask_threshold": 0.05}),
    ("dapo", {**MU, "beta": 0.1}),
    ("grpo", {"beta": 0.1}),
    ("dapo", {"beta": 0.1, "use_bias_correction_kl": False}),
    ("grpo", {**BY_SEQUENCE, "beta": 0.1}),
]


@pytest.fixture(scope="module")
def trainer(tiny_folder, tmp_path_factory):
    from peft import LoraConfig

    lora = LoraConfig(r=1, target_modules=["q_proj"])
    return trl_trainer(tiny_folder, tmp_path_factory.mktemp("trl"), lora, 0.0)


def drawn(dtype: torch.dtype) -> Tokens:
    """Eight samples of 1 to 8 tokens; ratios on both sides of every bound."""
    source = torch.Generator().manual_seed(5)

    def noise(scale: float) -> Tensor:
        return scale * torch.randn(8, 8, generator=source, dtype=torch.float64)

    old = -noise(1.0).abs() - 0.1
    return Tokens(
        logprobs=(old + noise(0.3)).to(dtype).requires_grad_(True),
        behaviour=old.to(dtype),
        mask=torch.arange(8)[None] < torch.arange(1, 9)[:, None],
        advantages=torch.tensor([1.5, -1, 0.5, -2, 1, -0.5, 0.75, -1.25], dtype=dtype),
        reference=(old + noise(0.5)).to(dtype),
        staleness=torch.randint(0, 5, (8, 8), generator=source),
        proximal=(old + noise(0.2)).to(dtype),
    )


def theirs(trainer, tokens: Tokens, name: str, options: LossOptions, monkeypatch) -> Tensor:
    """TRL's loss under the same options, by its own names for them."""
    against_mu = options.proximal == "behaviour" or name == "vespo"
    weighed = not against_mu and options.vllm_importance_sampling_correction
    for attribute, value in {
        "loss_type": name,
        "importance_sampling_level": options.importance_sampling_level,
        "epsilon_low": options.epsilon,
        "epsilon_high": upper_epsilon(name, options),
        "beta": options.beta,
        "off_policy_mask_threshold": options.off_policy_mask_threshold or None,
        "max_completion_length": LONGEST,
        "use_vllm": weighed,
        "vllm_importance_sampling_correction": weighed,
    }.items():
        assert hasattr(trainer, attribute)
        monkeypatch.setattr(trainer, attribute, value)
    arguments = ["sapo_temperature_pos", "sapo_temperature_neg", "use_bias_correction_kl"]
    arguments += ["vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg", "vespo_lambda_neg"]
    for argument in arguments:
        monkeypatch.setattr(trainer.args, argument, getattr(options, argument))
    monkeypatch.setattr(trainer.args, "delta", options.delta or None)

    old = tokens.logprobs.detach()
    if against_mu:
        old = tokens.behaviour
    elif options.proximal == "forward":  # num_iterations above 1: from a pass before the first
        old = tokens.proximal
    elif options.proximal == "loglinear":
        age = tokens.staleness.clamp(min=1).to(old.dtype)
        between = tokens.behaviour / age + old * (age - 1) / age
        old = torch.where(tokens.staleness > 0, between, old)
    mask = tokens.mask.long()
    batch = {
        "prompt_ids": torch.zeros(8, 1, dtype=torch.long),
        "prompt_mask": torch.ones(8, 1, dtype=torch.long),
        "completion_ids": torch.zeros(8, 8, dtype=torch.long),
        "completion_mask": mask,
        "advantages": tokens.advantages,
        "num_items_in_batch": tokens.mask.sum(),
        "old_per_token_logps": old,
        "sampling_per_token_logps": tokens.behaviour,
        "ref_per_token_logps": tokens.reference,
    }
    if weighed:
        batch["importance_sampling_ratio"] = weights(old - tokens.behaviour, mask, options)
    answer = (tokens.logprobs, torch.zeros_like(old), None)
    monkeypatch.setattr(trainer, "_get_per_token_logps_and_entropies", lambda *_, **__: answer)
    return trainer._compute_loss(trainer.model, batch)


def weights(log_ratio: Tensor, mask: Tensor, options: LossOptions) -> Tensor:
    """As TRL makes `importance_sampling_ratio`, where it generates, for its four modes."""
    level, action = options.vllm_importance_sampling_mode.split("_")
    least = options.vllm_importance_sampling_clip_min
    most = options.vllm_importance_sampling_clip_max
    log_ratio = log_ratio * mask
    ratio = (log_ratio if level == "token" else log_ratio.sum(-1, keepdim=True)).exp()
    if action == "truncate":
        return torch.clamp(ratio, least, most)
    return torch.where((ratio >= least) & (ratio <= most), ratio, 0.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("name", "changes"), CASES)
def test_value_and_gradient_are_trl_s(trainer, monkeypatch, name, changes, dtype):
    if name == "dr_grpo":
        changes = {**changes, "max_completion_length": LONGEST}
    options, tokens = LossOptions(**changes), drawn(dtype)
    loss = loss_from(LearnerConfig(loss=name, loss_options=options, num_iterations=2))
    value, sums = loss(tokens, Whole(int(tokens.mask.sum()), 8, LONGEST))
    (ours,) = torch.autograd.grad(value, tokens.logprobs)

    expected = theirs(trainer, tokens, name, options, monkeypatch)
    (gradient,) = torch.autograd.grad(expected, tokens.logprobs)
    tolerance = 1e-9 if dtype is torch.float64 and name != "sapo" else 1e-6  # TRL's sapo is float32
    assert value.item() == pytest.approx(expected.item(), rel=tolerance, abs=tolerance)
    torch.testing.assert_close(ours, gradient, rtol=tolerance, atol=tolerance)
    assert abs(value.item()) > 1e-3 and ours.abs().max() > 1e-3
    bounded = {"grpo", "dapo", "bnpo", "dr_grpo", "luspo"}
    if changes.get("proximal") and name in bounded:
        assert 0 < sums.clipped < sums.tokens, "the case must try both sides of the clip"
