"""Penalties added to a token's loss: divergence from the base, distance from the behaviour policy.

Each is a small frozen struct, `(seen, tokens, ratio) -> [B, T]`, with gradient, never weighed or
masked by a correction.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mmzero_async.learner.losses.seen import LOG_RATIO_LIMIT, Seen, Tokens


class Penalty(Protocol):
    @property
    def coefficient(self) -> float: ...

    def __call__(self, seen: Seen, tokens: Tokens, ratio: Tensor, /) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class ReferenceKL:
    """k3 against the base (Schulman 2020; GRPO, arXiv 2402.03300), TRL's `beta`.

    With `bias_correction` (DeepSeek-V3.2, arXiv 2512.02556; TRL's `use_bias_correction_kl`) times
    pi / pi_prox with its gradient, which makes the gradient that of the reverse KL itself. Off
    policy that is unbiased only where pi_prox is the behaviour policy.
    """

    coefficient: float
    bias_correction: bool = False

    def __call__(self, seen: Seen, tokens: Tokens, ratio: Tensor) -> Tensor:
        if tokens.reference is None:
            raise ValueError("a KL term needs the base's log-probabilities (reference)")
        divergence = k3(seen.logprobs, torch.where(seen.mask, tokens.reference, 0.0))
        return divergence * ratio if self.bias_correction else divergence


@dataclass(frozen=True, slots=True)
class SquaredLogRatio:
    """(log pi - log mu)^2: pulls back where the policy has left the samples. DPPO, PRIME-RL: 1e-3.

    The proximal policy must be the behaviour policy.
    """

    coefficient: float

    def __call__(self, seen: Seen, tokens: Tokens, ratio: Tensor) -> Tensor:
        return seen.to_proximal.square()


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Low-variance estimate of KL(pi || base) a token, never negative. Any shape, both alike."""
    x = (reference - logprobs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return x.exp() - x - 1.0
