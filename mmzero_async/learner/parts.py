"""Tensors of which this process has a part alone (fsdp.py), beside those that it has whole.

To ask for the whole of one is a conversation: every rank must ask for the same, in the same order.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def is_part(tensor: Tensor) -> bool:
    """Whether other ranks have the rest: torch's DTensor, not named here, for a learner of one
    process loads nothing of torch.distributed."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """All of it."""
    it: Any = tensor
    return it.full_tensor() if is_part(tensor) else tensor


def held(tensor: Tensor) -> Tensor:
    """What of it lies in this process, in the same memory."""
    it: Any = tensor
    return it.to_local() if is_part(tensor) else tensor


def as_part(values: Tensor, of: Tensor) -> Tensor:
    """Whole values where `of` is, or of them the part that this process has of it. Moves nothing
    between ranks: all of them have the values."""
    values = values.to(of.device)
    if not is_part(of):
        return values
    from torch.distributed.tensor import distribute_tensor

    it: Any = of
    return distribute_tensor(values, it.device_mesh, it.placements, src_data_rank=None)


def optimised(parameters: Iterable[Tensor]) -> list[dict[str, Any]]:
    """An optimiser's groups: what is whole and what is a part do not mix in one operation."""
    found: dict[bool, list[Tensor]] = {}
    for parameter in parameters:
        found.setdefault(is_part(parameter), []).append(parameter)
    return [{"params": group} for group in found.values()]


@torch.no_grad()
def clip(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scales gradients down to a norm, and returns the one that they had: `clip_grad_norm_`, with
    each gradient's norm taken of the whole, so that it has the same bits however it is divided."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return 0.0
    norms = [torch.linalg.vector_norm(whole(gradient)) for gradient in gradients]
    total = torch.linalg.vector_norm(torch.stack(norms))
    scale = torch.clamp(max_norm / (total + 1e-6), max=1.0)
    for gradient in gradients:
        held(gradient).mul_(scale)
    return float(total)
