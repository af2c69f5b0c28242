"""What a loss tells of a window beside its value: mismatch, drift, and what was clipped."""

import math

import pytest
from loss_rows import tensors
from slow_losses import Row

from mmzero_async.config import LearnerConfig
from mmzero_async.learner.losses import TokenSums, VersionSums, Whole, loss_from, version_sums
from mmzero_async.loss_options import LossOptions


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
