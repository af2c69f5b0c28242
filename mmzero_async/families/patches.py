"""Pictures of Qwen's vision-language models: any size, cut into patches, all in one tensor.

`pixel_values` is float32 [patches of all pictures, D], `image_grid_thw` int64 [P, 3]: patches in
time, height and width. 2 x 2 patches make an image token; a picture is a run of placeholders.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmzero_async.families.protocol import Pictures, Reader

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

# A Qwen prompt has each picture between these two; the run of pads is its expansion.
IMAGE_TOKENS = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")


def patch_reader(folder: Path, config: Any) -> Reader:
    """Reads pictures with the folder's image processor, all in one call."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    merged = config.vision_config.spatial_merge_size**2

    def read(images: list[Image.Image]) -> Pictures:
        made = processor(images=images, return_tensors="pt")
        grids: Tensor = made["image_grid_thw"].long()
        patches = tuple(grids.prod(-1).tolist())
        return Pictures(
            tensors={"pixel_values": made["pixel_values"].float(), "image_grid_thw": grids},
            rows={"pixel_values": patches, "image_grid_thw": (1,) * len(patches)},
            patches=patches,
            expansions=tuple(
                np.full(count // merged, config.image_token_id, dtype=np.int32) for count in patches
            ),
        )

    return read


def seen(model: Any, pictures: Pictures) -> Any:
    """What the model's `get_image_features` returns for the pictures."""
    device = model.get_input_embeddings().weight.device
    pixels, grids = (pictures.tensors[name].to(device) for name in pictures.rows)
    return model.get_image_features(pixels, grids, return_dict=True)


def positions(model: Any, ids: Tensor, shown: Tensor, pictures: list[int], grids: Tensor) -> Tensor:
    """Places in time, height and width (mrope), int64 [3, B, L]."""
    places: Tensor = model.get_rope_index(
        ids, mm_token_type_ids=shown, image_grid_thw=grids[pictures]
    )[0]
    return places
