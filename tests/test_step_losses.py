"""A step under every loss: micro-batches add up, versions count, what cannot be is refused."""

from dataclasses import replace
from typing import get_args

import msgspec
import pytest
import tiny_model
import torch
from tiny_model import Album, group, sample

from mmzero_async.config import ConfigError, RoleLearning
from mmzero_async.learner.batch import batch_digest, build
from mmzero_async.learner.errors import StepError, WindowError
from mmzero_async.learner.losses import (
    Tokens,
    TruncatedImportance,
    Whole,
    loss_from,
    truncated_importance_loss,
)
from mmzero_async.learner.step import StepResult, Trainer
from mmzero_async.learner.window import GroupBatch, Window
from mmzero_async.loss_options import LossName, LossOptions
from mmzero_async.schemas.events import Sample, Sampling, VersionSpan

ALBUM = Album()
WINDOW = tiny_model.window(ALBUM)
OPTIONS: dict[str, dict[str, object]] = {
    "dr_grpo": {"max_completion_length": 12},
    "cispo": {"proximal": "behaviour"},
    "dapo": {"proximal": "loglinear", "beta": 0.1, "veto": 1e-4},
    "luspo": {"importance_sampling_level": "sequence", "proximal": "behaviour"},
}


def trainer(tiny_folder, loss: LossName, budget: int = 4096, **options: object) -> Trainer:
    config = tiny_model.config(
        loss=loss, loss_options=LossOptions(**options), micro_batch_tokens=budget
    )
    return Trainer(tiny_model.policy(tiny_folder), "solver", config)


def train(it: Trainer, window: Window = WINDOW) -> StepResult:
    return it.train(window, ALBUM.__getitem__)


def of_versions(one: GroupBatch, *spans: VersionSpan) -> GroupBatch:
    """The group with these spans in each of its samples."""
    samples = [msgspec.structs.replace(it, versions=list(spans)) for it in one.generation.samples]
    return tiny_model.changed(one, samples=samples)


@pytest.mark.parametrize("loss", get_args(LossName))
def test_a_step_is_the_same_however_the_window_is_cut(tiny_folder, loss):
    results = []
    for budget in (64, 4096):
        it = trainer(tiny_folder, loss, budget, **OPTIONS.get(loss, {}))
        it.version = 3
        before = it.model.adapter("solver")
        results.append(train(it).metrics)
        after = it.model.adapter("solver")
        assert any(not torch.equal(tensor, before[name]) for name, tensor in after.items())
    assert results[0].keys() == results[1].keys()
    for name, value in results[0].items():
        assert value == pytest.approx(results[1][name], rel=2e-4, abs=1e-6), name
    assert results[0]["token_staleness_mean"] == 3.0


def test_the_default_s_bits_are_those_of_the_function(tiny_folder):
    it = trainer(tiny_folder, "tis")
    assert it._loss == TruncatedImportance(2.0)
    policy = tiny_model.policy(tiny_folder)
    policy.activate("solver")
    batch = build(WINDOW, ALBUM.__getitem__, policy.spec, 4096)
    (micro,) = batch.micro_batches
    loss, sums = truncated_importance_loss(
        policy.logprobs(micro, policy.look(batch)),
        micro.behaviour,
        micro.mask,
        micro.advantages,
        cap=2.0,
        tokens=batch.tokens,
    )
    result = train(it)
    assert result.loss == sums.loss == pytest.approx(loss.item(), rel=1e-5)
    assert {name: result.metrics[name] for name in sums.metrics()} == sums.metrics()


def test_causes_are_reported_as_shares(tiny_folder):
    metrics = train(trainer(tiny_folder, "dapo", proximal="behaviour", veto=0.5)).metrics
    shares = {name for name in metrics if name.startswith("share_")}
    assert shares == {"share_clip_low", "share_clip_high", "share_delta", "share_veto"}
    assert 0.0 < metrics["share_veto"] <= metrics["clipped_share"] <= 1.0


# --- versions -------------------------------------------------------------------------------------


def test_each_token_has_the_version_that_drew_it(tiny_folder):
    spec = tiny_model.policy(tiny_folder).spec
    whole = of_versions(group("g", [20, 21], [[30, 31, 32], [33, 34, 35]]), VersionSpan(0, 3, 5))
    torn = of_versions(
        group("h", [20], [[30, 31, 32, 33]]), VersionSpan(0, 1, 5), VersionSpan(1, 4, 6)
    )
    (micro,) = tiny_model.built(spec, [whole, torn]).micro_batches
    rows = sorted(micro.versions.tolist())
    assert rows == [[5, 5, 5, 0], [5, 5, 5, 0], [5, 6, 6, 6]]


def test_versions_do_not_enter_the_digest_of_the_batch(tiny_folder):
    """Digests of steps committed before the tensors had versions stay what they were."""
    spec = tiny_model.policy(tiny_folder).spec
    one = group("g", [20, 21], [[30, 31, 32]])
    digests = {
        batch_digest(tiny_model.built(spec, [of_versions(one, VersionSpan(0, 3, version))]))
        for version in (0, 7)
    }
    assert len(digests) == 1


def test_mismatch_and_drift_are_kept_apart(tiny_folder):
    """Of two tokens the old one alone was given another probability than the policy's."""
    it = trainer(tiny_folder, "tis")
    it.version = 2
    probe = Window("solver", (group("g", [20, 21], [[30, 31]]),))
    batch = build(probe, ALBUM.__getitem__, it.model.spec, 4096)
    it.model.activate("solver")
    with torch.no_grad():
        said = it.model.logprobs(batch.micro_batches[0], None)[0].tolist()
    drawn = sample([30, 31], [said[0] - 0.5, said[1]])
    mixed = of_versions(group("g", [20, 21], [drawn]), VersionSpan(0, 1, 1), VersionSpan(1, 2, 2))
    metrics = train(it, Window("solver", (mixed,))).metrics
    assert metrics["mismatch_kl_same_version"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["prob_error_older_versions"] == pytest.approx(2.718281828**0.5, rel=1e-5)
    assert (metrics["older_share"], metrics["token_staleness_mean"]) == (0.5, 0.5)


def test_the_trainer_knows_its_version_from_what_it_saved_or_restored(tiny_folder, tmp_path):
    it = trainer(tiny_folder, "tis")
    first = it.save(tmp_path, 0)
    train(it)
    assert it.version == 1
    saved = it.save(tmp_path, 1)
    it.restore(tmp_path, first)
    assert it.version == 0
    it.restore(tmp_path, saved)
    assert it.version == 1


# --- several optimiser steps a window -------------------------------------------------------------

FORWARD = LossOptions(
    proximal="forward", epsilon=0.05, vllm_importance_sampling_mode="token_truncate"
)


def iterating(tiny_folder, count: int, lr: float = 1e-2, **changes: object) -> Trainer:
    learning = RoleLearning(groups=2, lr=lr)
    config = tiny_model.config(num_iterations=count, solver=learning, **changes)
    return Trainer(tiny_model.policy(tiny_folder), "solver", config)


def test_the_second_step_is_held_against_the_weights_that_the_window_began_with(tiny_folder):
    plain = LossOptions(vllm_importance_sampling_mode="token_truncate")
    once = iterating(tiny_folder, 1, loss="dapo", loss_options=plain)
    batch = build(WINDOW, ALBUM.__getitem__, once.model.spec, 64)
    views = once.model.look(batch)
    once.model.activate("solver")
    with torch.no_grad():
        begun = [once.model.logprobs(micro, views) for micro in batch.micro_batches]
    first = train(once).metrics

    twice = iterating(tiny_folder, 2, loss="dapo", loss_options=FORWARD)
    metrics = train(twice).metrics
    assert twice.version == 1
    # Its first step is that of a loss against the current policy: the ratio is 1.
    assert (metrics["loss"], metrics["grad_norm"]) == (first["loss"], first["grad_norm"])
    # Its second one, worked out from where the first one led.
    loss, total, clipped = loss_from(twice.config), 0.0, 0.0
    whole = Whole(tokens=batch.tokens, samples=batch.samples)
    for micro, log_proximal in zip(batch.micro_batches, begun, strict=True):
        tokens = Tokens(
            once.model.logprobs(micro, views),
            micro.behaviour,
            micro.mask,
            micro.advantages,
            proximal=log_proximal,
        )
        value, sums = loss(tokens, whole)
        total, clipped = total + value.item(), clipped + sums.causes["clip_high"]
    assert metrics["last_loss"] == pytest.approx(total, rel=1e-4)
    assert total != pytest.approx(first["loss"], rel=1e-3)
    assert clipped > 0, "the clip must have something to do"
    assert metrics["last_clipped_share"] > metrics["clipped_share"]


@pytest.mark.parametrize("loss", ["tis", "dapo", "m2po"])
def test_more_steps_go_farther_and_one_is_the_default_s_bits(tiny_folder, loss):
    digests = {}
    for count in (None, 1, 3):
        config = tiny_model.config(loss=loss, **({"num_iterations": count} if count else {}))
        it = Trainer(tiny_model.policy(tiny_folder), "solver", config)
        metrics = train(it).metrics
        digests[count] = {name: t.clone() for name, t in it.model.adapter("solver").items()}
        assert ("last_loss" in metrics) == (count == 3)
    assert all(torch.equal(t, digests[1][name]) for name, t in digests[None].items())
    assert any(not torch.equal(t, digests[1][name]) for name, t in digests[3].items())


def test_a_later_step_that_is_not_finite_takes_back_the_earlier_ones(tiny_folder, tmp_path):
    it = iterating(tiny_folder, 2, lr=1e30)
    before = it.save(tmp_path / "before", 0)
    with pytest.raises(StepError, match="nothing was changed"):
        train(it)
    after = it.save(tmp_path / "after", 0)
    assert after == before and it.version == 0
    for name in ("adapter_model.safetensors", "optimizer.safetensors"):
        kept = [
            (tmp_path / at / before.checkpoint / name).read_bytes() for at in ("before", "after")
        ]
        assert kept[0] == kept[1]


# --- truncated samples ----------------------------------------------------------------------------


def cut(sample_: Sample) -> Sample:
    return msgspec.structs.replace(sample_, finish_reason="length")


def test_a_cut_sample_is_masked_if_asked_for_and_counts_as_before(tiny_folder):
    """What is left is the step of the same window with the cut sample's advantage at nothing."""
    one = group("g", [20, 21], [cut(sample([30, 31, 32])), sample([33, 34])], [1.0, -1.0])
    idle = group("g", [20, 21], [sample([30, 31, 32]), sample([33, 34])], [0.0, -1.0])
    found = []
    for it, mask in ((one, True), (one, False), (idle, False)):
        config = tiny_model.config(mask_truncated_completions=mask)
        found.append(
            train(
                Trainer(tiny_model.policy(tiny_folder), "solver", config), Window("solver", (it,))
            )
        )
    masked, whole, without = (result.metrics for result in found)
    assert masked["loss"] == pytest.approx(without["loss"], rel=1e-6)
    assert masked["grad_norm"] == pytest.approx(without["grad_norm"], rel=1e-5)
    assert masked["grad_norm"] != pytest.approx(whole["grad_norm"], rel=1e-2)
    assert (masked["tokens"], whole["tokens"]) == (2.0, 5.0)  # in the loss
    assert (masked["truncated_share"], without["truncated_share"]) == (0.5, 0.0)
    assert found[0].batch_digest != found[1].batch_digest


def test_a_window_of_cut_samples_alone_is_refused(tiny_folder):
    it = Trainer(
        tiny_model.policy(tiny_folder),
        "solver",
        tiny_model.config(mask_truncated_completions=True),
    )
    with pytest.raises(WindowError, match="all samples were cut off"):
        train(it, Window("solver", (group("g", [20], [cut(sample([30, 31]))]),)))


# --- what cannot be -------------------------------------------------------------------------------


def test_dr_grpo_takes_its_length_from_the_requests_or_the_configuration(tiny_folder):
    with pytest.raises(StepError, match="max_completion_length"):
        train(trainer(tiny_folder, "dr_grpo"))
    asked = tuple(
        tiny_model.changed(g, sampling=Sampling(temperature=1.0, max_tokens=12))
        for g in WINDOW.groups
    )
    found = [
        train(trainer(tiny_folder, "dr_grpo", **options), replace(WINDOW, groups=asked)).loss
        for options in ({}, {"max_completion_length": 12}, {"max_completion_length": 24})
    ]
    assert found[0] == found[1] == pytest.approx(2 * found[2])


def test_a_broken_behaviour_is_refused_by_a_loss_that_never_weighs_by_it(tiny_folder):
    it = trainer(tiny_folder, "dapo", vllm_importance_sampling_correction=False)
    broken = group("g", [20], [sample([30, 31], [float("nan"), -1.0])])
    before = it.model.adapter("solver")
    with pytest.raises(StepError, match="summed ratio nan"):
        train(it, Window("solver", (broken,)))
    assert all(torch.equal(t, before[n]) for n, t in it.model.adapter("solver").items())
    assert it.version == 0


def test_a_contradiction_is_refused_before_anything_is_trained(tiny_folder):
    with pytest.raises(ConfigError, match="is not read by"):
        trainer(tiny_folder, "aipo", epsilon=0.1)
