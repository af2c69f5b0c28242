"""Losses, masks and the second moment's cutoff in cases whose numbers are worked out by hand."""

import math
import random

import pytest
import torch
from loss_rows import taken, whole
from slow_losses import Row

from mmzero_async.config import LearnerConfig
from mmzero_async.learner.losses import Whole, loss_from
from mmzero_async.learner.losses.corrections import second_moment_cutoff
from mmzero_async.loss_options import LossName, LossOptions


def one_token(
    name: LossName, ratio: float, advantage: float, **options: object
) -> tuple[float, float]:
    """Value and gradient of a single token of probability 1/2 under pi."""
    half = math.log(0.5)
    rows = [Row([half], [half - math.log(ratio)], [half], [1], advantage)]
    loss = loss_from(LearnerConfig(loss=name, loss_options=LossOptions(**options)))
    value, gradient, _ = taken(loss, rows, whole(loss, rows))
    return value, gradient.item()


MU = {"proximal": "behaviour"}
LOG_HALF = math.log(0.5)
TRUNCATED = {
    "vllm_importance_sampling_mode": "token_truncate",
    "vllm_importance_sampling_clip_max": 1.5,
}
MASKED = {**TRUNCATED, "vllm_importance_sampling_mode": "token_mask"}


@pytest.mark.parametrize(
    ("name", "ratio", "advantage", "options", "value", "gradient"),
    [
        ("dapo", 1.1, 2.0, MU, -2.2, -2.2),
        ("dapo", 1.5, 2.0, MU, -2.4, 0.0),
        ("dapo", 0.5, 2.0, MU, -1.0, -1.0),
        ("dapo", 0.5, -2.0, MU, 1.6, 0.0),
        ("dapo", 6.0, -1.0, MU, 6.0, 6.0),
        ("dapo", 6.0, -1.0, {**MU, "delta": 3.0}, 3.0, 0.0),
        ("dapo", 1.25, 1.0, {**MU, "epsilon_high": 0.28}, -1.25, -1.25),
        ("cispo", 8.0, 1.0, MU, -5.0 * LOG_HALF, -5.0),
        ("cispo", 8.0, 1.0, {**MU, "epsilon_high": 2.0}, -2.0 * LOG_HALF, -2.0),
        ("aipo", 8.0, -1.0, {}, 4.0, 4.0),
        ("topr", 8.0, 1.0, {}, -LOG_HALF, -1.0),
        ("topr", 8.0, -1.0, {}, LOG_HALF, 1.0),
        ("topr", 0.5, -1.0, {}, 0.5 * LOG_HALF, 0.5),
        # pi 0.5, mu 0.25: 0.25 moved; the penalty is 1e-3 log(2)^2
        ("dppo", 2.0, 1.0, {}, 1e-3 * math.log(2) ** 2, 2e-3 * math.log(2)),
        ("dppo", 2.0, -1.0, {"dppo_log_ratio_penalty": 0.0}, 2.0, 2.0),
        ("dppo", 1.25, 1.0, {"dppo_log_ratio_penalty": 0.0}, -1.25, -1.25),
        ("m2po", 1.5, 1.0, {}, 0.0, 0.0),  # log(1.5)^2 = 0.16
        ("m2po", 1.2, 1.0, {}, -1.2, -1.2),  # log(1.2)^2 = 0.033
        ("vespo", 2.0, 1.0, {}, -math.exp(-3) * 4 * LOG_HALF, -math.exp(-3) * 4),
        ("vespo", 2.0, -1.0, {}, math.exp(-2) * 8 * LOG_HALF, math.exp(-2) * 8),
        # 2 is held at 1.5: e^(3 - 3 * 1.5) 1.5^2; masked it counts 1e-8
        ("vespo", 2.0, 1.0, TRUNCATED, -math.exp(-1.5) * 2.25 * LOG_HALF, -math.exp(-1.5) * 2.25),
        ("vespo", 2.0, 1.0, MASKED, 0.0, 0.0),
        # one version old: alpha 0, the proximal policy is mu; of ratio 1.5 the clip keeps nothing
        ("dapo", 1.5, 1.0, {"proximal": "loglinear"}, -1.2, 0.0),
    ],
)
def test_the_loss_of_one_token_is_the_hand_computed_number(
    name, ratio, advantage, options, value, gradient
):
    assert one_token(name, ratio, advantage, **options) == pytest.approx((value, gradient))


def test_a_log_linear_proximal_policy_lies_between_by_age():
    """Ratio e over mu: at age 4 three quarters are the weight's, one quarter the clip's."""
    rows = [Row([-1.0] * 3, [-2.0] * 3, [-1.0] * 3, [0, 1, 4], 1.0)]
    options = {"proximal": "loglinear", "epsilon": 0.5, "vllm_importance_sampling_clip_max": 0.0}
    loss = loss_from(
        LearnerConfig(
            loss="dapo",
            loss_options=LossOptions(**options, vllm_importance_sampling_mode="token_mask"),
        )
    )
    value, gradient, _ = taken(loss, rows, whole(loss, rows))
    weights = [math.e, 1.0, math.exp(0.75)]
    clipped = [1.0, 1.5, math.exp(0.25)]
    assert value == pytest.approx(-sum(w * c for w, c in zip(weights, clipped, strict=True)) / 3)
    assert gradient[0].tolist() == pytest.approx([-math.e / 3, 0.0, -math.e / 3])


def test_what_is_masked_stays_in_the_denominator():
    """Two samples, one dropped by the veto: the other counts half, as if nothing were dropped."""
    fine = Row([-1.0, -1.0], [-1.0, -1.0], [0.0, 0.0], [0, 0], 1.0)
    broken = Row([-9.0, -1.0], [-1.0, -1.0], [0.0, 0.0], [1, 1], 1.0)
    options = LossOptions(veto=1e-3, vllm_importance_sampling_mode="token_truncate")
    loss = loss_from(LearnerConfig(loss="dapo", loss_options=options))
    value, gradient, sums = taken(loss, [fine, broken], Whole(4, 2))
    assert value == pytest.approx(-0.5)
    assert gradient.tolist() == [[-0.25, -0.25], [0.0, 0.0]]
    assert sums.causes == {
        "clip_low": 0,
        "clip_high": 0,
        "delta": 0,
        "token_truncate": 0,
        "veto": 2,
    }
    metrics = sums.metrics()
    assert (metrics["share_veto"], metrics["clipped_share"], metrics["tokens"]) == (0.5, 0.5, 4)


def test_the_default_as_a_recipe_has_the_default_s_numbers():
    rng = random.Random(3)
    rows = [
        Row(*([rng.uniform(-2, 0) for _ in range(n)] for _ in range(3)), [1] * n, rng.gauss(0, 1))
        for n in (4, 5, 2)
    ]
    options = LossOptions(
        vllm_importance_sampling_mode="token_truncate",
        vllm_importance_sampling_clip_max=2.0,
        beta=0.1,
        use_bias_correction_kl=False,
    )
    made = taken(loss_from(LearnerConfig(loss="dapo", loss_options=options)), rows, Whole(11, 3))
    default = loss_from(LearnerConfig(kl_coefficient=0.1))
    written = taken(default, rows, Whole(11, 3))
    assert made[0] == pytest.approx(written[0], rel=1e-12)
    torch.testing.assert_close(made[1], written[1])
    shared = {k: v for k, v in made[2].metrics().items() if not k.startswith("share_")}
    assert shared == pytest.approx(written[2].metrics(), rel=1e-12)
    assert made[2].causes["token_truncate"] == written[2].clipped > 0


# --- M2PO's cutoff --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "threshold", "cutoff"),
    [
        ([0.01, 0.02, 0.03], 0.04, 0.03),
        ([0.01, 0.02, 9.0], 0.04, 0.02),
        ([0.0, 0.1], 0.05, 0.1),
        ([0.0, 0.1, 0.1], 0.05, 0.0),  # equals go together
        ([0.5, 0.6], 0.04, -1.0),
        ([], 0.04, -1.0),
    ],
)
def test_the_cutoff_keeps_as_many_as_the_mean_allows(values, threshold, cutoff):
    found = second_moment_cutoff(torch.tensor(values, dtype=torch.float64), threshold)
    assert found == pytest.approx(cutoff)
