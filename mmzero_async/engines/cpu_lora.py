"""LoRA on vLLM's CPU engine, one matrix product an adapter instead of one copy a token.

Loaded inside vLLM's worker by `--worker-extension-cls`; nothing else may import it. vLLM 0.32's
own CPU operators gather a whole adapter matrix for every token, and index it with -1 for tokens
without an adapter, which is the last slot: base-model rows in a mixed batch then run under whatever
adapter lies there. Here each adapter's tokens are multiplied together and the others left alone.
"""

from typing import Any

from torch import Tensor
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform


class GroupedLora(PunicaWrapperCPU):  # type: ignore[misc]
    """vLLM's CPU wrapper with its two products replaced; names and signatures are vLLM's."""

    _groups: list[tuple[int, Tensor | None]] | None = None

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        super().update_metadata(*args, **kwargs)
        self._groups = None

    def groups(self) -> list[tuple[int, Tensor | None]]:
        """Each adapter slot of this batch with its tokens' rows, int64 [t]; None for all rows."""
        if self._groups is None:
            slots = self.token_lora_indices
            used = [slot for slot in slots.unique().tolist() if slot >= 0]
            if len(used) == 1 and bool((slots == used[0]).all()):
                self._groups = [(used[0], None)]
            else:
                self._groups = [(slot, (slots == slot).nonzero().squeeze(1)) for slot in used]
        return self._groups

    def _apply_shrink(self, y: Tensor, x: Tensor, w_t_all: Tensor, scale: float) -> None:
        """y[rows] = scale * x[rows] @ A.T; y [tokens, rank] float32, A [slots, 1, rank, in]."""
        y = y.view(-1, y.shape[-1])
        for slot, rows in self.groups():
            a = w_t_all[slot].squeeze(0)
            part = x if rows is None else x[rows]
            low = (part @ a.T).to(y.dtype).mul_(scale)
            if rows is None:
                y[:, : low.shape[1]] = low
            else:
                y[rows, : low.shape[1]] = low

    def _apply_expand(
        self,
        y: Tensor,
        x: Tensor,
        w_t_all: Tensor,
        y_offset: int,
        y_slice_size: int,
        add_inputs: bool = True,
    ) -> None:
        """y[rows, slice] += x[rows] @ B.T; x [tokens, rank] float32, B [slots, 1, out, rank]."""
        into = y[:, y_offset : y_offset + y_slice_size]
        for slot, rows in self.groups():
            b = w_t_all[slot].squeeze(0)
            part = x if rows is None else x[rows]
            out = part.to(y.dtype) @ b.to(y.dtype).T
            if rows is None:
                into.add_(out) if add_inputs else into.copy_(out)
            elif add_inputs:
                into.index_add_(0, rows, out)
            else:
                into[rows] = out


def _wrapper(platform: type) -> str:
    return f"{__name__}.{GroupedLora.__name__}"


class Extension:
    """What vLLM mixes into its worker. It adds nothing there: importing this file is the point."""


if current_platform.is_cpu():
    type(current_platform).get_punica_wrapper = classmethod(_wrapper)
