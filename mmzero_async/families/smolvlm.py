"""SmolVLM and SmolVLM2 (Idefics3): every picture as square tiles and, last, the whole at tile size.

`pixel_values` is float32 [tiles of all pictures, 3, S, S]. Each tile is the same number of image
tokens, behind a mark of its row and column:

    <fake_token_around_image><row_1_col_1><image>...<image><fake_token_around_image><row_1_col_2>...
    \\n ... \\n\\n<fake_token_around_image><global-img><image>...<image><fake_token_around_image>
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmzero_async.families.protocol import LORA_LAYERS, Dtype, Pictures, Reader, Views, embedded

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

_AROUND, _IMAGE, _WHOLE = "<fake_token_around_image>", "<image>", "<global-img>"


@dataclass(frozen=True, slots=True)
class SmolVLM:
    name: str = "SmolVLM"
    model_types: tuple[str, ...] = ("idefics3", "smolvlm")
    image_tokens: tuple[str, ...] = (_AROUND, _IMAGE, _WHOLE, "<row_1_col_1>")
    lora_targets: str = rf"(.*\.)?text_model\.{LORA_LAYERS}"
    vision: str = r"(.*\.)?(vision_model|connector)\..*"

    def load(self, folder: Path, dtype: Dtype) -> Any:
        from transformers import AutoModelForImageTextToText

        return AutoModelForImageTextToText.from_pretrained(
            folder, dtype=dtype, local_files_only=True
        )

    def words(self, model: Any) -> Any:
        return model.text_model

    def reader(self, folder: Path, config: Any) -> Reader:
        """Pictures go through the processor one by one: together it would pad their tiles."""
        import torch
        from transformers import AutoImageProcessor, AutoTokenizer

        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        words = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        patches = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
        tokens = patches // config.scale_factor**2

        def read(images: list[Image.Image]) -> Pictures:
            made = [
                processor(images=[[image]], return_row_col_info=True, return_tensors="pt")
                for image in images
            ]
            if not all(one["pixel_attention_mask"].all() for one in made):
                raise ValueError("a tile has padding: the processor must make pictures fill them")
            tiles = tuple(int(one["pixel_values"].shape[1]) for one in made)
            texts = [expansion(one["rows"][0][0], one["cols"][0][0], tokens) for one in made]
            return Pictures(
                tensors={
                    "pixel_values": torch.cat([one["pixel_values"][0].float() for one in made])
                },
                rows={"pixel_values": tiles},
                patches=tuple(count * patches for count in tiles),
                expansions=tuple(
                    np.array(words.encode(text, add_special_tokens=False), dtype=np.int32)
                    for text in texts
                ),
            )

        return read

    def see(self, model: Any, pictures: Pictures) -> tuple[list[Tensor], ...]:
        """The tower part by part, as transformers' own forward pass in float32.

        That drops a tile which is mid-gray all over, and in bfloat16 it rounds patches into their
        neighbours' places: places of a full tile are their numbers.
        """
        tower = model.vision_model
        pixels = pictures.tensors["pixel_values"].to(tower.device, tower.dtype)
        patches = tower.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        placed = patches + tower.embeddings.position_embedding.weight
        states = tower.post_layernorm(tower.encoder(inputs_embeds=placed).last_hidden_state)
        joined = model.connector(states)  # [tiles, tokens a tile, hidden]
        return ([part.flatten(0, 1) for part in joined.split(pictures.rows["pixel_values"])],)

    def hidden(
        self, model: Any, ids: Tensor, shown: Tensor, pictures: Sequence[int], views: Views | None
    ) -> Tensor:
        embeddings = embedded(model, ids, shown, pictures, views)
        output = self.words(model)(inputs_embeds=embeddings, use_cache=False)
        states: Tensor = output.last_hidden_state
        return states


def expansion(rows: int, columns: int, tokens: int) -> str:
    """A picture of rows x columns tiles (0 x 0: the whole alone), each of so many image tokens."""
    lines = [
        "".join(f"{_AROUND}<row_{r}_col_{c}>{_IMAGE * tokens}" for c in range(1, columns + 1))
        for r in range(1, rows + 1)
    ]
    before = "\n".join([*lines, "\n"]) if lines else ""
    return f"{before}{_AROUND}{_WHOLE}{_IMAGE * tokens}{_AROUND}"


FAMILY = SmolVLM()
