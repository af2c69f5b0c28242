"""A window of complete groups becomes padded tensors: exactly the tokens that the log holds.

Knows arrays and pictures, no model weights, no rewards' meaning and no family of models. The same
window and configuration give the same tensors, bit for bit; one that contradicts itself is refused.
"""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mmzero_async.families import Pictures, Reader
from mmzero_async.learner.errors import WindowError
from mmzero_async.learner.window import GroupBatch, Window
from mmzero_async.roles.filters import truncated
from mmzero_async.schemas.packing import unpack_logprobs, unpack_tokens

Blobs = Callable[[str], bytes]  # digest -> the PNG's bytes
Array = TypeVar("Array")


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What tensors must look like for the model: how it reads pictures, its special tokens."""

    read: Reader  # its family's, with the image processor of the base model's folder
    image_token_id: int
    pad_token_id: int
    vocabulary: int  # token ids are below it


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Rows of one forward pass. Right-padded, so a causal model needs no attention mask.

    B rows, L the longest sequence, T the longest completion, I pictures shown in all rows.
    """

    input_ids: Tensor  # int64 [B, L] prompt and completion as logged, then padding
    prompt_lengths: Tensor  # int64 [B]
    completion_ids: Tensor  # int64 [B, T]
    mask: Tensor  # bool [B, T], true on sampled tokens
    behaviour: Tensor  # float32 [B, T], engine's log-probabilities
    advantages: Tensor  # float32 [B]
    temperatures: Tensor  # float32 [B], at which the samples were drawn
    pictures: Tensor  # int64 [I], indices into Batch.pictures, row by row
    token_types: Tensor  # int32 [B, L], 1 on image placeholders (mm_token_type_ids)
    versions: Tensor  # int64 [B, T], policy version that drew the token; not part of the digest
    in_loss: Tensor  # bool [B], false for a sample that is masked as truncated


@dataclass(frozen=True, slots=True)
class Batch:
    """A window as tensors. A picture is held once, however many samples look at it."""

    micro_batches: tuple[MicroBatch, ...]
    pictures: Pictures | None
    tokens: int  # sampled tokens, the loss's denominator
    max_tokens: int  # that a sample could have, the largest of the window's requests; 0: unknown

    @property
    def samples(self) -> int:
        return sum(len(micro.advantages) for micro in self.micro_batches)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of the digest with its name, in a fixed order.

        Versions, and `in_loss` where it masks nothing, are left out, so that steps committed before
        they were here keep their digest.
        """
        for i, micro in enumerate(self.micro_batches):
            left_out = {"versions"} | ({"in_loss"} if bool(micro.in_loss.all()) else set())
            for field in fields(micro):
                if field.name not in left_out:
                    yield f"{i}.{field.name}", getattr(micro, field.name)
        if self.pictures is not None:
            yield from self.pictures.tensors.items()


@dataclass(frozen=True, slots=True)
class _Row:
    prompt: npt.NDArray[np.int32]
    completion: npt.NDArray[np.int32]
    behaviour: npt.NDArray[np.float32]
    advantage: float
    temperature: float
    pictures: tuple[int, ...]
    versions: npt.NDArray[np.int64]
    in_loss: bool

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


def build(
    window: Window,
    blobs: Blobs,
    spec: InputSpec,
    micro_batch_tokens: int,
    *,
    mask_truncated: bool = False,
) -> Batch:
    """The window's tensors.

    Rows are taken longest first (ties in the window's order) and cut into micro-batches of at
    most `micro_batch_tokens` padded tokens; a longer sequence stands alone. `mask_truncated` keeps
    samples that the engine cut off out of the loss; `Batch.tokens` and `.samples` count them.

    Raises:
        WindowError: no sampled token, or none in the loss; a sample's arrays, rewards or
            advantages differ in length; bytes that are no whole array; a token that is not in the
            vocabulary; an empty prompt; temperature 0; a prompt's image placeholders do not fit
            its pictures; a blob that is no PNG or of a shape that the image processor refuses.
    """
    digests = list(dict.fromkeys(d for g in window.groups for d in g.generation.images))
    pictures = _pictures(digests, blobs, spec) if digests else None
    expansions = dict(zip(digests, pictures.expansions, strict=True)) if pictures else {}
    place = {digest: i for i, digest in enumerate(digests)}
    rows = [
        row
        for group in window.groups
        for row in _rows(group, place, expansions, spec, mask_truncated)
    ]
    tokens = sum(len(row.completion) for row in rows)
    if sum(len(row.completion) for row in rows if row.in_loss) == 0:
        raise WindowError(
            f"{window.role} window of {len(window.groups)} groups has no sampled token"
            + (" in the loss, all samples were cut off" if tokens else "")
            + ": reject its groups instead of training on them"
        )
    rows.sort(key=len, reverse=True)  # stable: equal lengths keep the window's order
    micro = tuple(_pad(part, spec) for part in _cut(rows, micro_batch_tokens))
    max_tokens = max(group.generation.sampling.max_tokens for group in window.groups)
    return Batch(micro, pictures, tokens, max_tokens)


def batch_digest(batch: Batch) -> str:
    """Sha-256 (16 hex digits) over names, types, shapes and bytes of `batch.tensors()`."""
    digest = hashlib.sha256()
    for name, tensor in batch.tensors():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()[:16]


def _rows(
    group: GroupBatch,
    place: dict[str, int],
    expansions: dict[str, npt.NDArray[np.int32]],
    spec: InputSpec,
    mask_truncated: bool,
) -> Iterator[_Row]:
    generation, samples = group.generation, group.generation.samples
    if not len(samples) == len(group.rewards) == len(group.advantages):
        raise WindowError(
            f"group {group.group}: {len(samples)} samples, {len(group.rewards)} rewards and "
            f"{len(group.advantages)} advantages; there must be one of each a sample"
        )
    if not generation.sampling.temperature > 0.0:
        raise WindowError(
            f"group {group.group} was drawn at temperature {generation.sampling.temperature}: "
            "greedy samples have no behaviour log-probability to correct for"
        )
    prompt = _tokens(generation.prompt_token_ids, f"group {group.group}, prompt", spec)
    if len(prompt) == 0:
        raise WindowError(f"group {group.group}: its logged prompt has no token")
    pictures = tuple(place[digest] for digest in generation.images)
    _check_expansion(
        group.group, prompt, [expansions[digest] for digest in generation.images], spec
    )
    for i, (sample, advantage) in enumerate(zip(samples, group.advantages, strict=True)):
        where = f"group {group.group}, sample {i}"
        completion = _tokens(sample.token_ids, where, spec)
        behaviour = _array(unpack_logprobs, sample.logprobs, where)
        if len(completion) != len(behaviour):
            raise WindowError(
                f"{where}: {len(completion)} tokens but {len(behaviour)} log-probabilities"
            )
        temperature = generation.sampling.temperature
        versions = np.full(len(completion), generation.version, dtype=np.int64)
        for span in sample.versions:
            versions[span.start : span.stop] = span.version
        yield _Row(
            prompt,
            completion,
            behaviour,
            float(advantage),
            temperature,
            pictures,
            versions,
            in_loss=not (mask_truncated and truncated(sample)),
        )


def _check_expansion(
    group: str,
    prompt: npt.NDArray[np.int32],
    expansions: Sequence[npt.NDArray[np.int32]],
    spec: InputSpec,
) -> None:
    """The engine's expanded prompt is the learner's own, token for token.

    The pictures' expansions stand in it whole, in the order of the pictures, apart from each other,
    and it has no other placeholder.
    """
    is_image = prompt == spec.image_token_id
    sizes = [int((expansion == spec.image_token_id).sum()) for expansion in expansions]
    shown, expected = int(is_image.sum()), sum(sizes)
    if shown != expected:
        raise WindowError(
            f"group {group}: the logged prompt has {shown} image placeholder tokens, but the "
            f"learner's image processor makes {expected} from its {len(sizes)} pictures. Engine "
            "and learner must use the same model folder and image size"
        )
    end = 0
    for expansion in expansions:
        ahead = int(np.argmax(expansion == spec.image_token_id))  # marks before its first one
        start = end + int(np.argmax(is_image[end:])) - ahead
        departure = _departure(prompt, start, expansion) if start >= end else end
        end = start + len(expansion)
        if departure is None and is_image[end : end + 1].any():
            departure = end
        if departure is not None:
            raise WindowError(
                f"group {group}: from token {departure} on the logged prompt shows its "
                f"{len(sizes)} pictures in another way than the learner expands them, with "
                f"{sizes} placeholders in turn. Engine and learner must use the same model "
                "folder and image size"
            )


def _departure(
    prompt: npt.NDArray[np.int32], start: int, expansion: npt.NDArray[np.int32]
) -> int | None:
    """The first place from `start` on where the prompt is not the expansion; None: it is."""
    there = prompt[start : start + len(expansion)]
    same = np.append(there == expansion[: len(there)], len(there) == len(expansion))
    return None if same.all() else start + int(np.argmin(same))


def _tokens(packed: bytes, where: str, spec: InputSpec) -> npt.NDArray[np.int32]:
    tokens = _array(unpack_tokens, packed, where)
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < spec.vocabulary:
        odd = tokens[(tokens < 0) | (tokens >= spec.vocabulary)][0]
        raise WindowError(
            f"{where}: token {odd} is not in the vocabulary of {spec.vocabulary} tokens. Engine "
            "and learner must use the same model folder"
        )
    return tokens


def _array(unpack: Callable[[bytes], Array], packed: bytes, where: str) -> Array:
    try:
        return unpack(packed)
    except ValueError as error:
        raise WindowError(f"{where}: {len(packed)} bytes are no whole array: {error}") from error


def _cut(rows: list[_Row], budget: int) -> Iterator[list[_Row]]:
    start = 0
    while start < len(rows):
        count = max(1, budget // len(rows[start]))  # the first row is the longest
        yield rows[start : start + count]
        start += count


def _pad(rows: list[_Row], spec: InputSpec) -> MicroBatch:
    length, width = len(rows[0]), max(1, *(len(row.completion) for row in rows), 0)
    ids = np.full((len(rows), length), spec.pad_token_id, dtype=np.int64)
    completions = np.full((len(rows), width), spec.pad_token_id, dtype=np.int64)
    behaviour = np.zeros((len(rows), width), dtype=np.float32)
    mask = np.zeros((len(rows), width), dtype=np.bool_)
    types = np.zeros((len(rows), length), dtype=np.int32)
    versions = np.zeros((len(rows), width), dtype=np.int64)
    for i, row in enumerate(rows):
        prompt, sampled = len(row.prompt), len(row.completion)
        ids[i, :prompt] = row.prompt
        ids[i, prompt : prompt + sampled] = row.completion
        completions[i, :sampled] = row.completion
        behaviour[i, :sampled] = row.behaviour
        mask[i, :sampled] = True
        versions[i, :sampled] = row.versions
        # A policy may sample the placeholder token itself: only the prompt's ones are pictures.
        types[i, :prompt] = row.prompt == spec.image_token_id
    return MicroBatch(
        input_ids=torch.from_numpy(ids),
        prompt_lengths=torch.tensor([len(row.prompt) for row in rows]),
        completion_ids=torch.from_numpy(completions),
        mask=torch.from_numpy(mask),
        behaviour=torch.from_numpy(behaviour),
        advantages=torch.tensor([row.advantage for row in rows], dtype=torch.float32),
        temperatures=torch.tensor([row.temperature for row in rows], dtype=torch.float32),
        pictures=torch.tensor([p for row in rows for p in row.pictures], dtype=torch.int64),
        token_types=torch.from_numpy(types),
        versions=torch.from_numpy(versions),
        in_loss=torch.tensor([row.in_loss for row in rows]),
    )


def _pictures(digests: list[str], blobs: Blobs, spec: InputSpec) -> Pictures:
    """All pictures as the model's family reads them, in the order of `digests`."""
    images = [_decode(digest, blobs(digest)) for digest in digests]
    try:
        return spec.read(images)
    except ValueError as error:
        sizes = sorted({image.size for image in images})
        raise WindowError(
            f"the image processor refuses a picture among {digests[:3]}… of sizes {sizes[:3]}…: "
            f"{error}"
        ) from error


def _decode(digest: str, png: bytes) -> Image.Image:
    """RGB pixels, exactly as vLLM makes them from the same bytes."""
    try:
        picture: Image.Image = Image.open(io.BytesIO(png), formats=("PNG",))
        picture.load()
        picture = ImageOps.exif_transpose(picture)
    except Exception as error:  # on hostile files Pillow raises nearly any kind
        raise WindowError(f"blob {digest} is no readable PNG: {error}") from error
    if picture.mode == "RGB":
        return picture
    if not _transparent(picture):
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    white = Image.new("RGB", picture.size, (255, 255, 255))
    white.paste(picture, mask=picture.getchannel("A"))
    return white


def _transparent(picture: Image.Image) -> bool:
    return picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
