"""Corrections: weights and masks for tokens that the current policy would not have drawn so.

Each is a small frozen struct, `(seen, whole) -> (weight, touched)`, both [B, T] or [B, 1]; a
recipe multiplies the loss of a token by all its weights. None has a gradient, none changes a
denominator. NaN is never masked away: it must reach the loss and stop the step.

mu behaviour, pi current, pi_prox proximal policy; r_t = pi / mu at token t.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from mmzero_async.learner.losses.seen import Seen, Whole, bounded, mean_of_sample, sum_of_sample

Weighed = tuple[Tensor, Tensor]


class Correction(Protocol):
    @property
    def name(self) -> str: ...

    def __call__(self, seen: Seen, whole: Whole, /) -> Weighed: ...


@dataclass(frozen=True, slots=True)
class ImportanceWeight:
    """w = pi_prox / mu, of the token or multiplied over the sample, held within [low, high].

    "truncate" clamps the ratio: TIS (Yao et al. 2025; verl, slime; C = 2 a token, TRL 3 and SkyRL
    5 a sequence). "mask" makes it 0 outside: masked IS; [0.5, 5] a token is IcePop's (AReaL,
    OpenRLHF, NeMo-RL), a cap of 5 decoupled PPO's (arXiv 2505.24298). The four pairs are TRL's
    `vllm_importance_sampling_mode`.
    """

    level: Literal["token", "sequence"]
    action: Literal["truncate", "mask"]
    low: float
    high: float

    @property
    def name(self) -> str:
        return f"{self.level}_{self.action}"

    def __call__(self, seen: Seen, whole: Whole) -> Weighed:
        return self.of(seen)

    def of(self, seen: Seen) -> Weighed:
        log_ratio = seen.from_behaviour
        if self.level == "sequence":
            log_ratio = bounded(sum_of_sample(log_ratio, seen.weighing))
        ratio = log_ratio.exp()
        outside = (ratio < self.low) | (ratio > self.high)
        if self.action == "mask":
            return ratio.masked_fill(outside, 0.0), outside
        return ratio.clamp(self.low, self.high), outside


@dataclass(frozen=True, slots=True)
class GeometricMask:
    """Keeps a sample if low <= exp(mean_t log r_t) <= high. SkyRL, verl: 0.99 to 1.01."""

    low: float
    high: float
    name: ClassVar[str] = "geometric_mask"

    def __call__(self, seen: Seen, whole: Whole) -> Weighed:
        mean_ratio = mean_of_sample(seen.departure, seen.weighing).exp()
        return _without(seen, (mean_ratio < self.low) | (mean_ratio > self.high))


@dataclass(frozen=True, slots=True)
class Veto:
    """Drops a sample if any r_t < floor: a token that the policy could not have drawn. slime: 1e-4.

    The floor is compared with ratios, 1 at padded places.
    """

    floor: float
    name: ClassVar[str] = "veto"

    def __call__(self, seen: Seen, whole: Whole) -> Weighed:
        return _without(seen, (seen.departure.exp() < self.floor).any(-1, keepdim=True))


@dataclass(frozen=True, slots=True)
class OffPolicyMask:
    """Drops a sample if A < 0 and mean_t (log mu - log pi) > threshold.

    OPSM of DeepSeek-V3.2 (arXiv 2512.02556, equation 9): what went wrong long ago teaches nothing.
    TRL's `off_policy_mask_threshold`, 0.5.
    """

    threshold: float
    name: ClassVar[str] = "off_policy_mask"

    def __call__(self, seen: Seen, whole: Whole) -> Weighed:
        divergence = mean_of_sample(-seen.departure, seen.weighing)
        return _without(seen, (seen.advantages < 0) & (divergence > self.threshold))


@dataclass(frozen=True, slots=True)
class TotalVariationMask:
    """Drops a token if A > 0 and pi - mu > threshold, or A < 0 and pi - mu < -threshold.

    Binary total variation of DPPO (arXiv 2602.04879; PRIME-RL's default), 0.2: what counts is how
    much probability has moved, and not the ratio, which is wild for rare tokens. As in PRIME-RL
    A = 0 counts with A < 0; it has no gradient either way.
    """

    threshold: float
    name: ClassVar[str] = "tv_mask"

    def __call__(self, seen: Seen, whole: Whole) -> Weighed:
        moved = seen.logprobs.detach().exp() - seen.behaviour.exp()
        positive = seen.advantages > 0
        too_far = torch.where(positive, moved > self.threshold, moved < -self.threshold)
        return _without(seen, too_far)


@dataclass(frozen=True, slots=True)
class SecondMomentMask:
    """Drops the tokens of the largest (log r)^2 until the mean over the kept ones is <= threshold.

    M2PO (arXiv 2510.01161; AReaL), 0.04. Over the window: `second_moment_cutoff` gives what every
    micro-batch compares with, so tokens of the same value go or stay together.
    """

    threshold: float
    name: ClassVar[str] = "second_moment_mask"

    def __call__(self, seen: Seen, whole: Whole) -> Weighed:
        if whole.second_moment_cutoff is None:
            raise ValueError("a second-moment mask needs the window's second_moment_cutoff")
        return _without(seen, squares(seen.departure) > whole.second_moment_cutoff)


def squares(departure: Tensor) -> Tensor:
    """(log r)^2 in float64, for `second_moment_cutoff` and the mask alike."""
    return departure.double().square()


def second_moment_cutoff(values: Tensor, threshold: float) -> float:
    """The largest c for which the mean of the values <= c is at most the threshold; -1 for none.

    Args:
        values: [N] (log r)^2 of all the window's tokens.
        threshold: tau.
    """
    ordered = values.sort().values
    means = ordered.cumsum(0) / torch.arange(1, len(ordered) + 1, device=ordered.device)
    # Of equal values only the last one's mean is over {values <= c}.
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:-1] = ordered[1:] > ordered[:-1]
    kept = ordered[last & (means <= threshold)]
    return float(kept[-1]) if len(kept) else -1.0


def _without(seen: Seen, dropped: Tensor) -> Weighed:
    return (~dropped).to(seen.weighing.dtype), dropped
