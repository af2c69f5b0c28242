"""What a loss is given: the rows of a micro-batch, the window they belong to, and their ratios.

Knows shapes, no formula of any loss. Garbage at padded places, NaN included, ends here: behind
`look` every masked-out place has probability 1 under all policies.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

LOG_RATIO_LIMIT = 20.0  # exp(20) is still finite in float32 after squaring


@dataclass(frozen=True, slots=True)
class Tokens:
    """Rows of one forward pass: B samples, T tokens of the longest."""

    logprobs: Tensor  # [B, T] log pi of the sampled tokens, with gradient
    behaviour: Tensor  # [B, T] log mu as the engine reported them, same temperature
    mask: Tensor  # [B, T] bool, true on sampled tokens; elsewhere values are ignored, even NaN
    advantages: Tensor  # [B], one a sample
    reference: Tensor | None = None  # [B, T] log pi_base without gradient, for a KL term
    staleness: Tensor | None = None  # int64 [B, T], versions from the token's to the current one
    proximal: Tensor | None = None  # [B, T] log pi_prox of a forward pass, without gradient


@dataclass(frozen=True, slots=True)
class Whole:
    """What a loss must know of the window that its rows are a part of."""

    tokens: int  # sampled tokens, whatever is masked: N
    samples: int  # rows, empty ones too: B
    max_completion_length: int = 0  # for a denominator that no sample's length enters
    second_moment_cutoff: float | None = None  # M2PO's, from all tokens


@dataclass(frozen=True, slots=True)
class Seen:
    """Log-ratios of the policies at the sampled tokens, 0 elsewhere, within +-LOG_RATIO_LIMIT."""

    logprobs: Tensor  # [B, T] log pi, with gradient
    behaviour: Tensor  # [B, T] log mu
    mask: Tensor  # [B, T] bool
    weighing: Tensor  # [B, T] the mask as numbers
    advantages: Tensor  # [B, 1]
    to_proximal: Tensor  # [B, T] log pi - log pi_prox, with gradient: what the objective moves
    from_behaviour: Tensor  # [B, T] log pi_prox - log mu, constant: what was off when it began
    departure: Tensor  # [B, T] log pi - log mu, constant: both together


def look(tokens: Tokens, proximal: Tensor) -> Seen:
    """The ratios of the three policies. `proximal`: [B, T] log pi_prox, without gradient."""
    mask = tokens.mask
    logprobs = torch.where(mask, tokens.logprobs, 0.0)
    behaviour = torch.where(mask, tokens.behaviour, 0.0)
    proximal = torch.where(mask, proximal, 0.0)
    return Seen(
        logprobs=logprobs,
        behaviour=behaviour,
        mask=mask,
        weighing=mask.to(logprobs.dtype),
        advantages=tokens.advantages[:, None],
        to_proximal=bounded(logprobs - proximal),
        from_behaviour=bounded(proximal - behaviour),
        departure=bounded(logprobs.detach() - behaviour),
    )


def bounded(log_ratio: Tensor) -> Tensor:
    return log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def mean_of_sample(values: Tensor, weighing: Tensor) -> Tensor:
    """[B, 1] mean over each sample's tokens; 0 for a sample without any."""
    return (values * weighing).sum(-1, keepdim=True) / weighing.sum(-1, keepdim=True).clamp(min=1.0)


def sum_of_sample(values: Tensor, weighing: Tensor) -> Tensor:
    """[B, 1] sum over each sample's tokens."""
    return (values * weighing).sum(-1, keepdim=True)
