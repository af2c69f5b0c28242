"""Two builds of one engine, pixel for pixel; what they are allowed to differ in has a name."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from gallery import gallery
from honest_drawings import HONEST
from hostile_corpus import FORBIDDEN_COLOUR
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from PIL import Image, ImageChops
from rendering_rig import CHART, CONFIG, ENGINES, RED, Engine, Rig, draw, drawn, opened, svg

from mmzero_async.config import ConfigError, RendererConfig, load
from mmzero_async.rendering.family_names import without_generic_names
from mmzero_async.rendering.fonts import font_files
from mmzero_async.rendering.outcomes import Picture
from mmzero_async.rendering.png import ENCODER, decoded, encoded
from mmzero_async.rendering.svg2png import Svg2Png

LEVELS = 1  # by which pixels may differ everywhere else
# Name in the gallery: (levels, share of the pixels that differ by more than LEVELS).
DIFFERENT = {
    # Another baseline since resvg 0.48: glyphs move by a fraction of a pixel.
    'text with dominant-baseline="middle"': (64, 0.002),
    # svg2png-py tells the extent of a drawing that names none in whole pixels only.
    "honest: no size at all": (255, 0.01),
}


def config(engine: Engine, size: int) -> RendererConfig:
    return replace(CONFIG, engine=engine, size=size, wall_seconds=20.0)


@pytest.fixture(scope="module")
def rigs() -> Iterator[dict[int, tuple[Rig, ...]]]:
    """Pools of both engines, at two sizes."""
    keep = {size: [opened(config(engine, size)) for engine in ENGINES] for size in (96, 300)}
    yield {size: tuple(next(pool) for pool in pools) for size, pools in keep.items()}
    for pools in keep.values():
        for pool in pools:
            next(pool, None)


@pytest.mark.parametrize("size", [96, 300])
def test_both_engines_draw_the_same_pixels_and_what_differs_is_named(
    rigs: dict[int, tuple[Rig, ...]], size: int
) -> None:
    differing = {}
    for name, text in gallery().items():
        if size == 300 and name.startswith(("scene", "chart 1", "chart 2", "chart 3")):
            continue
        one, two = (drawn(rig, text) for rig in rigs[size])
        apart = ImageChops.difference(one, two).tobytes()
        if max(apart) > LEVELS:
            differing[name] = (max(apart), sum(level > LEVELS for level in apart) / len(apart))
    assert differing.keys() <= DIFFERENT.keys()
    for name, (levels, share) in differing.items():
        assert levels <= DIFFERENT[name][0] and share <= DIFFERENT[name][1], (name, levels, share)


@pytest.mark.parametrize("name", HONEST)
def test_pictures_of_both_engines_are_exact_squares_with_the_same_findings(
    rigs: dict[int, tuple[Rig, ...]], name: str
) -> None:
    one, two = (draw(rig, HONEST[name]) for rig in rigs[96])
    assert isinstance(one, Picture) and isinstance(two, Picture)
    assert (one.mended, one.width, one.height) == (two.mended, two.width, two.height)
    assert two.ink == pytest.approx(one.ink, abs=0.02)
    with Image.open(io.BytesIO(two.png)) as image:
        assert image.size == (96, 96) and image.format == "PNG"


def test_what_is_written_in_a_drawing_is_the_same_by_both_engines(
    rigs: dict[int, tuple[Rig, ...]],
) -> None:
    hidden = svg('<text x="9" y="30">seen</text><text x="9" y="60" fill="white">unseen</text>')
    for text in (CHART, hidden):
        one, two = (runner.run(pool.writing(text)) for runner, pool in rigs[96])
        assert one is not None and one == two


def test_the_renderer_id_says_which_engine_drew(rigs: dict[int, tuple[Rig, ...]]) -> None:
    one, two = (pool.renderer_id for _, pool in rigs[96])
    assert one.startswith("resvg-py 0.5.0 / resvg 0.48.1 options ")
    assert two.startswith("svg2png-py 1.1.0 / resvg 0.47 options ")
    assert one.split(" 96px ")[1] == two.split(" 96px ")[1]
    assert f" png {ENCODER} " in one


def test_the_configuration_knows_both_engines_and_no_other() -> None:
    assert load().renderer.engine == "resvg-py"
    assert load(overrides=["renderer.engine=svg2png-py"]).renderer.engine == "svg2png-py"
    with pytest.raises(ConfigError, match=r"renderer\.engine"):
        load(overrides=["renderer.engine=cairo"])


def test_the_faster_engine_by_itself_reads_files_so_it_runs_in_the_child_alone(
    rigs: dict[int, tuple[Rig, ...]], tmp_path: Path
) -> None:
    """What the pre-flight and the child's limits are there for."""
    Image.new("RGB", (9, 9), FORBIDDEN_COLOUR).save(tmp_path / "secret.png")
    text = svg(f'<image href="{tmp_path}/secret.png" width="96" height="96"/>')
    bare = Svg2Png([str(path) for path in font_files()]).draw(text, 96, "white").picture
    assert FORBIDDEN_COLOUR in [colour for _, colour in bare.getcolors(96 * 96) or []]
    outcome = draw(rigs[96][1], text)
    assert not isinstance(outcome, Picture) and outcome.kind == "forbidden"


def test_the_faster_engine_gives_its_fonts_back() -> None:
    fonts = [str(path) for path in font_files()]

    def held() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    before = held()
    for _ in range(3):
        Svg2Png(fonts)
    assert held() == before


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ('<text font-family="Arial, serif">Arial</text>', "Arial-, serif"),
        ("<text style='x:y;font: 9px \"Times  New Roman\"'>Impact</text>", "Times  New Roman-"),
        ('<style>.a{font-family:Impact}</style><g id="Arial"/>', "Impact-"),
        ('<text style="font-family:&quot;Courier New&quot;" id="Arial">x</text>', "Courier New-"),
    ],
)
def test_a_family_that_stands_for_a_generic_one_becomes_unknown_where_it_is_asked_for(
    text: str, asked: str
) -> None:
    changed = without_generic_names(text)
    assert asked in changed and len(changed) == len(text) + 1


@pytest.mark.parametrize("text", ['<text font-family="serif">Arial</text>', '<g id="Impact"/>'])
def test_all_else_in_a_drawing_keeps_its_words(text: str) -> None:
    assert without_generic_names(text) == text


@given(st.integers(1, 40), st.integers(1, 40), st.randoms(use_true_random=False))
def test_the_fast_png_holds_the_very_pixels(width: int, height: int, rng: object) -> None:
    pixels = rng.randbytes(3 * width * height)  # type: ignore[attr-defined]
    picture = Image.frombytes("RGB", (width, height), pixels)
    with Image.open(io.BytesIO(encoded(picture))) as read:
        read.load()
        assert (read.mode, read.size, read.tobytes()) == ("RGB", (width, height), pixels)


@given(st.integers(1, 40), st.integers(1, 40), st.randoms(use_true_random=False))
def test_an_engine_s_png_is_read_to_the_very_pixels(width: int, height: int, rng: object) -> None:
    pixels = rng.randbytes(3 * width * height)  # type: ignore[attr-defined]
    picture = Image.frombytes("RGB", (width, height), pixels)
    read = decoded(packed(picture.convert("RGBA")))
    assert (read.mode, read.size, read.tobytes()) == ("RGB", (width, height), pixels)


def test_a_png_in_many_parts_is_read_and_another_form_or_half_of_one_is_not() -> None:
    picture = Image.effect_noise((300, 300), 90).convert("RGBA")
    png = packed(picture)
    assert png.count(b"IDAT") > 1
    assert decoded(png).tobytes() == picture.convert("RGB").tobytes()
    for other in (packed(picture.convert("RGB")), packed(picture.convert("L")), b"x" * 99):
        with pytest.raises(ValueError, match="RGBA"):
            decoded(other)
    with pytest.raises(ValueError):
        decoded(png[: len(png) // 2])


def packed(picture: Image.Image) -> bytes:
    """As another encoder does it, rows filtered."""
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def test_a_padded_picture_of_the_first_engine_is_white_beside_the_drawing(
    rigs: dict[int, tuple[Rig, ...]],
) -> None:
    image = drawn(
        rigs[96][0], svg('<rect width="99" height="99" fill="red"/>', 'viewBox="0 0 8 4"')
    )
    assert image.getcolors() is not None
    assert sorted(image.getcolors() or []) == [(48 * 96, RED), (48 * 96, (255, 255, 255))]
