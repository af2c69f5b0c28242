"""From reward terms to group-relative advantages (GRPO, arXiv 2402.03300), as TRL counts them."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

EPSILON = 1e-4  # TRL's, on the standard deviation


def rewards_of(terms: Sequence[Mapping[str, float]]) -> list[float]:
    """One reward a sample: the sum of its terms, in the order in which they stand."""
    return [float(sum(term.values())) for term in terms]


def group_advantages(
    rewards: Sequence[float], scale: Literal["group", "none"] = "group"
) -> NDArray[np.float64]:
    """float64 [n]: reward minus the group's mean, over its deviation (n - 1) for "group".

    "none" leaves the scale as it is (Dr. GRPO, arXiv 2503.20783). Alike rewards give zeros.
    """
    values = np.asarray(rewards, dtype=np.float64)
    if values.size < 2:
        return np.zeros_like(values)
    centred: NDArray[np.float64] = values - values.mean()
    if scale == "none":
        return centred
    return centred / (float(values.std(ddof=1)) + EPSILON)
