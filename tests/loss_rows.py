"""Rows of a window as a loss takes them: padded tensors, the window's sums, value and gradient."""

import torch
from slow_losses import Row
from torch import Tensor

from mmzero_async.learner.losses import Loss, Tokens, TokenSums, Whole
from mmzero_async.learner.losses.corrections import second_moment_cutoff, squares
from mmzero_async.learner.losses.seen import look

LONGEST = 7


def tensors(rows: list[Row], fill: float = 0.0) -> Tokens:
    """Rows padded with `fill`, in float64, so that formula and derivative compare closely."""
    width = max(map(len, rows))

    def padded(values: list[list[float]], filling: float) -> Tensor:
        return torch.tensor(
            [[*v, *[filling] * (width - len(v))] for v in values], dtype=torch.float64
        )

    return Tokens(
        logprobs=padded([r.new for r in rows], fill).requires_grad_(True),
        behaviour=padded([r.old for r in rows], fill),
        mask=torch.tensor([[t < len(r) for t in range(width)] for r in rows]),
        advantages=torch.tensor([r.advantage for r in rows], dtype=torch.float64),
        reference=padded([r.base for r in rows], fill),
        staleness=padded([r.age for r in rows], 0).long(),
    )


def whole(loss: Loss, rows: list[Row]) -> Whole:
    cutoff = None
    if loss.second_moment_threshold is not None:
        tokens = tensors(rows)
        found = squares(look(tokens, tokens.behaviour).departure)[tokens.mask]
        cutoff = second_moment_cutoff(found, loss.second_moment_threshold)
    return Whole(sum(map(len, rows)), len(rows), LONGEST, cutoff)


def taken(
    loss: Loss, rows: list[Row], of: Whole, fill: float = 0.0
) -> tuple[float, Tensor, TokenSums]:
    tokens = tensors(rows, fill)
    value, sums = loss(tokens, of)
    (gradient,) = torch.autograd.grad(value, tokens.logprobs)
    return value.item(), gradient, sums
