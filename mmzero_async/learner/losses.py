"""Losses of one window: pure functions from log-probabilities to a scalar and its figures.

A loss knows no model, no role and no log. One function a loss; every one keeps the original token
count in its denominator, whatever it masks or clips, so micro-batches add up to the window.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

LOG_RATIO_LIMIT = 20.0  # exp(20) is still finite in float32 after squaring


@dataclass(frozen=True, slots=True)
class TokenSums:
    """Sums over the loss mask; two micro-batches' sums add. Ratios are untruncated."""

    tokens: float = 0.0
    loss: float = 0.0  # already divided by the window's token count
    ratio: float = 0.0
    ratio_squared: float = 0.0
    clipped: float = 0.0
    mismatch_kl: float = 0.0
    prob_error: float = 0.0
    surprise: float = 0.0
    kl: float = 0.0

    def __add__(self, other: "TokenSums") -> "TokenSums":
        return TokenSums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def metrics(self) -> dict[str, float]:
        """Means over tokens.

        - ratio_mean: mean r = pi / mu; 1 on policy.
        - clipped_share: share of tokens whose weight was truncated.
        - mismatch_kl: mean (r - log r - 1), the k3 estimate of KL(mu || pi).
        - token_mult_prob_error: mean exp|log r|; healthy up to 1.05 at the same version.
        - ess_share: (sum r)^2 / (N sum r^2); 1 on policy, alarming below 0.9.
        - entropy: mean -log pi of the sampled tokens, an estimate that is exact on policy.
        - kl: mean k3 estimate of KL(pi || base); 0 where it was not asked for.
        """
        n = max(self.tokens, 1.0)
        return {
            "tokens": self.tokens,
            "ratio_mean": self.ratio / n,
            "clipped_share": self.clipped / n,
            "mismatch_kl": self.mismatch_kl / n,
            "token_mult_prob_error": self.prob_error / n,
            "ess_share": self.ratio**2 / (n * self.ratio_squared) if self.ratio_squared else 0.0,
            "entropy": self.surprise / n,
            "kl": self.kl / n,
        }


def truncated_importance_loss(
    logprobs: Tensor,
    behaviour: Tensor,
    mask: Tensor,
    advantages: Tensor,
    *,
    cap: float,
    tokens: int,
    reference: Tensor | None = None,
    kl_coefficient: float = 0.0,
) -> tuple[Tensor, TokenSums]:
    """Token-level truncated importance sampling, decoupled, for one optimiser step a window.

    `L = -1/N sum_t m_t sg[min(pi_t / mu_t, C)] A exp(log pi_t - sg[log pi_t])  (+ c k3_t)`

    With one step a window the proximal policy is the current one, pi_prox = sg[pi]: the decoupled
    objective of AReaL (arXiv 2505.24298) without a clip to fall into, its behaviour weight
    truncated at C as in TIS (Yao et al. 2025; verl, slime). Its value is that of the plain
    weighted advantage, its gradient `-min(r, C) A grad log pi`. N is the token count of the whole
    window (DAPO, arXiv 2503.14476: every token weighs the same; TRL's `loss_type="dapo"`).
    k3 = e^x - x - 1 with x = log pi_base - log pi (Schulman 2020), not importance-weighted, as in
    GRPO (arXiv 2402.03300).

    Args:
        logprobs: [B, T] log pi of the sampled tokens, with gradient.
        behaviour: [B, T] log mu as the engine reported them, same temperature.
        mask: [B, T] bool, true on sampled tokens; elsewhere values are ignored, even NaN.
        advantages: [B], one a sample.
        cap: C; infinity for untruncated weights.
        tokens: N, sampled tokens in the window that this micro-batch belongs to.
        reference: [B, T] log pi_base without gradient; needed when kl_coefficient > 0.

    Returns:
        The scalar loss (this micro-batch's share of the window's) and the sums for its figures.
    """
    # Zeros under the mask keep garbage at padded places out of values and gradients.
    logprobs = torch.where(mask, logprobs, 0.0)
    behaviour = torch.where(mask, behaviour, 0.0)
    weighing = mask.to(logprobs.dtype)

    log_ratio = (logprobs.detach() - behaviour).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio = log_ratio.exp()
    weight = ratio.clamp(max=cap)
    surrogate = (logprobs - logprobs.detach()).exp()
    per_token = -weight * advantages[:, None] * surrogate

    kl = torch.zeros_like(logprobs)
    if kl_coefficient > 0.0:
        if reference is None:
            raise ValueError("kl_coefficient > 0 needs the base's log-probabilities (reference)")
        kl = k3(logprobs, torch.where(mask, reference, 0.0))
        per_token = per_token + kl_coefficient * kl

    loss = (per_token * weighing).sum() / tokens
    sums = torch.stack(
        [
            (term.detach().double() * weighing).sum()
            for term in (
                torch.ones_like(ratio),
                per_token / tokens,
                ratio,
                ratio.double().square(),
                (ratio > cap).to(ratio.dtype),
                ratio - log_ratio - 1.0,
                log_ratio.abs().exp(),
                -logprobs,
                kl,
            )
        ]
    )
    return loss, TokenSums(*sums.tolist())


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Low-variance estimate of KL(pi || base) a token, never negative. Any shape, both alike."""
    x = (reference - logprobs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return x.exp() - x - 1.0
