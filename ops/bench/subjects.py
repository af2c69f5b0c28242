"""The models whose steps are measured: the seedling, or Qwen3-VL's shapes with random weights.

A shape is the published architecture in full size; its tokenizer is the seedling's, for no text is
read and token ids are drawn from the whole vocabulary.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace
from transformers import (
    AutoConfig,
    AutoProcessor,
    AutoTokenizer,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.utils import logging

from mmzero_async import config as settings
from mmzero_async.config import LearnerConfig
from mmzero_async.families.qwen3_vl import FAMILY
from mmzero_async.learner.model import PolicyModel
from mmzero_async.ops.bench.lesson_windows import Asked, lessons, random_words
from mmzero_async.ops.bench.sizes import Size
from mmzero_async.ops.rundir import base_model_folder
from mmzero_async.seedling import tokenizer

SEED = 20260310


@dataclass(frozen=True)
class Shape:
    """What tells the members of the family apart."""

    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    intermediate: int
    tied: bool
    vision: tuple[int, int, int, int]  # depth, hidden, heads, intermediate
    deepstack: tuple[int, ...]
    vocabulary: int = 151_936
    head: int = 128


SHAPES = {
    "qwen3-vl-2b": Shape(2048, 28, 16, 8, 6144, True, (24, 1024, 16, 4096), (5, 11, 17)),
    "qwen3-vl-4b": Shape(2560, 36, 32, 8, 9728, True, (24, 1024, 16, 4096), (5, 11, 17)),
    "qwen3-vl-8b": Shape(4096, 36, 32, 8, 12288, False, (27, 1152, 16, 4304), (8, 16, 24)),
}


@dataclass(frozen=True)
class Subject:
    """A model under measurement. `base` makes a fresh one, always with the same weights."""

    name: str
    learner: LearnerConfig
    config: Any  # Qwen3VLConfig
    processor: Any
    folder: Path  # of the image processor
    base: Callable[[], Any]
    asked: Callable[[PolicyModel, Size], Iterator[Asked]]

    def policy(self) -> PolicyModel:
        learner = self.learner
        return PolicyModel(
            self.base(),
            FAMILY,
            FAMILY.reader(self.folder, self.config),
            rank=learner.lora_rank,
            alpha=learner.lora_alpha,
            seed=SEED,
            logprob_chunk=learner.logprob_chunk,
            gradient_checkpointing=learner.gradient_checkpointing,
        )


@contextmanager
def subject(
    name: str,
    device: str = "cpu",
    *,
    checkpointing: bool = False,
    shapes: Mapping[str, Shape] = SHAPES,
) -> Iterator[Subject]:
    """The seedling or a shape by its preset's name, with that preset's learner."""
    said = str(checkpointing).lower()
    logging.disable_progress_bar()  # its lines would stand among the figures
    overrides = [f"learner.device={device}", f"learner.gradient_checkpointing={said}"]
    config = settings.load(name, overrides)
    if name not in shapes:
        yield _seedling(name, base_model_folder(config), config.learner)
        return
    with tempfile.TemporaryDirectory(prefix="bench-processor-") as folder:
        processor = _processor(Path(folder))
        learner = config.learner
        if device == "cpu":  # where it would take hours in bfloat16
            learner = replace(learner, dtype="float32")
        made = _config(shapes[name], processor.tokenizer)
        yield Subject(
            name,
            learner,
            made,
            processor,
            Path(folder),
            lambda: _random(made, learner),
            lambda policy, size: random_words(
                policy,
                size.groups,
                size.samples,
                picture=size.picture,
                question=size.question,
                longest=size.longest,
            ),
        )


def _seedling(name: str, folder: Path, learner: LearnerConfig) -> Subject:
    def base() -> Any:
        return FAMILY.load(folder, learner.dtype).to(learner.device)

    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    return Subject(
        name,
        learner,
        AutoConfig.from_pretrained(folder, local_files_only=True),
        processor,
        folder,
        base,
        lambda _, size: lessons(folder, size.groups, size.samples),
    )


def _random(config: Qwen3VLConfig, learner: LearnerConfig) -> Any:
    """Made where it will stay: billions of weights drawn on a CPU would take minutes."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        before = torch.get_default_dtype()
        torch.set_default_dtype(getattr(torch, learner.dtype))
        try:
            with torch.device(learner.device):
                return Qwen3VLForConditionalGeneration(config)
        finally:
            torch.set_default_dtype(before)


def _processor(folder: Path) -> Any:
    """The family's own: a picture keeps its size, and so many placeholders stand for it."""
    tokenizer.build(folder, image_size=96)
    processor = AutoProcessor.from_pretrained(folder)
    processor.image_processor = Qwen2VLImageProcessor(
        size={"shortest_edge": 4096, "longest_edge": 16_777_216},
        patch_size=16,
        merge_size=2,
        temporal_patch_size=2,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    processor.save_pretrained(folder)
    return processor


def _config(shape: Shape, words: AutoTokenizer) -> Qwen3VLConfig:
    ids = {token: words.convert_tokens_to_ids(token) for token in tokenizer.SPECIALS}
    depth, vision_hidden, vision_heads, vision_intermediate = shape.vision
    sections = [3 * shape.head // 16, 5 * shape.head // 32, 5 * shape.head // 32]
    text = dict(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=shape.head,
        max_position_embeddings=262_144,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 5_000_000.0,
            "mrope_section": sections,  # 24, 20, 20 of a head of 128
            "mrope_interleaved": True,
        },
        pad_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|im_end|>"],
        bos_token_id=None,
        tie_word_embeddings=shape.tied,
    )
    vision = dict(
        depth=depth,
        hidden_size=vision_hidden,
        intermediate_size=vision_intermediate,
        num_heads=vision_heads,
        patch_size=16,
        spatial_merge_size=2,
        temporal_patch_size=2,
        out_hidden_size=shape.hidden,
        num_position_embeddings=2304,
        deepstack_visual_indexes=list(shape.deepstack),
    )
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=shape.tied,
    )
