"""Windows for the learner's bench: the seedling's own lessons, or random words for other models.

As a run's solver windows are: groups of samples that look at one picture each, of uneven length,
with log-probabilities of a behaviour policy that is near the current one.
"""

import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer

from mmzero_async.learner.batch import build
from mmzero_async.learner.model import PolicyModel
from mmzero_async.learner.window import GroupBatch, Window
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import Generation, Sample, Sampling, VersionSpan
from mmzero_async.schemas.packing import pack_logprobs, pack_tokens
from mmzero_async.seedling.batches import MERGE, PATCH, Encoder, render
from mmzero_async.seedling.lessons import answer_reply, solver_lesson
from mmzero_async.seedling.scenes import random_scene

PICTURE = 96  # pixels, the seedling's
DRIFT = 0.05  # nats a token between the behaviour policy and the current one


@dataclass(frozen=True)
class Asked:
    """One group to be: a picture, the prompt that shows it, what was sampled."""

    png: bytes
    prompt: list[int]  # placeholders of the picture expanded
    sampled: list[list[int]]


@dataclass(frozen=True)
class Shown:
    """A window and its pictures by digest."""

    window: Window
    blobs: dict[str, bytes]

    @property
    def rows(self) -> int:
        return sum(len(group.generation.samples) for group in self.window.groups)


def lessons(folder: Path, groups: int, samples: int, seed: int = 0) -> Iterator[Asked]:
    """Questions on scenes; replies right, hasty and wrong, in the seedling's own words."""
    rng = random.Random(f"bench/{seed}")
    encoder = Encoder(AutoTokenizer.from_pretrained(folder), PICTURE)
    for _ in range(groups):
        scene = random_scene(rng)
        lesson = solver_lesson(rng, 0.5, scene)
        wrong = [answer_reply("", str(rng.randint(0, 18))) for _ in range(samples // 2)]
        others = [answer_reply(scene.easy(rng).reading, "7") for _ in range(samples // 4)]
        replies = [*wrong, *others, *[lesson.reply] * samples][:samples]
        ids = encoder.tokenizer([reply + "<|im_end|>" for reply in replies]).input_ids
        assert lesson.svg is not None, "a solver looks at a picture"
        yield Asked(
            png=_png(Image.fromarray(render(lesson.svg, PICTURE))),
            prompt=list(encoder.tokenizer(encoder.prompt_text(lesson)).input_ids),
            sampled=[list(reply) for reply in ids],
        )


def random_words(
    policy: PolicyModel,
    groups: int,
    samples: int,
    *,
    picture: int,
    question: int,
    longest: int,
    seed: int = 0,
) -> Iterator[Asked]:
    """For a model with random weights: pictures of noise, `question` words, replies up to `longest`
    tokens; half of them are shorter than a third of it."""
    rng = random.Random(f"bench/{seed}")
    special = {policy.spec.image_token_id, policy.spec.pad_token_id}
    words = [i for i in range(7, policy.spec.vocabulary) if i not in special]
    shown = (picture // PATCH // MERGE) ** 2

    def some(count: int) -> list[int]:
        return rng.choices(words, k=count)

    for _ in range(groups):
        noise = Image.frombytes("RGB", (8, 8), rng.randbytes(8 * 8 * 3))
        lengths = [max(1, round(longest * rng.random() ** 1.6)) for _ in range(samples)]
        yield Asked(
            png=_png(noise.resize((picture, picture))),
            prompt=[*some(4), *[policy.spec.image_token_id] * shown, *some(question)],
            sampled=[some(length) for length in lengths],
        )


def window(policy: PolicyModel, asked: Sequence[Asked], micro_batch_tokens: int) -> Shown:
    """A solver's window: advantages of mean 0 a group, and the log-probabilities of a policy that
    differs from the present one by about DRIFT a token."""
    rng = random.Random("bench/advantages")
    blobs: dict[str, bytes] = {}
    groups = []
    for i, one in enumerate(asked):
        blobs[blob_digest(one.png)] = one.png
        rewards = [float(rng.random() < 0.5) for _ in one.sampled]
        mean, spread = float(np.mean(rewards)), float(np.std(rewards)) or 1.0
        groups.append(
            GroupBatch(
                group=f"g{i}",
                generation=_generation(one, [blob_digest(one.png)]),
                rewards=rewards,
                advantages=[(reward - mean) / spread for reward in rewards],
            )
        )
    shown = Shown(Window("solver", tuple(groups)), blobs)
    return Shown(_with_behaviour(policy, shown, micro_batch_tokens), blobs)


def _generation(one: Asked, images: list[str]) -> Generation:
    samples = [
        Sample(
            token_ids=pack_tokens(tokens),
            logprobs=pack_logprobs([0.0] * len(tokens)),
            versions=[VersionSpan(0, len(tokens), 0)],
            text="",
            finish_reason="stop",
        )
        for tokens in one.sampled
    ]
    return Generation(
        role="solver",
        policy="solver@0",
        version=0,
        prompt_token_ids=pack_tokens(one.prompt),
        sampling=Sampling(temperature=1.0, max_tokens=max(map(len, one.sampled))),
        template="bench",
        samples=samples,
        images=images,
    )


def _with_behaviour(policy: PolicyModel, shown: Shown, micro_batch_tokens: int) -> Window:
    """Rows are found again by their tokens: a batch has them in another order."""
    batch = build(shown.window, shown.blobs.__getitem__, policy.spec, micro_batch_tokens)
    policy.activate("solver")
    source = torch.Generator().manual_seed(0)
    found: dict[tuple[bytes, bytes], bytes] = {}
    with torch.no_grad():
        views = policy.look(batch)
        for micro in batch.micro_batches:
            values = policy.logprobs(micro, views).cpu()
            values = values + DRIFT * torch.randn(values.shape, generator=source)
            for row, mask in enumerate(micro.mask):
                prompt = micro.input_ids[row, : int(micro.prompt_lengths[row])]
                sampled = micro.completion_ids[row][mask]
                key = (pack_tokens(prompt.tolist()), pack_tokens(sampled.tolist()))
                found[key] = pack_logprobs(values[row][mask].clamp(max=0.0).tolist())
    return replace(shown.window, groups=tuple(_filled(g, found) for g in shown.window.groups))


def _filled(group: GroupBatch, found: dict[tuple[bytes, bytes], bytes]) -> GroupBatch:
    asked: Any = group.generation
    samples = [
        msgspec.structs.replace(s, logprobs=found[asked.prompt_token_ids, s.token_ids])
        for s in asked.samples
    ]
    return replace(group, generation=msgspec.structs.replace(asked, samples=samples))


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
