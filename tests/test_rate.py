"""The step size: warmed up, less where few samples count, in the log and the same when replayed."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_model
import torch
from hypothesis import given
from hypothesis import strategies as st
from learned_run import LearnedRun, learned
from tiny_model import Album, group, sample
from typer.testing import CliRunner

from mmzero_async.config import RoleLearning
from mmzero_async.learner.losses import Tokens
from mmzero_async.learner.offline import config_of, retrain
from mmzero_async.learner.ranks import Ranks
from mmzero_async.learner.rate import SampleSums, rate, sample_sums
from mmzero_async.learner.step import Trainer
from mmzero_async.learner.window import Window
from mmzero_async.log.reader import LogReader
from mmzero_async.ops.cli import app
from mmzero_async.schemas.events import StepCommitted

ALBUM = Album()
WINDOW = tiny_model.window(ALBUM)
LR = 1e-2


def sums(*weights: float) -> SampleSums:
    return SampleSums(len(weights), sum(weights), sum(w * w for w in weights))


# --- the arithmetic -------------------------------------------------------------------------------


def test_by_hand() -> None:
    """rho_ess = (1 + 1 + 4)^2 / (3 * (1 + 1 + 16)) = 36 / 54."""
    config, learning = tiny_model.config(lr_by_ess=1.0), RoleLearning(groups=1, lr=0.3)
    assert sums(1, 1, 4).effective == pytest.approx(36 / 54)
    assert rate(config, learning, 0, sums(1, 1, 4)) == pytest.approx(0.3 * math.sqrt(36 / 54))
    half = tiny_model.config(lr_by_ess=0.5)
    assert rate(half, learning, 0, sums(1, 1, 4)) == 0.3  # never above the role's own
    assert rate(half, learning, 0, sums(1, 0, 0)) == pytest.approx(0.3 * math.sqrt((1 / 3) / 0.5))
    warm = RoleLearning(groups=1, lr=0.3, warmup_steps=3)
    found = [rate(tiny_model.config(), warm, n, sums(1, 9)) for n in range(5)]
    assert found == pytest.approx([0.1, 0.2, 0.3, 0.3, 0.3])
    both = rate(config, warm, 1, sums(1, 1, 4))
    assert both == pytest.approx(0.2 * math.sqrt(36 / 54))


@given(
    weights=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30),
    reference=st.floats(0.01, 1.0),
    scale=st.floats(1e-3, 1e3),
)
def test_between_one_sample_and_all_and_blind_to_a_common_factor(weights, reference, scale) -> None:
    found = sums(*weights).effective
    assert 1 / len(weights) - 1e-9 <= found <= 1 + 1e-9
    assert sums(*[w * scale for w in weights]).effective == pytest.approx(found)
    assert sums(*[weights[0]] * len(weights)).effective == pytest.approx(1.0)
    learning = RoleLearning(groups=1, lr=LR)
    slowed = rate(tiny_model.config(lr_by_ess=reference), learning, 0, sums(*weights))
    assert 0 < slowed <= LR
    assert rate(tiny_model.config(), learning, 0, sums(*weights)) == LR


def test_a_samples_weight_is_the_product_over_its_own_tokens() -> None:
    ratio = torch.tensor([[2.0, 0.5, 3.0], [4.0, 99.0, 99.0], [7.0, 7.0, 7.0]])
    mask = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
    behaviour = torch.full((3, 3), -1.0)
    tokens = Tokens(behaviour + ratio.log(), behaviour, mask, torch.zeros(3))
    found = sample_sums(tokens)
    assert found.samples == 2  # a sample without a token in the loss weighs nothing
    assert (found.weight, found.weight_squared) == pytest.approx((3.0 + 4.0, 9.0 + 16.0))
    halves = [
        sample_sums(Tokens(*(t[rows] for t in (behaviour + ratio.log(), behaviour, mask)), rows))
        for rows in (torch.tensor([0]), torch.tensor([1, 2]))
    ]
    assert (halves[0] + halves[1]).effective == pytest.approx(found.effective)


# --- in a step ------------------------------------------------------------------------------------


def stepped(folder: Path, window: Window, **changes: object):
    policy = tiny_model.policy(folder)
    it = Trainer(policy, "solver", tiny_model.config(**changes))
    result = it.train(window, ALBUM.__getitem__)
    return result.metrics, policy.adapter("solver")


def test_a_lopsided_window_moves_the_policy_by_the_rate_that_it_reports(tiny_folder) -> None:
    metrics, weights = stepped(tiny_folder, WINDOW, lr_by_ess=1.0)
    assert 0 < metrics["sample_ess"] < 1
    assert metrics["lr"] == pytest.approx(LR * math.sqrt(metrics["sample_ess"]))
    same_rate = RoleLearning(groups=2, lr=metrics["lr"])
    other, again = stepped(tiny_folder, WINDOW, solver=same_rate)
    assert "sample_ess" not in other and other["lr"] == metrics["lr"]
    assert all(torch.equal(weights[name], tensor) for name, tensor in again.items())
    _, unslowed = stepped(tiny_folder, WINDOW)
    assert any(not torch.equal(weights[name], tensor) for name, tensor in unslowed.items())


def test_a_window_of_samples_that_weigh_alike_keeps_the_rate(tiny_folder) -> None:
    policy = tiny_model.policy(tiny_folder)
    alike = Window("solver", (group("g", [20], [sample([30, 31])] * 4),))
    it = Trainer(policy, "solver", tiny_model.config(lr_by_ess=1.0))
    metrics = it.train(alike, ALBUM.__getitem__).metrics
    assert metrics["sample_ess"] == pytest.approx(1.0)
    assert metrics["lr"] == pytest.approx(LR)


def test_warm_up_goes_on_where_a_restored_version_stands(tiny_folder, tmp_path) -> None:
    config = tiny_model.config(solver=RoleLearning(groups=2, lr=LR, warmup_steps=4))
    it = Trainer(tiny_model.policy(tiny_folder), "solver", config)
    rates = []
    for version in (1, 2):
        rates.append(it.train(WINDOW, ALBUM.__getitem__).metrics["lr"])
        saved = it.save(tmp_path, version)
    other = Trainer(tiny_model.policy(tiny_folder), "solver", config)
    other.restore(tmp_path, saved)
    rates += [other.train(WINDOW, ALBUM.__getitem__).metrics["lr"] for _ in range(4)]
    assert rates == pytest.approx([LR * n / 4 for n in (1, 2, 3, 4, 4, 4)])


# --- replayed -------------------------------------------------------------------------------------


class Several(LearnedRun):
    """A run whose steps were taken by two ranks."""

    def __init__(self, *arguments, **named) -> None:
        super().__init__(*arguments, **named)
        for trainer in self.trainers.values():
            trainer.ranks = Ranks(2)


@pytest.mark.parametrize("kind", [LearnedRun, Several])
def test_a_step_is_taken_again_to_the_bit(tiny_folder, tmp_path, kind) -> None:
    settings = ["lr_by_ess=1.0", "solver.warmup_steps=3", "solver.lr=1e-2", "micro_batch_tokens=32"]
    run = learned(tmp_path / "run", tiny_folder, [f"learner.{s}" for s in settings], kind=kind)
    reader = LogReader.open(run / "log")
    steps = [event for r in reader.scan() if isinstance(event := r.event(), StepCommitted)]
    solver = [step for step in steps if step.role == "solver"]
    assert all(0 < step.metrics["lr"] <= 1e-2 * min(1, step.step / 3) for step in solver)
    assert {step.metrics.get("ranks") for step in steps} == {2.0 if kind is Several else None}
    reader.close()  # one process opens a log once
    told = CliRunner().invoke(app, ["replay", str(run), "--step", "2", "--role", "solver"])
    assert told.exit_code == 0, told.output
    reader = LogReader.open(run / "log")
    again = list(retrain(run, tiny_folder, reader, tmp_path / "again", config_of(reader)))
    assert len(again) == len(steps) and all(step.same for step in again)
    reader.close()


def test_the_rate_of_a_window_does_not_hang_on_how_it_is_cut(tiny_folder) -> None:
    found = [
        stepped(tiny_folder, WINDOW, lr_by_ess=1.0, micro_batch_tokens=budget)[0]["lr"]
        for budget in (1, 4096)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    shorter = replace(WINDOW, groups=WINDOW.groups[:1])
    assert stepped(tiny_folder, shorter, lr_by_ess=1.0)[0]["lr"] != pytest.approx(found[0])
