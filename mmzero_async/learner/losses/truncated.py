"""The default loss, written out: token-level truncated importance sampling, decoupled.

The same numbers, within rounding, as a recipe of `ImportanceWeight("token", "truncate", 0, C)` and
a ratio of 1; kept as one function because the bits of committed steps are its bits.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmzero_async.learner.losses.figures import TokenSums, of_older
from mmzero_async.learner.losses.penalties import k3
from mmzero_async.learner.losses.seen import LOG_RATIO_LIMIT, Tokens, Whole


@dataclass(frozen=True, slots=True)
class TruncatedImportance:
    """`truncated_importance_loss` with its two constants: `learner.is_cap`, `.kl_coefficient`."""

    cap: float
    kl_coefficient: float = 0.0

    @property
    def needs_reference(self) -> bool:
        return self.kl_coefficient > 0.0

    @property
    def needs_proximal(self) -> bool:
        return False

    @property
    def second_moment_threshold(self) -> float | None:
        return None

    def __call__(self, tokens: Tokens, whole: Whole) -> tuple[Tensor, TokenSums]:
        return truncated_importance_loss(
            tokens.logprobs,
            tokens.behaviour,
            tokens.mask,
            tokens.advantages,
            cap=self.cap,
            tokens=whole.tokens,
            reference=tokens.reference,
            kl_coefficient=self.kl_coefficient,
            staleness=tokens.staleness,
        )


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
    staleness: Tensor | None = None,
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
        staleness: int64 [B, T], versions that a token is old, for the figures.

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
                of_older(mask, staleness) & (ratio > cap),
            )
        ]
    )
    *found, older_clipped = sums.tolist()
    return loss, replace(TokenSums(*found), older_touched={"clipped": older_clipped})
