"""Floating point operations that a step asks for, from the model's shape and the rows alone.

The model's own operations, as in model FLOP utilisation (PaLM, arXiv 2204.02311): padding and
recomputation count nothing, so that saving them raises the utilisation. A multiplication and an
addition are two operations; norms, rotations and activations are left out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mmzero_async.learner.batch import Batch

# Dense bfloat16 by the data sheets, operations a second; matched as a part of the device's name.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}


@dataclass(frozen=True)
class Row:
    """One sample: prompt and completion together, and how many of them were sampled."""

    tokens: int
    sampled: int


def rows(batch: Batch) -> list[Row]:
    found = []
    for micro in batch.micro_batches:
        sampled = micro.mask.sum(dim=1)
        lengths = (micro.prompt_lengths + sampled).tolist()
        found += [Row(a, b) for a, b in zip(lengths, sampled.tolist(), strict=True)]
    return found


def step_flops(config: Any, rank: int, rows: Iterable[Row], pictures: Iterable[int]) -> float:
    """Of forward and backward of a window with LoRA on a frozen Qwen3-VL.

    `config` is the model's (Qwen3VLConfig), `pictures` the patches of each different picture: the
    vision tower carries no LoRA, so one forward pass a picture is all that is needed.
    """
    listed = list(rows)
    return _text(config.text_config, rank, listed) + sum(
        _picture(config.vision_config, patches) for patches in pictures
    )


def _text(text: Any, rank: int, rows: list[Row]) -> float:
    tokens, sampled = sum(row.tokens for row in rows), sum(row.sampled for row in rows)
    hidden, wide = text.hidden_size, text.intermediate_size
    q = text.num_attention_heads * text.head_dim
    kv = text.num_key_value_heads * text.head_dim
    own = [(hidden, q), (hidden, kv), (hidden, kv), (q, hidden)]
    shapes = [*own, (hidden, wide), (hidden, wide), (wide, hidden)]
    frozen = sum(a * b for a, b in shapes)
    trained = sum(rank * (a + b) for a, b in shapes)
    # Forward and the gradient of activations; the trained matrices' own gradient besides. The
    # first layer's input takes no gradient.
    first = sum(a * b for a, b in own[:3]) + sum(rank * a for a, _ in own[:3])
    linear = tokens * (text.num_hidden_layers * (4.0 * frozen + 6.0 * trained) - 2.0 * first)
    # Causal: a token looks at half of its row on average; two products forward, four backward.
    looks = sum(row.tokens * (row.tokens + 1) / 2 for row in rows)
    attention = text.num_hidden_layers * 12.0 * q * looks
    return float(linear + attention + 4.0 * sampled * hidden * text.vocab_size)


def _picture(vision: Any, patches: int) -> float:
    """Forward alone."""
    hidden, merged = vision.hidden_size, vision.hidden_size * vision.spatial_merge_size**2
    voxels = 3 * vision.temporal_patch_size * vision.patch_size**2
    block = 4 * hidden * hidden + 2 * hidden * vision.intermediate_size
    mergers = 1 + len(vision.deepstack_visual_indexes)
    merger = merged * merged + merged * vision.out_hidden_size
    merges = patches / vision.spatial_merge_size**2
    linear = patches * (voxels * hidden + vision.depth * block) + merges * mergers * merger
    return float(2.0 * linear + vision.depth * 4.0 * hidden * patches**2)
