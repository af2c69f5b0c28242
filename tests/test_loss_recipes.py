"""Every configurable loss: against loops written from the formulas, and in cases done by hand."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_losses import Row, slowly
from torch import Tensor

from mmzero_async.config import LearnerConfig
from mmzero_async.learner.losses import (
    Loss,
    Tokens,
    TokenSums,
    VersionSums,
    Whole,
    loss_from,
    version_sums,
)
from mmzero_async.learner.losses.corrections import second_moment_cutoff, squares
from mmzero_async.learner.losses.seen import look
from mmzero_async.loss_options import LossName, LossOptions

LONGEST = 7
# Odd constants: no case that hypothesis likes stands exactly on one of them.
SETTINGS: dict[str, tuple[LossName, dict[str, object]]] = {
    "grpo, as TRL has it": ("grpo", {}),
    "grpo against mu": (
        "grpo",
        {"proximal": "behaviour", "epsilon": 0.2137, "epsilon_high": 0.2837, "delta": 3.137},
    ),
    "dapo against mu": ("dapo", {"proximal": "behaviour", "epsilon": 0.2137}),
    "bnpo against mu": ("bnpo", {"proximal": "behaviour", "epsilon": 0.2137}),
    "dr_grpo against mu": (
        "dr_grpo",
        {"proximal": "behaviour", "epsilon": 0.2137, "max_completion_length": LONGEST},
    ),
    "luspo": (
        "luspo",
        {"proximal": "behaviour", "importance_sampling_level": "sequence", "epsilon": 0.2137},
    ),
    "gspo": (
        "grpo",
        {
            "proximal": "behaviour",
            "importance_sampling_level": "sequence",
            "epsilon": 0.2137,
            "epsilon_high": 0.3137,
            "beta": 0.3,
        },
    ),
    "gspo, decoupled, weighed by token": (
        "grpo",
        {
            "importance_sampling_level": "sequence",
            "vllm_importance_sampling_mode": "token_truncate",
        },
    ),
    "cispo against mu": ("cispo", {"proximal": "behaviour", "epsilon_high": 2.137}),
    "cispo, the cap of its own": ("cispo", {"proximal": "behaviour"}),
    "sapo": ("sapo", {"proximal": "behaviour", "sapo_temperature_pos": 1.3}),
    "decoupled, truncated by token": (
        "dapo",
        {
            "vllm_importance_sampling_mode": "token_truncate",
            "vllm_importance_sampling_clip_max": 2.137,
            "vllm_importance_sampling_clip_min": 0.137,
        },
    ),
    "decoupled, truncated by sequence": (
        "dapo",
        {"vllm_importance_sampling_mode": "sequence_truncate"},
    ),
    "icepop": (
        "dapo",
        {
            "vllm_importance_sampling_mode": "token_mask",
            "vllm_importance_sampling_clip_max": 5.137,
            "vllm_importance_sampling_clip_min": 0.5137,
        },
    ),
    "decoupled, unbounded": (
        "dapo",
        {
            "vllm_importance_sampling_mode": "token_mask",
            "vllm_importance_sampling_clip_max": 0.0,
        },
    ),
    "a-3po": (
        "dapo",
        {
            "proximal": "loglinear",
            "epsilon": 0.2137,
            "delta": 3.137,
            "vllm_importance_sampling_mode": "token_truncate",
            "vllm_importance_sampling_clip_max": 2.137,
            "beta": 0.2,
        },
    ),
    "kl with bias correction": ("dapo", {"beta": 0.3}),
    "kl without": (
        "dapo",
        {"proximal": "behaviour", "beta": 0.3, "use_bias_correction_kl": False},
    ),
    "all masks": (
        "dapo",
        {
            "vllm_importance_sampling_mode": "token_truncate",
            "geometric_mask": (0.7137, 1.4137),
            "veto": 0.137,
            "off_policy_mask_threshold": 0.2137,
        },
    ),
    "no correction at all": ("dapo", {"vllm_importance_sampling_correction": False}),
    "vespo": ("vespo", {}),
    "aipo": ("aipo", {"aipo_rho": 2.137}),
    "topr": ("topr", {}),
    "dppo": ("dppo", {"dppo_threshold": 0.2137, "dppo_log_ratio_penalty": 0.1, "beta": 0.1}),
    "m2po": ("m2po", {"m2_threshold": 0.4137}),
}

logprob = st.floats(-3.0, 0.0)  # sums over a sample stay within the bound on log-ratios


@st.composite
def samples(draw: st.DrawFn) -> list[Row]:
    rows = []
    for i in range(draw(st.integers(1, 4))):
        n = draw(st.integers(0 if i else 1, 5))
        new, old, base = (draw(st.lists(logprob, min_size=n, max_size=n)) for _ in range(3))
        ages = draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
        rows.append(Row(new, old, base, ages, draw(st.floats(-3.0, 3.0))))
    return rows


def loss_of(name: str) -> tuple[Loss, LossName, LossOptions]:
    loss, changes = SETTINGS[name]
    options = LossOptions(**changes)
    return loss_from(LearnerConfig(loss=loss, loss_options=options)), loss, options


def tensors(rows: list[Row], fill: float = 0.0) -> Tokens:
    """Rows padded with `fill`, in float64, so that formula and derivative compare closely."""
    width = max(map(len, rows))

    def padded(values: list[list[float]], filling: float) -> Tensor:
        return torch.tensor(
            [[*v, *[filling] * (width - len(v))] for v in values], dtype=torch.float64
        )

    return Tokens(
        logprobs=padded([r.new for r in rows], fill).requires_grad_(True),
        behaviour=padded([r.old for r in rows], fill),
        mask=torch.tensor([[t < len(r) for t in range(width)] for r in rows]),
        advantages=torch.tensor([r.advantage for r in rows], dtype=torch.float64),
        reference=padded([r.base for r in rows], fill),
        staleness=padded([r.age for r in rows], 0).long(),
    )


def whole(loss: Loss, rows: list[Row]) -> Whole:
    cutoff = None
    if loss.second_moment_threshold is not None:
        tokens = tensors(rows)
        found = squares(look(tokens, tokens.behaviour).departure)[tokens.mask]
        cutoff = second_moment_cutoff(found, loss.second_moment_threshold)
    return Whole(sum(map(len, rows)), len(rows), LONGEST, cutoff)


def taken(
    loss: Loss, rows: list[Row], of: Whole, fill: float = 0.0
) -> tuple[float, Tensor, TokenSums]:
    tokens = tensors(rows, fill)
    value, sums = loss(tokens, of)
    (gradient,) = torch.autograd.grad(value, tokens.logprobs)
    return value.item(), gradient, sums


@pytest.mark.parametrize("name", SETTINGS)
@given(rows=samples())
@settings(max_examples=30, deadline=None)
def test_value_gradient_and_causes_are_those_of_the_loops(name, rows):
    loss, called, options = loss_of(name)
    expected = slowly(called, options, rows, LONGEST)
    value, gradient, sums = taken(loss, rows, whole(loss, rows))
    assert value == pytest.approx(expected.value, rel=1e-9, abs=1e-9)
    assert sums.loss == pytest.approx(expected.value, rel=1e-9, abs=1e-9)
    for i, row in enumerate(rows):
        assert gradient[i, : len(row)].tolist() == pytest.approx(
            expected.gradient[i], rel=1e-8, abs=1e-9
        )
    assert {cause: n for cause, n in sums.causes.items() if n} == expected.causes
    if options.beta:
        assert sums.kl >= 0.0


@pytest.mark.parametrize("name", SETTINGS)
def test_micro_batches_add_up_and_garbage_under_the_mask_is_harmless(name):
    loss, _, _ = loss_of(name)
    rng = random.Random(name)

    def row(n: int) -> Row:
        new, old, base = ([rng.uniform(-2, 0) for _ in range(n)] for _ in range(3))
        return Row(new, old, base, [rng.randrange(4) for _ in range(n)], rng.gauss(0, 1))

    rows = [row(n) for n in (5, 3, 0, 4, 1)]
    of = whole(loss, rows)
    value, gradient, sums = taken(loss, rows, of)
    for garbage in (math.nan, math.inf, -math.inf, 1e30):
        dirty, bent, dirty_sums = taken(loss, rows, of, fill=garbage)
        assert (dirty, dirty_sums) == (value, sums)
        assert torch.equal(bent, gradient)
    parts = [taken(loss, part, of) for part in (rows[:2], rows[2:])]
    assert sum(part[0] for part in parts) == pytest.approx(value, rel=1e-12, abs=1e-12)
    added = parts[0][2] + parts[1][2]
    assert added.metrics() == pytest.approx(sums.metrics(), rel=1e-12)
    torch.testing.assert_close(parts[1][1], gradient[2:, :4])


@pytest.mark.parametrize("name", SETTINGS)
def test_on_policy_it_is_the_plain_policy_gradient(name):
    """With pi = mu = base no loss bounds anything: its gradient is -d A grad log pi."""
    loss, called, _ = loss_of(name)
    rng = random.Random(name)
    rows = []
    for n, advantage in ((4, 1.5), (2, -0.5), (3, -1.0)):
        logs = [rng.uniform(-2, -0.1) for _ in range(n)]
        rows.append(Row(logs, logs, logs, [0] * n, advantage))
    _, gradient, sums = taken(loss, rows, whole(loss, rows))
    for i, row in enumerate(rows):
        share = {
            "grpo": 1 / (3 * len(row)),
            "sapo": 1 / (3 * len(row)),
            "dr_grpo": 1 / (3 * LONGEST),
            "luspo": 1 / 3,
        }.get(called, 1 / 9)
        assert gradient[i, : len(row)].tolist() == pytest.approx(
            [-share * row.advantage] * len(row)
        )
    assert sums.clipped == 0 and set(sums.causes.values()) <= {0.0}
    metrics = sums.metrics()
    assert (metrics["ratio_mean"], metrics["ess_share"]) == (1.0, 1.0)


# --- by hand --------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", ["icepop", "all masks", "m2po", "dppo", "vespo"])
def test_a_behaviour_that_is_no_number_is_never_masked_away(name):
    """It must reach the figures, so that the step is refused."""
    loss, _, _ = loss_of(name)
    rows = [Row([-1.0, -1.0], [math.nan, -1.0], [-1.0, -1.0], [0, 0], 1.0)]
    of = Whole(2, 1, LONGEST, 1.0)
    assert math.isnan(taken(loss, rows, of)[2].ratio)


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


# --- mismatch and drift ---------------------------------------------------------------------------


def test_mismatch_and_drift_are_two_figures():
    """One token a kind: of this version ratio 1, two older ones of ratio 2 and 4."""
    rows = [Row([-1.0, -1.0], [-1.0, -1.0 - math.log(2)], [0.0] * 2, [0, 1], 1.0)]
    rows.append(Row([-1.0], [-1.0 - math.log(4)], [0.0], [3], 1.0))
    sums = version_sums(tensors(rows[:1])) + version_sums(tensors(rows[1:]))
    assert sums.metrics() == pytest.approx(
        {
            "older_share": 2 / 3,
            "token_staleness_mean": 4 / 3,
            "mismatch_kl_same_version": 0.0,
            "prob_error_same_version": 1.0,
            "drift_kl_older_versions": (2 - math.log(2) - 1 + 4 - math.log(4) - 1) / 2,
            "prob_error_older_versions": 3.0,
            **{f"{name}_same_version": 0.0 for name in ("k1", "log_ratio_abs", "log_ratio_max")},
            "ess_same_version": 1.0,
            "k1_older_versions": -1.5 * math.log(2),
            "log_ratio_abs_older_versions": 1.5 * math.log(2),
            "log_ratio_max_older_versions": math.log(4),
            "ess_older_versions": (2 + 4) ** 2 / (2 * (4 + 16)),
        }
    )


@pytest.mark.parametrize("name", ["tis", "dapo"])
def test_what_was_clipped_is_told_by_age_and_cause(name):
    """Ratios of this version 4 and 1, of older ones 1, 8 and 1; the bound is 2."""
    rows = [
        Row([-1.0] * 3, [-1.0 - math.log(r) for r in (4, 1, 8)], [0.0] * 3, [0, 1, 2], 1.0),
        Row([-1.0] * 2, [-1.0] * 2, [0.0] * 2, [0, 3], -1.0),
    ]
    bounded = {"vllm_importance_sampling_mode": "token_mask"}
    options = LossOptions(**bounded, vllm_importance_sampling_clip_max=2.0)
    config = LearnerConfig(loss=name, loss_options=options if name == "dapo" else LossOptions())
    sums, versions = TokenSums(), VersionSums()
    for part in (rows[:1], rows[1:]):
        tokens = tensors(part)
        sums = sums + loss_from(config)(tokens, Whole(5, 2))[1]
        versions = versions + version_sums(tokens)
    shares = versions.shares(sums)
    assert shares["clipped_share_same_version"] == pytest.approx(1 / 2)
    assert shares["clipped_share_older_versions"] == pytest.approx(1 / 3)
    causes = {key for key in shares if not key.startswith("clipped")}
    masked = {"token_mask_share_same_version", "token_mask_share_older_versions"}
    assert causes >= masked if name == "dapo" else causes == set()
    assert sums.metrics()["clipped_share"] == pytest.approx(2 / 5)


def test_a_kind_of_token_that_the_window_lacks_has_no_figure():
    rows = [Row([-1.0], [-1.0], [0.0], [0], 1.0)]
    metrics = version_sums(tensors(rows, fill=math.nan)).metrics()
    assert set(metrics) == {
        "older_share",
        "token_staleness_mean",
        "mismatch_kl_same_version",
        *(
            f"{name}_same_version"
            for name in ("prob_error", "k1", "log_ratio_abs", "log_ratio_max", "ess")
        ),
    }
