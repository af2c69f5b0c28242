"""Qwen2.5-VL, and MiMo-VL, which has its architecture and its processor with other words before.

Patches of 14 pixels, windowed attention in the vision tower, and one level of what is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmzero_async.families import patches
from mmzero_async.families.protocol import LORA_LAYERS, Dtype, Pictures, Reader, Views, embedded

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Qwen25VL:
    name: str = "Qwen2.5-VL"
    model_types: tuple[str, ...] = ("qwen2_5_vl",)
    image_tokens: tuple[str, ...] = patches.IMAGE_TOKENS
    lora_targets: str = rf"(.*\.)?language_model\.{LORA_LAYERS}"
    vision: str = r"(.*\.)?visual\..*"

    def load(self, folder: Path, dtype: Dtype) -> Any:
        from transformers import Qwen2_5_VLForConditionalGeneration

        return Qwen2_5_VLForConditionalGeneration.from_pretrained(
            folder, dtype=dtype, local_files_only=True
        )

    def words(self, model: Any) -> Any:
        return model.language_model

    def reader(self, folder: Path, config: Any) -> Reader:
        return patches.patch_reader(folder, config)

    def see(self, model: Any, pictures: Pictures) -> tuple[list[Tensor], ...]:
        return (list(patches.seen(model, pictures).pooler_output),)

    def hidden(
        self, model: Any, ids: Tensor, shown: Tensor, pictures: Sequence[int], views: Views | None
    ) -> Tensor:
        places = None
        if pictures and views is not None:
            grids = views.pictures.tensors["image_grid_thw"]
            places = patches.positions(model, ids, shown, list(pictures), grids)
        output = self.words(model)(
            inputs_embeds=embedded(model, ids, shown, pictures, views),
            position_ids=places,
            use_cache=False,
        )
        states: Tensor = output.last_hidden_state
        return states


FAMILY = Qwen25VL()
