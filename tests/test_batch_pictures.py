"""Pictures reach the model as the engine saw them; what is no picture is refused."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_model import Album, built, group, looking, picture, png, refusal

from mmzero_async.learner.errors import WindowError
from mmzero_async.schemas.blobs import blob_digest


@pytest.fixture(scope="module")
def processor(tiny_folder):
    """transformers' own, as the learner must use it."""
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(tiny_folder)


def pixels(spec, blob: bytes) -> torch.Tensor:
    digest = blob_digest(blob)
    groups = [group("a", looking([10]), [[20]], images=[digest])]
    return built(spec, groups, {digest: blob}).pictures.tensors["pixel_values"]


def test_patches_are_those_of_each_picture_by_itself_whatever_its_size(spec, processor):
    images = [picture(1), picture(2, (96, 48)), picture(3, (48, 96)), picture(4)]
    album = Album()
    digests = [album.add(image) for image in images]
    alone = [processor(images=[image], return_tensors="pt") for image in images]
    sizes = [int(one["image_grid_thw"].prod()) // 4 for one in alone]
    assert len(set(sizes)) > 1 or len({tuple(o["image_grid_thw"][0].tolist()) for o in alone}) > 1
    prompts = [looking([10], image_tokens=size) for size in sizes]
    groups = [
        group(f"g{i}", prompt, [[20]], images=[digest])
        for i, (prompt, digest) in enumerate(zip(prompts, digests, strict=True))
    ]
    made = built(spec, groups, album).pictures.tensors
    assert torch.equal(made["image_grid_thw"], torch.cat([one["image_grid_thw"] for one in alone]))
    assert torch.equal(made["pixel_values"], torch.cat([one["pixel_values"] for one in alone]))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_transparent_picture_is_laid_on_white(spec, mode):
    if mode == "P":  # two colours, the second of them clear
        image = Image.new("P", (64, 64), 1)
        image.putpalette([204, 204, 204, 200, 10, 10])
        image.paste(0, (0, 0, 32, 64))
        image.info["transparency"] = 1
    else:
        image = Image.new("RGBA", (64, 64), (200, 10, 10, 0))
        image.paste((0, 0, 0, 51), (0, 0, 32, 64))  # a fifth black
        image = image.convert(mode)
    seen = Image.new("RGB", (64, 64), "white")
    seen.paste((204, 204, 204), (0, 0, 32, 64))
    assert torch.equal(pixels(spec, png(image)), pixels(spec, png(seen)))


def test_an_rgb_picture_with_a_clear_colour_keeps_that_colour(spec):
    """As vLLM does: a picture that is RGB already is taken as it is."""
    image = picture(1)
    image.info["transparency"] = image.getpixel((0, 0))
    blob = png(image)
    assert b"tRNS" in blob
    assert torch.equal(pixels(spec, blob), pixels(spec, png(picture(1))))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L", "P", "1", "I;16"])
@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_pixels_are_those_that_vllm_makes(spec, processor, mode, marked, turned):
    from vllm.multimodal.media.image import ImageMediaIO

    image = picture(5, mode="L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    if marked and mode in ("RGB", "P", "L"):
        image.info["transparency"] = image.getpixel((0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    image.info["exif"] = exif.tobytes()
    blob = png(image)
    theirs = ImageMediaIO().load_bytes(blob).media
    expected = processor(images=[theirs], return_tensors="pt")["pixel_values"]
    assert torch.equal(pixels(spec, blob), expected)


@pytest.mark.parametrize("blob", [b"", b"not a picture", png(picture(1))[:-60]])
def test_a_blob_that_is_no_picture_is_refused(spec, blob):
    digest = blob_digest(blob)
    groups = [group("g7", looking([10]), [[20]], images=[digest])]
    assert f"blob {digest} is no readable PNG" in refusal(spec, groups, {digest: blob})


def test_other_formats_than_png_are_refused(spec):
    file = io.BytesIO()
    picture(1).save(file, "GIF")
    blob = file.getvalue()
    groups = [group("g7", looking([10]), [[20]], images=["d"])]
    assert "blob d is no readable PNG" in refusal(spec, groups, {"d": blob})


def chunks(blob: bytes) -> list[tuple[bytes, bytes]]:
    found, place = [], 8
    while place < len(blob):
        (length,) = struct.unpack_from(">I", blob, place)
        found.append((blob[place + 4 : place + 8], blob[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


def assembled(parts: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG of chunks, each with a checksum that is right: damage goes deeper into the decoder."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


@pytest.mark.filterwarnings("ignore")
@given(st.data())
@settings(max_examples=200)
def test_a_damaged_picture_is_read_or_refused_but_nothing_else(spec, data):
    def number(below: int) -> int:
        return data.draw(st.integers(0, below - 1))

    parts = chunks(png(picture(3, (32, 32), data.draw(st.sampled_from(["RGB", "P", "LA"])))))
    for kind in data.draw(st.lists(st.sampled_from([b"tRNS", b"eXIf", b"iTXt", b"pHYs", b"fdAT"]))):
        parts.insert(number(len(parts)), (kind, data.draw(st.binary(max_size=12))))
    for _ in range(number(3)):
        place = number(len(parts))
        kind, content = parts[place]
        content = bytearray(content[: number(len(content)) if number(2) and content else None])
        if content:
            content[number(len(content))] ^= 1 << number(8)
        parts[place] = kind, bytes(content)
    blob = assembled(parts)
    groups = [group("g7", looking([10]), [[20]], images=["d"])]
    # What is left is a picture, or none, or one of another shape.
    with contextlib.suppress(WindowError):
        assert built(spec, groups, {"d": blob}).pictures.tensors["pixel_values"].isfinite().all()


def test_a_picture_whose_chunk_ends_too_early_is_refused(spec):
    header, *rest = chunks(png(picture(1)))
    blob = assembled([header, (b"pHYs", b""), *rest])
    groups = [group("g7", looking([10]), [[20]], images=["d"])]
    assert "blob d is no readable PNG" in refusal(spec, groups, {"d": blob})


def test_a_shape_that_the_image_processor_refuses_is_refused_by_name(spec):
    blob = png(Image.new("RGB", (4000, 2)))
    groups = [group("g7", looking([10]), [[20]], images=["d7"])]
    message = refusal(spec, groups, {"d7": blob})
    assert "d7" in message and "(4000, 2)" in message
