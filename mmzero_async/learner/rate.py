"""The step size of one optimiser step: a role's own, warmed up, and less when few samples count.

Pure arithmetic of the configuration, the version and the window's figures, so a step that is taken
again has the same rate to the bit.
"""

import math
from dataclasses import dataclass, fields

import torch

from mmzero_async.config import LearnerConfig, RoleLearning
from mmzero_async.learner.losses.seen import Tokens, bounded


@dataclass(frozen=True, slots=True)
class SampleSums:
    """Sums over samples of w = prod_t pi / mu; two micro-batches' sums add."""

    samples: float = 0.0
    weight: float = 0.0
    weight_squared: float = 0.0

    def __add__(self, other: "SampleSums") -> "SampleSums":
        return SampleSums(
            *[getattr(self, f.name) + getattr(other, f.name) for f in fields(SampleSums)]
        )

    @property
    def effective(self) -> float:
        """rho_ess = (sum w)^2 / (B sum w^2): 1 when all weigh alike, 1 / B when one weighs all."""
        if not self.weight_squared:
            return 1.0
        return self.weight**2 / (self.samples * self.weight_squared)


def sample_sums(tokens: Tokens) -> SampleSums:
    """Of a micro-batch's samples with tokens in the loss; log w is kept within the usual bounds."""
    log_ratio = torch.where(tokens.mask, tokens.logprobs.detach() - tokens.behaviour, 0.0)
    weight = bounded(log_ratio.double().sum(-1)).exp()[tokens.mask.any(-1)]
    return SampleSums(float(len(weight)), float(weight.sum()), float(weight.square().sum()))


def rate(config: LearnerConfig, learning: RoleLearning, steps: int, sums: SampleSums) -> float:
    """lr * warm-up * sqrt(rho_ess / rho_0), both factors at most 1.

    Warm-up: (steps + 1) / warmup_steps, `steps` those that the role has behind it. The last factor
    is VCPO's (arXiv 2602.17616, its step size alone), rho_0 = `learner.lr_by_ess`; 0: none.
    """
    found = learning.lr
    if learning.warmup_steps > steps:
        found *= (steps + 1) / learning.warmup_steps
    if config.lr_by_ess > 0.0:
        found *= min(1.0, math.sqrt(sums.effective / config.lr_by_ess))
    return found
