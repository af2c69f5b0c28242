"""A seedling with random weights, and windows for it: what the learner's tests train on."""

import copy
import functools
import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

from mmzero_async.config import LearnerConfig, RoleLearning
from mmzero_async.learner.batch import Batch, InputSpec, build
from mmzero_async.learner.errors import LearnerError, WindowError
from mmzero_async.learner.model import PolicyModel, load
from mmzero_async.learner.window import GroupBatch, Window
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import Generation, Role, Sample, Sampling, VersionSpan
from mmzero_async.schemas.packing import pack_logprobs, pack_tokens
from mmzero_async.seedling import model as architecture
from mmzero_async.seedling import tokenizer

IMAGE_SIZE = 64  # 2 x 2 image tokens
PAD, VISION_START, VISION_END, IMAGE = 0, 3, 4, 5
WORDS = range(7, 300)  # ordinary tokens: all beyond the specials
RANK, ALPHA, SEED = 4, 8, 11


def save(folder: Path) -> Path:
    """Saves the model's folder; always the same weights."""
    tokenizer.build(folder, image_size=IMAGE_SIZE, vocabulary=300)
    words = AutoTokenizer.from_pretrained(folder)
    ids = {token: words.convert_tokens_to_ids(token) for token in tokenizer.SPECIALS}
    assert [ids[f"<|{t}|>"] for t in ("endoftext", "vision_start", "vision_end", "image_pad")] == [
        PAD,
        VISION_START,
        VISION_END,
        IMAGE,
    ]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(20260310)
        model = architecture.build(len(words), ids)
        # Fresh weights say almost the same whatever they see: grown, they have opinions.
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    model.save_pretrained(folder)
    return folder


def policy(folder: Path, **changes: int) -> PolicyModel:
    """A model of its own for whoever asks: a copy of one that was read from disk once."""
    return copy.deepcopy(_loaded(folder, tuple(sorted(changes.items()))))


@functools.cache
def _loaded(folder: Path, changes: tuple[tuple[str, int], ...]) -> PolicyModel:
    return load(folder, **{"rank": RANK, "alpha": ALPHA, "seed": SEED, **dict(changes)})


def config(**changes: object) -> LearnerConfig:
    learning = RoleLearning(groups=2, lr=1e-2)
    return LearnerConfig(
        **{
            "proposer": learning,
            "coder": learning,
            "solver": learning,
            "lora_rank": RANK,
            "lora_alpha": ALPHA,
            "micro_batch_tokens": 64,
            **changes,
        }
    )


def stir(model: PolicyModel, role: Role, seed: int = 0, scale: float = 0.3) -> None:
    """Gives the role's adapter matrices that are not zero."""
    source = torch.Generator().manual_seed(seed)
    model.set_adapter(
        role,
        {
            name: scale * torch.randn(tensor.shape, generator=source)
            for name, tensor in model.adapter(role).items()
        },
    )


def picture(seed: int, size: tuple[int, int] = (64, 64), mode: str = "RGB") -> Image.Image:
    """Coarse random blocks of colour."""
    pixels = random.Random(seed).randbytes(4 * 4 * 4)
    return Image.frombytes("RGBA", (4, 4), pixels).resize(size, 0).convert(mode)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


class Album(dict[str, bytes]):
    """Blobs in memory: `album.add(image)` is the digest, `album.__getitem__` gives the bytes."""

    def add(self, image: Image.Image | bytes) -> str:
        data = image if isinstance(image, bytes) else png(image)
        self[blob_digest(data)] = data
        return blob_digest(data)


def looking(words: Sequence[int], image_tokens: int = 4, pictures: int = 1) -> list[int]:
    """A prompt that shows pictures before its words."""
    return [*[VISION_START, *[IMAGE] * image_tokens, VISION_END] * pictures, *words]


def sample(tokens: Sequence[int], logprobs: Sequence[float] | None = None) -> Sample:
    if logprobs is None:
        logprobs = [-3.0 - 0.1 * (token % 7) for token in tokens]
    return Sample(
        token_ids=pack_tokens(tokens),
        logprobs=pack_logprobs(logprobs),
        versions=[VersionSpan(0, len(tokens), 0)],
        text="",
        finish_reason="stop",
    )


def group(
    name: str,
    prompt: Sequence[int],
    completions: Sequence[Sequence[int] | Sample],
    advantages: Sequence[float] | None = None,
    *,
    role: Role = "solver",
    images: Sequence[str] = (),
    temperature: float = 1.0,
) -> GroupBatch:
    samples = [c if isinstance(c, Sample) else sample(c) for c in completions]
    if advantages is None:
        advantages = [1.0 if i % 2 else -1.0 for i in range(len(samples))]
    return GroupBatch(
        group=name,
        generation=Generation(
            role=role,
            policy=f"{role}@0",
            version=0,
            prompt_token_ids=pack_tokens(prompt),
            sampling=Sampling(temperature=temperature),
            template="t",
            samples=samples,
            images=list(images),
        ),
        rewards=[0.5 + 0.25 * a for a in advantages],
        advantages=list(advantages),
    )


def built(
    spec: InputSpec,
    groups: Sequence[GroupBatch],
    blobs: Mapping[str, bytes] | None = None,
    budget: int = 4096,
) -> Batch:
    """The groups' tensors."""
    return build(Window("solver", tuple(groups)), (blobs or {}).__getitem__, spec, budget)


def refusal(
    spec: InputSpec, groups: Sequence[GroupBatch], blobs: Mapping[str, bytes] | None = None
) -> str:
    """What `build` says against the groups."""
    with pytest.raises(WindowError) as refused:
        built(spec, groups, blobs)
    assert isinstance(refused.value, LearnerError)
    return str(refused.value)


def changed(it: GroupBatch, **generation: object) -> GroupBatch:
    """The group with other fields in its generation."""
    return replace(it, generation=msgspec.structs.replace(it.generation, **generation))


def window(album: Album, seed: int = 0, role: Role = "solver") -> Window:
    """Three groups of uneven samples: one without a picture, two that look at the same one."""
    rng = random.Random(seed)

    def words(low: int, high: int) -> list[int]:
        return [rng.choice(WORDS) for _ in range(rng.randint(low, high))]

    seen = album.add(picture(seed))
    shapes = [(words(3, 6), ()), (looking(words(2, 5)), (seen,)), (looking(words(6, 9)), (seen,))]
    return Window(
        role,
        tuple(
            group(
                f"g{i}",
                prompt,
                [words(1, 9) for _ in range(4)],
                [rng.gauss(0, 1) for _ in range(4)],
                role=role,
                images=images,
                temperature=1.0 if i else 0.8,
            )
            for i, (prompt, images) in enumerate(shapes)
        ),
    )
