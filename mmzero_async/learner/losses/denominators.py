"""Denominators: what a token counts in the window's loss. Masked tokens count as before.

Knows lengths alone. Every weight refers to the whole window, so micro-batches add up.
"""

from typing import Literal

import torch
from torch import Tensor

from mmzero_async.learner.losses.seen import Whole

Denominator = Literal["tokens", "samples", "length", "sums"]


def token_share(mask: Tensor, whole: Whole, by: Denominator, dtype: torch.dtype) -> Tensor:
    """[B, 1]: by what the loss of each token of a sample is multiplied before all are summed.

    - "tokens", 1 / N: every token of the window alike. DAPO (arXiv 2503.14476); TRL's dapo, cispo,
      vespo, and bnpo where a batch is a window.
    - "samples", 1 / (B |m_i|): every sample alike, so a long one's tokens count less. GRPO (arXiv
      2402.03300); TRL's grpo and sapo. A sample without tokens counts as one.
    - "length", 1 / (B L), L the constant longest completion: no bias by length. Dr. GRPO (arXiv
      2503.20783); TRL's dr_grpo and `max_completion_length`.
    - "sums", 1 / B: a sample's tokens are summed. LUSPO (arXiv 2602.05261); TRL's luspo.
    """
    lengths = mask.sum(-1, keepdim=True)
    match by:
        case "tokens":
            shares = torch.full_like(lengths, 1.0 / whole.tokens, dtype=dtype)
        case "samples":
            shares = 1.0 / (whole.samples * lengths.clamp(min=1)).to(dtype)
        case "length":
            if whole.max_completion_length < 1:
                raise ValueError("a constant denominator needs max_completion_length")
            constant = whole.samples * whole.max_completion_length
            shares = torch.full_like(lengths, 1.0 / constant, dtype=dtype)
        case "sums":
            shares = torch.full_like(lengths, 1.0 / whole.samples, dtype=dtype)
    return shares
