"""The losses' options: TRL's names, no option ignored in silence, old configurations still read."""

import dataclasses
import itertools
import re
import shlex
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from mmzero_async.config import Config, ConfigError, LearnerConfig, from_json, load
from mmzero_async.learner.losses import Recipe, TruncatedImportance, loss_from
from mmzero_async.loss_options import (
    AGAINST_PROXIMAL,
    LossName,
    LossOptions,
    contradiction,
    read_by,
)

LOSSES: tuple[LossName, ...] = get_args(LossName)
OTHER = {  # for each option a value that is not its default, and no contradiction
    "proximal": "behaviour",
    "importance_sampling_level": "sequence",
    "epsilon": 0.1,
    "epsilon_high": 3.0,
    "delta": 9.0,
    "geometric_mask": (0.9, 1.1),
    "veto": 1e-4,
    "vllm_importance_sampling_correction": False,
    "vllm_importance_sampling_mode": "token_mask",
    "vllm_importance_sampling_clip_min": 0.5,
    "use_bias_correction_kl": False,
    "max_completion_length": 77,
}


def other(name: str) -> object:
    return OTHER[name] if name in OTHER else getattr(LossOptions(), name) + 1.0


def learner(loss: LossName, **options: object) -> LearnerConfig:
    return LearnerConfig(loss=loss, loss_options=LossOptions(**options))


# --- the default ----------------------------------------------------------------------------------


def test_the_default_is_truncated_importance_sampling_with_its_two_constants() -> None:
    assert loss_from(LearnerConfig()) == TruncatedImportance(2.0, 0.0)
    assert loss_from(load().learner) == TruncatedImportance(2.0, 0.0)
    assert loss_from(LearnerConfig(is_cap=3.0, kl_coefficient=0.1)) == TruncatedImportance(3.0, 0.1)


def test_a_configuration_stored_before_there_was_a_choice_is_read_with_the_defaults() -> None:
    stored = msgspec.json.decode(load(overrides=["learner.is_cap=3"]).to_json())
    for key in ("loss", "loss_options"):
        del stored["learner"][key]
    read = from_json(msgspec.json.encode(stored).decode())
    assert read == load(overrides=["learner.is_cap=3"])
    assert loss_from(read.learner) == TruncatedImportance(3.0)


# --- TRL's names ----------------------------------------------------------------------------------


def test_options_that_trl_has_bear_its_name_and_default() -> None:
    from trl import GRPOConfig

    known = {f.name: f.default for f in dataclasses.fields(GRPOConfig)}
    ours = {f: getattr(LossOptions(), f) for f in LossOptions.__struct_fields__}
    shared = known.keys() & ours.keys()
    assert ours.keys() - shared == {
        *("proximal", "aipo_rho", "dppo_threshold", "dppo_log_ratio_penalty", "m2_threshold"),
        *("geometric_mask", "veto"),
    }
    for name in shared - {"max_completion_length"}:  # ours: what the sampling says
        assert ours[name] == (known[name] or 0), name


def test_all_loss_types_of_trl_are_there() -> None:
    from trl import GRPOConfig

    (field,) = (f for f in dataclasses.fields(GRPOConfig) if f.name == "loss_type")
    for name in ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"):
        assert f"'{name}'" in field.metadata["help"] and name in LOSSES
    assert field.default == "dapo"


# --- nothing is ignored ---------------------------------------------------------------------------

VARIANTS = [
    {"proximal": proximal, "vllm_importance_sampling_correction": weighed, "beta": beta}
    for proximal, weighed, beta in itertools.product(
        ("current", "behaviour", "loglinear"), (True, False), (0.0, 0.1)
    )
] + [
    {
        "proximal": proximal,
        "vllm_importance_sampling_mode": mode,
        "vllm_importance_sampling_correction": True,
        "beta": beta,
    }
    for proximal, mode, beta in itertools.product(
        ("current", "loglinear"), ("token_truncate", "token_mask"), (0.0, 0.1)
    )
]


@pytest.mark.parametrize("loss", LOSSES)
def test_an_option_changes_the_loss_or_is_refused(loss: LossName) -> None:
    seen = 0
    for variant in VARIANTS:
        base = LossOptions(**variant)
        if contradiction(loss, base, 2.0, 0.0) is not None:
            continue
        seen += 1
        plain = loss_from(learner(loss, **variant))
        for name in set(LossOptions.__struct_fields__) - variant.keys():
            changed = learner(loss, **{**variant, name: other(name)})
            if name in read_by(loss, base):
                assert name == "max_completion_length" or loss_from(changed) != plain, name
            else:
                with pytest.raises(ConfigError, match=f"{name} = .* is not read by"):
                    loss_from(changed)
    assert seen >= (18 if loss in AGAINST_PROXIMAL else 10 if loss == "vespo" else 1)


def test_the_options_of_the_default_are_refused_beside_another_loss() -> None:
    for changes in ({"is_cap": 3.0}, {"kl_coefficient": 0.1}):
        with pytest.raises(ConfigError, match=r"belong to learner\.loss = \"tis\".*beta"):
            loss_from(LearnerConfig(loss="dapo", **changes))


CONTRADICTIONS = {
    "epsilon_high = 0.3 is not read": ["loss=dapo", "loss_options.epsilon_high=0.3"],
    'epsilon = 0.3 is not read by learner.loss = "tis"': ["loss_options.epsilon=0.3"],
    "proximal = 'loglinear' is not read by": ["loss=vespo", "loss_options.proximal=loglinear"],
    "token_truncate or token_mask": [
        "loss=vespo",
        "loss_options.vllm_importance_sampling_mode=sequence_truncate",
    ],
    "mode = 'token_mask' is not read by learner.loss = \"vespo\" with proximal": [
        "loss=vespo",
        "loss_options.vllm_importance_sampling_mode=token_mask",
        "loss_options.proximal=behaviour",
    ],
    "correction = False is not read by": [
        "loss=vespo",
        "loss_options.vllm_importance_sampling_correction=false",
    ],
    "epsilon must be below 1": [
        "loss=grpo",
        "loss_options.proximal=behaviour",
        "loss_options.epsilon=1",
    ],
    "delta must be above 1 + epsilon_high = 1.28": [
        "loss=dapo",
        "loss_options.proximal=behaviour",
        "loss_options.epsilon_high=0.28",
        "loss_options.delta=1.2",
    ],
    "cap on the ratio itself": [
        "loss=cispo",
        "loss_options.proximal=behaviour",
        "loss_options.epsilon_high=0.2",
    ],
    "clip_min must be below": ["loss=dapo", "loss_options.vllm_importance_sampling_clip_min=3.0"],
    "a *_truncate mode needs": [
        "loss=dapo",
        "loss_options.vllm_importance_sampling_mode=token_truncate",
        "loss_options.vllm_importance_sampling_clip_max=0",
    ],
    "geometric_mask must be": ["loss=dapo", "loss_options.geometric_mask=[1.01, 0.99]"],
    "veto must be below 1": ["loss=dapo", "loss_options.veto=1.5"],
    "is the current one unless learner.num_iterations": [
        "loss=dapo",
        "loss_options.proximal=forward",
    ],
    "$.learner.num_iterations": ["num_iterations=0"],
    "$.learner.loss": ["loss=ppo"],
    "$.learner.loss_options.epsilon": ["loss=dapo", "loss_options.epsilon=0"],
    "unknown field `epsilon_low`": ["loss=dapo", "loss_options.epsilon_low=0.2"],
}


@pytest.mark.parametrize("words", CONTRADICTIONS)
def test_contradictions_are_refused_when_the_configuration_is_read(words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(overrides=[f"learner.{override}" for override in CONTRADICTIONS[words]])
    assert "configuration seedling" in str(refused.value) and words in str(refused.value)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_can_be_chosen_by_its_name_alone(loss: LossName) -> None:
    chosen = load(overrides=[f"learner.loss={loss}"])
    assert isinstance(loss_from(chosen.learner), Recipe | TruncatedImportance)
    assert from_json(chosen.to_json()) == chosen != Config()


# --- the document ---------------------------------------------------------------------------------

DOCUMENT = (Path(__file__).parent.parent / "docs" / "LOSSES.md").read_text()


def test_the_document_names_every_loss_and_option() -> None:
    for name in (*LOSSES, *LossOptions.__struct_fields__):
        assert f"`{name}" in DOCUMENT or f'"{name}"' in DOCUMENT, name


def test_the_document_s_examples_are_configurations() -> None:
    commands = re.findall(r"^mmzero run ((?:.*\\\n)*.*)$", DOCUMENT, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        words = shlex.split(command.replace("\\\n", " "), comments=True)
        assert isinstance(loss_from(load(overrides=words).learner), Recipe)
