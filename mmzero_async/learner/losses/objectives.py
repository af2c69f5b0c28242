"""Objectives: the advantage weighted by a ratio, a small frozen struct for each way to bound it.

Each is `(seen, ratio) -> (loss a token, what was touched by cause)`. `ratio` is pi / pi_prox with
gradient, [B, T] or at the sequence level [B, 1]; A is the sample's advantage, sg a stop-gradient.
Knows nothing of denominators and of corrections for how the samples came about.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mmzero_async.learner.losses.corrections import ImportanceWeight
from mmzero_async.learner.losses.seen import Seen, sum_of_sample

Term = tuple[Tensor, Mapping[str, Tensor]]


class Objective(Protocol):
    def __call__(self, seen: Seen, ratio: Tensor, /) -> Term: ...


@dataclass(frozen=True, slots=True)
class Clip:
    """-min(r A, clip(r, 1 - epsilon, 1 + epsilon_high) A), for A < 0 with r bounded by delta.

    GRPO (DeepSeekMath, arXiv 2402.03300); the higher upper bound is DAPO's (arXiv 2503.14476); the
    two-sided bound delta is that of dual-clip PPO (arXiv 1912.09729) and INTELLECT-2 (arXiv
    2505.07291), as TRL has it. On the sequence's ratio s = exp(mean log r) it is GSPO (arXiv
    2507.18071).
    """

    epsilon: float
    epsilon_high: float
    delta: float = float("inf")

    def __call__(self, seen: Seen, ratio: Tensor) -> Term:
        advantages = seen.advantages
        clipped_ratio = ratio.clamp(1.0 - self.epsilon, 1.0 + self.epsilon_high)
        bounded_ratio = ratio.clamp(max=self.delta)
        loss = -torch.minimum(bounded_ratio * advantages, clipped_ratio * advantages)
        too_low = (ratio < 1.0 - self.epsilon) & (advantages < 0)
        too_high = (ratio > 1.0 + self.epsilon_high) & (advantages > 0)
        beyond_delta = (ratio > self.delta) & (advantages < 0)
        return loss, {"clip_low": too_low, "clip_high": too_high, "delta": beyond_delta}


@dataclass(frozen=True, slots=True)
class Cispo:
    """-sg[min(r, epsilon_max)] A log pi: the weight is capped, no token loses its gradient.

    MiniMax-M1 (arXiv 2506.13585), epsilon_max as in ScaleRL (arXiv 2510.13786) and TRL.
    """

    epsilon_max: float

    def __call__(self, seen: Seen, ratio: Tensor) -> Term:
        weight = ratio.detach().clamp(max=self.epsilon_max)
        return -weight * seen.advantages * seen.logprobs, {"cap": ratio > self.epsilon_max}


@dataclass(frozen=True, slots=True)
class Sapo:
    """-sigmoid(tau (r - 1)) 4 / tau A, tau by the advantage's sign: a clip that fades in.

    SAPO (arXiv 2511.20347), as TRL has it. Its slope at r = 1 is 1, its value there 2 / tau.
    """

    temperature_pos: float
    temperature_neg: float

    def __call__(self, seen: Seen, ratio: Tensor) -> Term:
        positive = seen.advantages > 0
        tau = _by_sign(positive, self.temperature_pos, self.temperature_neg, ratio.dtype)
        soft_ratio = torch.sigmoid(tau * (ratio - 1.0)) * 4.0 / tau
        return -soft_ratio * seen.advantages, {}


@dataclass(frozen=True, slots=True)
class Vespo:
    """-sg[phi(w)] A log pi, phi(w) = e^lambda w^k e^(-lambda w), w = prod_t r_t of the sample.

    VESPO (arXiv 2602.10693), constants by the advantage's sign; phi(1) = 1. As in TRL log w is
    held within [log 1e-8, 20] and lambda is at least 1e-4.

    Without a `weight` the proximal policy must be the behaviour policy. With one, by token,
    w = prod_t pi / pi_prox times prod_t of the weight, as TRL puts the two together beside vLLM:
    a token that the weight masks counts 1e-8.
    """

    k_pos: float
    lambda_pos: float
    k_neg: float
    lambda_neg: float
    weight: ImportanceWeight | None = None

    def __call__(self, seen: Seen, ratio: Tensor) -> Term:
        positive = seen.advantages >= 0
        k = _by_sign(positive, self.k_pos, self.k_neg, ratio.dtype)
        rate = _by_sign(positive, self.lambda_pos, self.lambda_neg, ratio.dtype).clamp(min=1e-4)
        log_ratios, touched = seen.to_proximal.detach(), {}
        if self.weight is not None:
            weights, touched[self.weight.name] = self.weight.of(seen)
            log_ratios = log_ratios + weights.log().clamp(LOG_W_MIN, LOG_W_MAX)
        log_w = sum_of_sample(log_ratios, seen.weighing).clamp(LOG_W_MIN, LOG_W_MAX)
        log_phi = rate + k * log_w - rate * log_w.exp()
        return -log_phi.exp() * seen.advantages * seen.logprobs, touched


LOG_W_MIN, LOG_W_MAX = -18.420680743952367, 20.0  # log 1e-8


@dataclass(frozen=True, slots=True)
class Aipo:
    """-sg[min(r, rho)] A exp(log pi - sg[log pi]): one-sided truncation of pi / mu.

    LlamaRL (arXiv 2505.24034), rho in [2, 10]: value -min(r, rho) A, gradient
    -min(r, rho) A grad log pi. The gradient is CISPO's and token-level TIS's.
    """

    rho: float

    def __call__(self, seen: Seen, ratio: Tensor) -> Term:
        weight = ratio.detach().clamp(max=self.rho)
        surrogate = (seen.logprobs - seen.logprobs.detach()).exp()
        return -weight * seen.advantages * surrogate, {"cap": ratio > self.rho}


@dataclass(frozen=True, slots=True)
class Topr:
    """-sg[w] A log pi: w = 1 where A > 0, w = clip(r, 0, 1) elsewhere.

    Tapered off-policy REINFORCE (arXiv 2503.14286), by token as in ROLL; the paper's own ratio is
    the whole trajectory's.
    """

    def __call__(self, seen: Seen, ratio: Tensor) -> Term:
        positive = seen.advantages > 0
        tapered = ratio.detach().clamp(0.0, 1.0)
        weight = tapered.where(~positive, 1.0)
        return -weight * seen.advantages * seen.logprobs, {"cap": (ratio > 1.0) & ~positive}


@dataclass(frozen=True, slots=True)
class PlainRatio:
    """-r A: importance sampling without a bound. For losses whose masks do all the bounding."""

    def __call__(self, seen: Seen, ratio: Tensor) -> Term:
        return -ratio * seen.advantages, {}


def _by_sign(positive: Tensor, yes: float, no: float, dtype: torch.dtype) -> Tensor:
    return torch.full_like(positive, no, dtype=dtype).masked_fill(positive, yes)
