"""Qwen3-VL, and the seedling, which has its shape.

Its language model takes pictures at several depths (deepstack): level 0 replaces the placeholders'
embeddings, each further level is added at the same places after one more block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmzero_async.families import patches
from mmzero_async.families.protocol import (
    LORA_LAYERS,
    Dtype,
    Pictures,
    Reader,
    Views,
    embedded,
    joined,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Qwen3VL:
    name: str = "Qwen3-VL"
    model_types: tuple[str, ...] = ("qwen3_vl",)
    image_tokens: tuple[str, ...] = patches.IMAGE_TOKENS
    lora_targets: str = rf"(.*\.)?language_model\.{LORA_LAYERS}"
    vision: str = r"(.*\.)?visual\..*"

    def load(self, folder: Path, dtype: Dtype) -> Any:
        from transformers import Qwen3VLForConditionalGeneration

        return Qwen3VLForConditionalGeneration.from_pretrained(
            folder, dtype=dtype, local_files_only=True
        )

    def words(self, model: Any) -> Any:
        return model.language_model

    def reader(self, folder: Path, config: Any) -> Reader:
        return patches.patch_reader(folder, config)

    def see(self, model: Any, pictures: Pictures) -> tuple[list[Tensor], ...]:
        found = patches.seen(model, pictures)
        return (list(found.pooler_output), *map(list, found.deepstack_features))

    def hidden(
        self, model: Any, ids: Tensor, shown: Tensor, pictures: Sequence[int], views: Views | None
    ) -> Tensor:
        embeddings = embedded(model, ids, shown, pictures, views)
        places = visual = deepstack = None
        if pictures and views is not None:
            visual = shown == 1
            deepstack = [joined(level, pictures) for level in views.levels[1:]]
            grids = views.pictures.tensors["image_grid_thw"]
            places = patches.positions(model, ids, shown, list(pictures), grids)
        output = self.words(model)(
            inputs_embeds=embeddings,
            position_ids=places,
            visual_pos_masks=visual,
            deepstack_visual_embeds=deepstack,
            use_cache=False,
        )
        states: Tensor = output.last_hidden_state
        return states


FAMILY = Qwen3VL()
