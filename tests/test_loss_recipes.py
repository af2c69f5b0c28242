"""Every configurable loss against loops written from the formulas, and what holds of them all."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_rows import LONGEST, taken, whole
from slow_losses import Row, slowly

from mmzero_async.config import LearnerConfig
from mmzero_async.learner.losses import Loss, Whole, loss_from
from mmzero_async.loss_options import LossName, LossOptions

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
    "vespo, decoupled, truncated by token": (
        "vespo",
        {
            "vllm_importance_sampling_mode": "token_truncate",
            "vllm_importance_sampling_clip_max": 1.537,
            "vllm_importance_sampling_clip_min": 0.537,
            "beta": 0.2,
        },
    ),
    "vespo, decoupled, masked by token": (
        "vespo",
        {
            "proximal": "loglinear",
            "vllm_importance_sampling_mode": "token_mask",
            "vllm_importance_sampling_clip_max": 4.137,
            "importance_sampling_level": "sequence",
            "beta": 0.2,
        },
    ),
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


@pytest.mark.parametrize("name", ["icepop", "all masks", "m2po", "dppo", "vespo"])
def test_a_behaviour_that_is_no_number_is_never_masked_away(name):
    """It must reach the figures, so that the step is refused."""
    loss, _, _ = loss_of(name)
    rows = [Row([-1.0, -1.0], [math.nan, -1.0], [-1.0, -1.0], [0, 0], 1.0)]
    of = Whole(2, 1, LONGEST, 1.0)
    assert math.isnan(taken(loss, rows, of)[2].ratio)
