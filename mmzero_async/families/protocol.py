"""What the learner asks of a family of models, and what passes between them.

Nothing here loads torch: a start looks a model's folder up long before anything computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

Dtype = Literal["float32", "bfloat16"]

# Layers of a Llama-shaped language model that carry LoRA; vLLM serves no adapter elsewhere.
LORA_LAYERS = r"layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"


@dataclass(frozen=True, slots=True)
class Pictures:
    """P pictures as a family's vision tower takes them."""

    tensors: dict[str, Tensor]  # by their names in transformers' forward; one is `pixel_values`
    rows: dict[str, tuple[int, ...]]  # P numbers a tensor: how many of its rows each picture has
    patches: tuple[int, ...]  # P, what the vision tower computes over
    expansions: tuple[npt.NDArray[np.int32], ...]  # P, all tokens that stand for it in a prompt

    def part(self, first: int, last: int) -> Pictures:
        """The pictures from `first` until before `last`."""
        tensors = {}
        for name, tensor in self.tensors.items():
            start = sum(self.rows[name][:first])
            tensors[name] = tensor[start : start + sum(self.rows[name][first:last])]
        return Pictures(
            tensors,
            {name: rows[first:last] for name, rows in self.rows.items()},
            self.patches[first:last],
            self.expansions[first:last],
        )

    def chosen(self, places: Sequence[int]) -> Pictures:
        """Those of the places, one at least, in that order."""
        import torch

        parts = [self.part(place, place + 1) for place in places]
        return Pictures(
            {name: torch.cat([part.tensors[name] for part in parts]) for name in self.tensors},
            {name: tuple(rows[place] for place in places) for name, rows in self.rows.items()},
            tuple(self.patches[place] for place in places),
            tuple(self.expansions[place] for place in places),
        )

    def grayed(self) -> Pictures:
        """The same pictures without what they show: zero is the mean colour when normalised."""
        pixels = self.tensors["pixel_values"]
        return replace(
            self, tensors={**self.tensors, "pixel_values": pixels.new_zeros(pixels.shape)}
        )


@dataclass(frozen=True, slots=True)
class Views:
    """What a vision tower makes of pictures.

    `levels[0]` stands in the place of the placeholders' embeddings; what deeper levels mean is
    known to the family alone.
    """

    pictures: Pictures
    levels: tuple[list[Tensor], ...]  # a level, a picture: [k, hidden], k its image tokens


Reader = Callable[["list[Image.Image]"], Pictures]  # RGB pictures; ValueError for a shape refused


class Family(Protocol):
    """All that depends on the family. One file each; `mmzero_async.families` lists them."""

    @property
    def name(self) -> str: ...

    @property
    def model_types(self) -> tuple[str, ...]:
        """`model_type` of the config.json files that are this family's."""

    @property
    def image_tokens(self) -> tuple[str, ...]:
        """Tokens without which pictures have no place in a prompt."""

    @property
    def lora_targets(self) -> str:
        """Regular expression over module names: the layers that carry LoRA."""

    @property
    def vision(self) -> str:
        """Regular expression over parameter names: vision tower and what joins it to the words."""

    def load(self, folder: Path, dtype: Dtype) -> Any:
        """transformers' model of the folder: `.model`, `.lm_head` and `.config`. No download."""

    def words(self, model: Any) -> Any:
        """The language model within the loaded model's `.model`, the module of its layers."""

    def reader(self, folder: Path, config: Any) -> Reader:
        """How pictures are read under the folder's own image processor."""

    def see(self, model: Any, pictures: Pictures) -> tuple[list[Tensor], ...]:
        """The vision tower's `Views.levels`; `model` is the loaded model's `.model`."""

    def hidden(
        self, model: Any, ids: Tensor, shown: Tensor, pictures: Sequence[int], views: Views | None
    ) -> Tensor:
        """Last hidden states [B, L, hidden] of right-padded rows.

        ids int64 [B, L]; shown int32 [B, L], 1 on placeholders of pictures: no other token is one,
        also if a policy sampled it; pictures, row by row, indices into `views`.
        """


def embedded(
    model: Any, ids: Tensor, shown: Tensor, pictures: Sequence[int], views: Views | None
) -> Tensor:
    """Embeddings [B, L, hidden] of the ids, the pictures' own in the places of placeholders."""
    embeddings: Tensor = model.get_input_embeddings()(ids)
    if not pictures or views is None:
        return embeddings
    seen = joined(views.levels[0], pictures).to(embeddings.dtype)
    return embeddings.masked_scatter((shown == 1)[..., None], seen)


def joined(level: Sequence[Tensor], pictures: Sequence[int]) -> Tensor:
    """[k of all, hidden]: a level's pictures one after the other."""
    import torch

    return torch.cat([level[i] for i in pictures])
