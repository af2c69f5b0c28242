"""From reward terms to advantages: a baseline taken off each reward, then a scale, as TRL counts.

GRPO (arXiv 2402.03300) compares with the group's mean; RLOO (arXiv 2402.14740) with the mean of the
others. Every sample's reward counts in baseline and scale, whatever the loss then masks.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

EPSILON = 1e-4  # TRL's, on the standard deviation

Scale = Literal["group", "batch", "none"]
Baseline = Literal["group", "leave_one_out"]
Array = NDArray[np.float64]


def rewards_of(terms: Sequence[Mapping[str, float]]) -> list[float]:
    """One reward a sample: the sum of its terms, in the order in which they stand."""
    return [float(sum(term.values())) for term in terms]


def group_advantages(
    rewards: Sequence[float], scale: Scale = "group", baseline: Baseline = "group"
) -> Array:
    """float64 [n]: reward minus the baseline, for "group" over the group's deviation (n - 1).

    "leave_one_out" makes the distance from the group's mean n / (n - 1) as long. "none" leaves the
    scale as it is (Dr. GRPO, arXiv 2503.20783), and so does "batch", whose deviation is the
    window's: see `window_advantages`. Alike rewards and a lone one give zeros.
    """
    values = np.asarray(rewards, dtype=np.float64)
    if values.size < 2:
        return np.zeros_like(values)
    centred: Array = values - values.mean()
    if baseline == "leave_one_out":
        centred = centred * (values.size / (values.size - 1))
    if scale == "group":
        centred = centred / (float(values.std(ddof=1)) + EPSILON)
    return centred


def window_advantages(
    groups: Sequence[Sequence[float]], scale: Scale = "group", baseline: Baseline = "group"
) -> list[Array]:
    """An array a group of rewards, in the order given.

    "batch" divides all by one deviation (n - 1): that of the window's rewards, as TRL's
    `scale_rewards="batch"` (PPO Lite, arXiv 2508.08221); with "leave_one_out" that of its
    advantages, TRL's RLOO with `normalize_advantages` (their mean is zero already).
    """
    advantages = [group_advantages(rewards, scale, baseline) for rewards in groups]
    if scale != "batch" or not advantages:
        return advantages
    spread = advantages if baseline == "leave_one_out" else groups
    values = np.concatenate([np.asarray(group, dtype=np.float64) for group in spread])
    deviation = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return [group / (deviation + EPSILON) for group in advantages]
