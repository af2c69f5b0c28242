"""Layers divided among the processes (FSDP2), their gradients added up in the order of the ranks.

FSDP's own reduce-scatter adds in whatever order its backend likes; a step could then be taken again
by nobody else to the bit (docs/adr/0016-sharded-gradients-in-order-too.md).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def shard(layers: Iterable[nn.Module], device: str, ignored: Iterable[nn.Parameter]) -> None:
    """Each rank keeps its rows of every matrix of a layer, and gathers a layer to use it. `ignored`
    parameters stay whole, and nothing is done with their gradients."""
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    left = set(ignored)
    for layer in layers:
        it: Any = fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=left)
        it.set_custom_reduce_scatter(InOrder())
        it.set_gradient_divide_factor(1.0)
        it.set_force_sum_reduction_for_comms(True)


class InOrder:
    """A reduce-scatter: everybody is told all ranks' gradients of his rows and adds them, rank by
    rank, so that it is the sum that `Ranks(n)` makes. No more moves than in any other; only the
    additions are not made on the way."""

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: dist.ProcessGroup,
        op: object,  # a sum: `shard` forces it
        async_op: bool = False,
    ) -> None:
        of_ranks = torch.empty_like(input_tensor)
        dist.all_to_all_single(of_ranks, input_tensor, group=group)
        first, *others = torch.chunk(of_ranks, group.size())
        output_tensor.copy_(first)
        for other in others:
            output_tensor.add_(other)
