"""Lessons as arrays: token ids, labels on the reply alone, patches of the picture."""

import io
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import resvg_py
from PIL import Image

from mmzero_async.seedling.lessons import (
    Lesson,
    coder_lesson,
    describing_lesson,
    proposer_lesson,
    solver_lesson,
)

PATCH, MERGE = 16, 2
IGNORE = -100


def render(svg: str, size: int) -> npt.NDArray[np.uint8]:
    """RGB pixels [size, size, 3] on white."""
    png = resvg_py.svg_to_bytes(
        svg_string=svg, width=size, height=size, background="white", skip_system_fonts=True, dpi=96
    )
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))


def patches(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """[size, size, 3] -> [patches, 3*2*16*16], Qwen2-VL's order: 2x2 blocks of patches, each
    patch as channel, time (the still repeated), row, column; values in -1..1."""
    side = pixels.shape[0] // PATCH // MERGE
    x = (pixels.astype(np.float32) / 255.0 - 0.5) / 0.5
    x = x.reshape(side, MERGE, PATCH, side, MERGE, PATCH, 3)
    x = x.transpose(0, 3, 1, 4, 6, 2, 5)  # block row, block col, row, col, channel, y, x
    x = np.repeat(x[:, :, :, :, :, None], 2, axis=5)
    return np.ascontiguousarray(x.reshape(side * side * MERGE * MERGE, -1))


@dataclass(frozen=True)
class Batch:
    """Right-padded: ids and labels [B, T] int64; patches [B * P, D] float32 or None."""

    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.float32] | None


class Encoder:
    """Lessons to batches with the small tokenizer, in the chat template's exact shape."""

    def __init__(self, tokenizer: Any, image_size: int) -> None:
        self.image_size = image_size
        self.image_tokens = (image_size // PATCH // MERGE) ** 2
        self.tokenizer = tokenizer
        self.pad = tokenizer.pad_token_id

    def prompt_text(self, lesson: Lesson) -> str:
        picture = ""
        if lesson.svg is not None:
            picture = "<|vision_start|>" + "<|image_pad|>" * self.image_tokens + "<|vision_end|>"
        return f"<|im_start|>user\n{picture}{lesson.prompt}<|im_end|>\n<|im_start|>assistant\n"

    def batch(self, lessons: list[Lesson]) -> Batch:
        prompts = self.tokenizer([self.prompt_text(lesson) for lesson in lessons]).input_ids
        replies = self.tokenizer([lesson.reply + "<|im_end|>" for lesson in lessons]).input_ids
        length = max(len(p) + len(r) for p, r in zip(prompts, replies, strict=True))
        ids = np.full((len(lessons), length), self.pad, dtype=np.int64)
        labels = np.full((len(lessons), length), IGNORE, dtype=np.int64)
        for i, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
            end = len(prompt) + len(reply)
            ids[i, :end] = [*prompt, *reply]
            labels[i, len(prompt) : end] = reply
        pictures = [patches(render(x.svg, self.image_size)) for x in lessons if x.svg is not None]
        return Batch(ids, labels, np.concatenate(pictures) if pictures else None)


def lesson_batches(
    encoder: Encoder,
    rng: random.Random,
    *,
    solvers: int,
    writers: int,
    describe_share: float,
    hard_share: float,
    hasty_share: float = 0.0,
) -> tuple[Batch, Batch]:
    """One solver batch and one text batch (two proposals for each drawing)."""
    looking = [
        describing_lesson(rng)
        if rng.random() < describe_share
        else solver_lesson(rng, hard_share, hasty_share=hasty_share)
        for _ in range(solvers)
    ]
    writing = [proposer_lesson(rng) if i % 3 else coder_lesson(rng) for i in range(writers)]
    return encoder.batch(looking), encoder.batch(writing)
