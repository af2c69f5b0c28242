"""SVG from strangers: honest drawings become pictures, slips are mended where nothing is lost."""

from collections import Counter
from collections.abc import Iterator

import pytest
from honest_drawings import HONEST, MENDED, NOT_MENDED
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rendering_rig import BLUE, CHART, CONFIG, RED, WHITE, Rig, draw, drawn, opened, svg

from mmzero_async.rendering.outcomes import Picture, RenderFailure
from mmzero_async.rendering.pool import RenderPool
from mmzero_async.rendering.writing import ink


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """One warm pool for the whole file."""
    yield from opened(CONFIG)


# Honest drawings


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_drawing_becomes_a_picture_of_the_exact_size(rig: Rig, name: str) -> None:
    outcome = draw(rig, HONEST[name])
    assert isinstance(outcome, Picture), outcome
    assert drawn(rig, HONEST[name]).size == (64, 64) == (outcome.width, outcome.height)
    assert 0.002 < outcome.ink <= 1
    assert outcome.seconds > 0


def test_colours_stand_where_the_drawing_puts_them_on_white(rig: Rig) -> None:
    image = drawn(
        rig,
        svg(
            '<rect x="16" y="16" width="16" height="32" fill="red"/>'
            '<circle cx="48" cy="32" r="8" style="fill:#00f"/>'
            '<rect y="56" width="64" height="8" opacity="0.5"/>',
            'viewBox="0 0 64 64"',
        ),
    )
    at = {point: image.getpixel(point) for point in [(0, 0), (20, 20), (48, 32), (32, 60), (40, 8)]}
    grey = at.pop((32, 60))
    assert at == {(0, 0): WHITE, (20, 20): RED, (48, 32): BLUE, (40, 8): WHITE}
    assert isinstance(grey, tuple) and all(126 <= level <= 129 for level in grey)


@pytest.mark.parametrize(
    ("root", "extent"),
    [
        ('width="80" height="40"', (64, 32)),
        ('width="40" height="80"', (32, 64)),
        ('width="90000" height="45000"', (64, 32)),
        ('width="4cm" height="20mm"', (64, 32)),
        ('viewBox="0 0 30 120"', (16, 64)),
        ('viewBox="-50 -50 200 100" width="100%" height="100%"', (64, 32)),
        ('viewBox="0 0 20 10" width="5" height="2.5"', (64, 32)),
        ('viewBox="0 0 10 10" width="80" height="40"', (64, 32)),
        ('viewBox="0 0 10 10" width="80" height="40" preserveAspectRatio="none"', (64, 32)),
        ('viewBox="0 0 0 nonsense" width="80" height="40"', (64, 32)),
        ('viewBox="0 0 20 10" width="80"', (64, 32)),
        ('viewBox="0 0 400 10"', (64, 2)),
    ],
)
def test_a_drawing_keeps_its_aspect_in_the_middle_of_the_square(
    rig: Rig, root: str, extent: tuple[int, int]
) -> None:
    over_the_edge = '<rect x="-99" y="-99" width="99999" height="99999" fill="red"/>'
    image = drawn(rig, svg(over_the_edge, root))
    left, top = ((64 - side) // 2 for side in extent)
    inside = image.crop((left, top, left + extent[0], top + extent[1]))
    assert inside.getcolors() == [(extent[0] * extent[1], RED)]
    everywhere = {colour: count for count, colour in image.getcolors() or []}
    assert everywhere == {RED: extent[0] * extent[1], WHITE: 64 * 64 - extent[0] * extent[1]}


def test_text_is_drawn_even_without_xmlns_and_with_an_unknown_font(rig: Rig) -> None:
    text = '<text x="5" y="60" font-size="50" font-family="No Such Font">MMM</text>'
    with_it = draw(rig, svg(text))
    without = draw(rig, f'<svg viewBox="0 0 96 96">{text}</svg>')
    assert isinstance(with_it, Picture) and isinstance(without, Picture)
    assert with_it.png == without.png
    assert with_it.ink > 0.1


def test_the_same_drawing_gives_the_same_bytes_again_and_in_another_pool(rig: Rig) -> None:
    async def twice() -> tuple[str, list[Picture | RenderFailure]]:
        async with RenderPool(CONFIG, cached_mib=0) as pool:
            return pool.renderer_id, [await pool.render(CHART) for _ in range(2)]

    runner, pool = rig
    name, others = runner.run(twice())
    here = draw(rig, CHART)
    assert isinstance(here, Picture)
    assert name == pool.renderer_id
    assert [other.png for other in others if isinstance(other, Picture)] == [here.png] * 2


def test_the_renderer_id_names_engine_size_and_fonts(rig: Rig) -> None:
    words = rig[1].renderer_id.split()
    assert words[:5] == ["resvg-py", "0.5.0", "/", "resvg", "0.48.1"]
    assert "64px" in words and "fonts" in words and "rules" in words


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_ink_is_the_share_beside_the_commonest_colour(
    width: int, height: int, data: st.DataObject
) -> None:
    """Counted pixel by pixel; colours that differ by one level of one channel are others."""
    colours = st.sampled_from([WHITE, (255, 255, 254), (254, 255, 255), (1, 0, 0), (0, 0, 0)])
    pixels = data.draw(st.lists(colours, min_size=width * height, max_size=width * height))
    picture = Image.new("RGB", (width, height))
    picture.putdata(pixels)
    [(_, commonest)] = Counter(pixels).most_common(1)
    assert ink(picture) == pytest.approx(1 - commonest / len(pixels), abs=1e-12)


# Mends


@pytest.mark.parametrize("name", MENDED)
def test_a_slip_that_changes_nothing_is_mended_and_named(rig: Rig, name: str) -> None:
    text, mends = MENDED[name]
    outcome = draw(rig, text)
    assert isinstance(outcome, Picture), outcome
    assert outcome.mended == mends


@pytest.mark.parametrize("name", NOT_MENDED)
def test_a_slip_that_needs_a_guess_is_a_failure(rig: Rig, name: str) -> None:
    outcome = draw(rig, NOT_MENDED[name])
    assert isinstance(outcome, RenderFailure) and outcome.kind == "invalid"
