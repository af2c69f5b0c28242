"""The seedling's architecture: transformers' Qwen3-VL, scaled down to a few million parameters."""

from typing import Any

import torch
from torch import nn
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

HIDDEN, LAYERS, HEADS, HEAD_DIM = 160, 4, 5, 32
VISION_HIDDEN, VISION_DEPTH, VISION_HEADS = 128, 3, 4


def config(vocabulary: int, token_ids: dict[str, int]) -> Qwen3VLConfig:
    """`token_ids` maps Qwen3-VL's special tokens to the small tokenizer's ids."""
    text = dict(
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        intermediate_size=448,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=HEAD_DIM,
        max_position_embeddings=1024,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [6, 5, 5],
            "mrope_interleaved": True,
        },
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=token_ids["<|im_end|>"],
        pad_token_id=token_ids["<|endoftext|>"],
    )
    vision = dict(
        depth=VISION_DEPTH,
        hidden_size=VISION_HIDDEN,
        intermediate_size=384,
        num_heads=VISION_HEADS,
        patch_size=16,
        spatial_merge_size=2,
        temporal_patch_size=2,
        out_hidden_size=HIDDEN,
        num_position_embeddings=144,
        deepstack_visual_indexes=[1],
    )
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token_ids["<|image_pad|>"],
        video_token_id=token_ids["<|video_pad|>"],
        vision_start_token_id=token_ids["<|vision_start|>"],
        vision_end_token_id=token_ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def build(vocabulary: int, token_ids: dict[str, int]) -> Qwen3VLForConditionalGeneration:
    """Random weights; seed torch first."""
    return Qwen3VLForConditionalGeneration(config(vocabulary, token_ids))


class LinearPatches(nn.Module):
    """The patch embedding's convolution as the matrix product that it is: stride equals kernel.

    The weights stay the convolution's own. On a CPU its backward pass is some ten times faster.
    """

    def __init__(self, embedding: Any) -> None:
        super().__init__()
        self.proj: nn.Conv3d = embedding.proj

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """[patches, channels * time * height * width] -> [patches, hidden]"""
        weight = self.proj.weight.flatten(1)
        return nn.functional.linear(patches.to(weight.dtype), weight, self.proj.bias)


def with_linear_patches(
    model: Qwen3VLForConditionalGeneration,
) -> Qwen3VLForConditionalGeneration:
    """Replaces the patch embedding in place; state dict and results stay the same."""
    visual = model.model.visual
    visual.patch_embed = LinearPatches(visual.patch_embed)
    return model
