"""Advantages: golden cases worked out by hand, and what must always hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmzero_async.roles.advantages import group_advantages, window_advantages


def test_advantages_worked_out_by_hand() -> None:
    # mean 2, deviation with n - 1: sqrt((1 + 1) / 2) = 1
    assert group_advantages([1.0, 2.0, 3.0]) == pytest.approx([-1 / 1.0001, 0, 1 / 1.0001])
    assert group_advantages([1.0, 2.0, 3.0], "none") == pytest.approx([-1, 0, 1])
    assert group_advantages([5.0]).tolist() == [0.0]
    assert group_advantages([]).tolist() == []


def test_advantages_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch")
    rewards = torch.tensor([0.3, -1.0, 0.7, 0.7], dtype=torch.float64)
    theirs = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
    assert group_advantages(rewards.tolist()) == pytest.approx(theirs.tolist())


@given(st.lists(st.floats(-2, 3), min_size=2, max_size=12), st.floats(-5, 5))
def test_advantages_sum_to_nothing_and_ignore_a_shift(rewards: list[float], shift: float) -> None:
    advantages = group_advantages(rewards)
    assert advantages.dtype == np.float64
    assert advantages.sum() == pytest.approx(0, abs=1e-6)
    assert group_advantages([r + shift for r in rewards]) == pytest.approx(advantages, abs=1e-6)
    assert (np.diff(advantages[np.argsort(rewards)]) >= -1e-12).all()


@given(st.lists(st.floats(-2, 3), min_size=2, max_size=9), st.randoms(), st.floats(0.5, 4))
def test_advantages_follow_their_samples_and_ignore_a_scale(
    rewards: list[float], rng: object, scale: float
) -> None:
    order = list(range(len(rewards)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    for kind in ("group", "none"):
        advantages = group_advantages(rewards, kind)  # type: ignore[arg-type]
        shuffled = group_advantages([rewards[i] for i in order], kind)  # type: ignore[arg-type]
        assert shuffled == pytest.approx(advantages[order], abs=1e-9)
    if np.std(rewards) > 0.1:  # TRL's epsilon is all that a scale changes
        scaled = group_advantages([scale * r for r in rewards])
        assert scaled == pytest.approx(group_advantages(rewards), rel=2e-3, abs=1e-9)


def test_the_baseline_of_the_others_worked_out_by_hand() -> None:
    # 1 - (2 + 3) / 2, 2 - (1 + 3) / 2, 3 - (1 + 2) / 2
    alone = group_advantages([1.0, 2.0, 3.0], "none", "leave_one_out")
    assert alone == pytest.approx([-1.5, 0, 1.5])
    assert group_advantages([5.0], "none", "leave_one_out").tolist() == [0.0]


def test_one_deviation_for_the_whole_window_worked_out_by_hand() -> None:
    # rewards 0 2 | 4 4, mean 2.5, deviation sqrt((6.25 + .25 + 2.25 + 2.25) / 3) = 1.91485
    first, level = window_advantages([[0.0, 2.0], [4.0, 4.0]], "batch")
    assert first == pytest.approx([-1 / 1.91495, 1 / 1.91495], rel=1e-5)
    assert level.tolist() == [0.0, 0.0]
    # advantages -2 2 | 0 0, deviation sqrt(8 / 3) = 1.63299
    first, level = window_advantages([[0.0, 2.0], [4.0, 4.0]], "batch", "leave_one_out")
    assert first == pytest.approx([-2 / 1.63309, 2 / 1.63309], rel=1e-5)
    assert window_advantages([], "batch") == []
    assert [a.tolist() for a in window_advantages([[1.0]], "batch")] == [[0.0]]


@given(st.lists(st.lists(st.floats(-2, 3), min_size=2, max_size=6), min_size=1, max_size=5))
def test_a_window_s_scale_keeps_the_proportions_of_all_its_advantages(
    groups: list[list[float]],
) -> None:
    plain = np.concatenate(window_advantages(groups, "none"))
    scaled = np.concatenate(window_advantages(groups, "batch"))
    deviation = np.concatenate([np.asarray(g) for g in groups]).std(ddof=1) + 1e-4
    assert scaled * deviation == pytest.approx(plain, rel=1e-9, abs=1e-12)
    one_by_one = [group_advantages(group).tolist() for group in groups]
    assert [a.tolist() for a in window_advantages(groups)] == one_by_one
