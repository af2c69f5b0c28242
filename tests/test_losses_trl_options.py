"""TRL's loss types times its importance-sampling modes times its levels, and options beside them:
its own `_compute_loss` agrees, on weights that its own scoring of a generation has made.

TRL's model is replaced by a table of log-probabilities, so a case costs milliseconds and the
gradient is compared token by token. test_losses_trl.py compares through a real model.
"""

from itertools import product
from typing import get_args, get_type_hints

import pytest
import torch
from test_losses_trl import trl_trainer
from torch import Tensor

from mmzero_async.config import ConfigError, LearnerConfig
from mmzero_async.learner.losses import Tokens, Whole, loss_from
from mmzero_async.loss_options import CLIPPED, LossOptions, against_proximal, upper_epsilon

LONGEST = 9
MU = {"proximal": "behaviour"}
GSPO = {"importance_sampling_level": "sequence", "epsilon": 0.03, "epsilon_high": 0.04}
BY_SEQUENCE = {**MU, **GSPO}
WIDE = {"vllm_importance_sampling_clip_max": 1.5, "vllm_importance_sampling_clip_min": 0.6}
NARROW = {"vllm_importance_sampling_clip_max": 1.3, "vllm_importance_sampling_clip_min": 0.75}

LOSS_TYPES = ("grpo", "bnpo", "dapo", "dr_grpo", "cispo", "sapo", "luspo", "vespo")
MODES = get_args(get_type_hints(LossOptions)["vllm_importance_sampling_mode"])
LEVELS = get_args(get_type_hints(LossOptions)["importance_sampling_level"])
REFUSED = [("vespo", "sequence_truncate"), ("vespo", "sequence_mask")]  # by TRL


def crossed(name: str, mode: str, level: str) -> tuple[str, dict]:
    """Both ratios, pi / pi_prox and pi_prox / mu, lie on both sides of their bounds."""
    changes = {"proximal": "forward", "vllm_importance_sampling_mode": mode, **NARROW}
    if level == "sequence":
        changes |= GSPO if name in CLIPPED else {"importance_sampling_level": level}
    if name == "cispo":
        changes["epsilon_high"] = 1.02
    if name == "vespo":  # the level is that of the KL term's ratio alone
        changes["beta"] = 0.1
    return name, changes


PRODUCT = [
    crossed(name, mode, level)
    for name, mode, level in product(LOSS_TYPES, MODES, LEVELS)
    if (name, mode) not in REFUSED
]
BESIDE = [
    *((name, MU) for name in ("grpo", "bnpo", "dapo", "dr_grpo", "cispo", "sapo", "luspo")),
    *((name, BY_SEQUENCE) for name in ("grpo", "dapo", "dr_grpo", "luspo")),
    ("dapo", {**MU, "epsilon": 0.1, "epsilon_high": 0.28, "delta": 1.6}),
    ("cispo", {**MU, "epsilon_high": 1.2, "importance_sampling_level": "sequence"}),
    ("sapo", {**MU, "sapo_temperature_neg": 1.5, "importance_sampling_level": "sequence"}),
    ("vespo", {}),
    ("vespo", {"vespo_k_neg": 1.0, "vespo_lambda_pos": 1.0}),
    ("vespo", {"vespo_lambda_pos": 0.0, "vespo_lambda_neg": 0.0}),
    ("vespo", {"vllm_importance_sampling_mode": "token_truncate", **WIDE}),
    ("vespo", {"vllm_importance_sampling_mode": "token_mask", "proximal": "loglinear", **WIDE}),
    *(
        (name, {"vllm_importance_sampling_mode": mode, **bounds})
        for name in ("dapo", "grpo")
        for mode in MODES
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
    """Eight samples of 1 to 8 tokens; ratios on both sides of every bound.

    What the engine said is a float32 in either type, as TRL keeps it.
    """
    source = torch.Generator().manual_seed(4)

    def noise(scale: float) -> Tensor:
        return scale * torch.randn(8, 8, generator=source, dtype=torch.float64)

    old = (-noise(1.0).abs() - 0.1).float().double()
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
    against_mu = options.proximal == "behaviour" or not against_proximal(name, options)
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
        "vllm_importance_sampling_mode": options.vllm_importance_sampling_mode,
        "vllm_importance_sampling_clip_max": options.vllm_importance_sampling_clip_max or None,
        "vllm_importance_sampling_clip_min": options.vllm_importance_sampling_clip_min or None,
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
    batch = scored(trainer, tokens, old, monkeypatch) if weighed else as_it_is(tokens, old)
    assert torch.equal(batch["old_per_token_logps"], old)
    assert ("importance_sampling_ratio" in batch) == weighed
    batch |= {"advantages": tokens.advantages, "ref_per_token_logps": tokens.reference}
    answer = (tokens.logprobs, torch.zeros_like(old), None)
    monkeypatch.setattr(trainer, "_get_per_token_logps_and_entropies", lambda *_, **__: answer)
    return trainer._compute_loss(trainer.model, batch)


def scored(trainer, tokens: Tokens, old: Tensor, monkeypatch) -> dict:
    """What TRL makes of these samples when an engine has drawn them: its own weights too."""
    lengths = tokens.mask.sum(-1).tolist()
    said = [row[:length] for row, length in zip(tokens.behaviour.tolist(), lengths, strict=True)]
    completions = [[7] * length for length in lengths]
    told = ([[5, 6]] * 8, completions, None, ["x"] * 8, said, {}, None, None)
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "beta", 0.0)  # the base's log-probabilities are told afterwards
        patched.setattr(trainer, "_generate", lambda _: told)
        patched.setattr(trainer, "_calculate_rewards", lambda *_: torch.arange(8.0)[:, None])
        answer = (old, None, None)
        patched.setattr(trainer, "_get_per_token_logps_and_entropies", lambda *_, **__: answer)
        trainer.model.train()
        return trainer._generate_and_score_completions([{"prompt": "a"}] * 8)


def as_it_is(tokens: Tokens, old: Tensor) -> dict:
    return {
        "prompt_ids": torch.zeros(8, 1, dtype=torch.long),
        "prompt_mask": torch.ones(8, 1, dtype=torch.long),
        "completion_ids": torch.zeros(8, 8, dtype=torch.long),
        "completion_mask": tokens.mask.long(),
        "num_items_in_batch": tokens.mask.sum(),
        "old_per_token_logps": old,
        "sampling_per_token_logps": tokens.behaviour,
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("name", "changes"), PRODUCT + BESIDE)
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
    must = {"clip_low", "clip_high"} if changes.get("proximal") and name in CLIPPED else set()
    if options.proximal == "forward" and (least := options.vllm_importance_sampling_clip_min):
        assert least == NARROW["vllm_importance_sampling_clip_min"]
        must.add(options.vllm_importance_sampling_mode)
    if options.delta:
        must.add("delta")
    for cause in must:
        assert 0 < sums.causes[cause] < sums.tokens, f"the case must try both sides of {cause}"


def test_the_product_is_whole() -> None:
    """Eight loss types, four modes, two levels, but for what TRL refuses."""
    assert (len(LOSS_TYPES), len(MODES), len(LEVELS)) == (8, 4, 2)
    assert len(PRODUCT) == 8 * 4 * 2 - 4


@pytest.mark.parametrize(("name", "mode"), REFUSED)
def test_a_mode_that_trl_refuses_is_refused_or_the_default_that_bounds_nothing(
    tiny_folder, tmp_path, name, mode
):
    with pytest.raises(ValueError, match="VESPO loss requires `vllm_importance_sampling_mode`"):
        trl_trainer(
            *(tiny_folder, tmp_path, None, 0.0),
            use_vllm=True,
            loss_type=name,
            vllm_importance_sampling_mode=mode,
        )
    options = LossOptions(vllm_importance_sampling_mode=mode)
    if options != LossOptions():
        with pytest.raises(ConfigError, match="token_truncate or token_mask"):
            loss_from(LearnerConfig(loss=name, loss_options=options))
