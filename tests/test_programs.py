"""Plotting programs: sound ones become pictures, the same each time; a refusal names its line."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from honest_programs import HONEST
from hostile_programs import PLT, REFUSED
from PIL import Image
from rendering_rig import Rig, draw, drawn, opened

from mmzero_async.config import RendererConfig
from mmzero_async.rendering.outcomes import KINDS, Picture, RenderFailure
from mmzero_async.rendering.pool import RenderPool
from mmzero_async.rendering.programs.check import Checked, checked

CONFIG = RendererConfig(size=64, wall_seconds=30.0)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """One warm pool for the whole file."""
    yield from opened(CONFIG, "matplotlib")


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_program_becomes_a_picture_of_the_exact_size(rig: Rig, name: str) -> None:
    outcome = draw(rig, HONEST[name])
    assert isinstance(outcome, Picture), outcome
    assert drawn(rig, HONEST[name]).size == (64, 64) == (outcome.width, outcome.height)
    assert 0.002 < outcome.ink <= 1 and len(outcome.fingerprint) == 288


def test_a_figure_keeps_its_aspect_in_the_middle_of_the_square(rig: Rig) -> None:
    image = drawn(rig, PLT + "plt.figure(figsize=(8, 4), facecolor='red')")
    assert image.crop((0, 16, 64, 48)).getcolors() == [(64 * 32, (255, 0, 0))]
    assert (64 * 32, (255, 255, 255)) in (image.getcolors() or [])


def test_what_shows_keeps_or_closes_the_picture_is_left_out_and_named(rig: Rig) -> None:
    plot = PLT + "fig = plt.figure()\nplt.plot([1, 2])\n"
    kept = draw(rig, plot + "fig.savefig('/x/y.png', dpi=9)\nplt.show()\nplt.close('all')")
    bare = draw(rig, plot)
    assert isinstance(kept, Picture) and isinstance(bare, Picture)
    assert kept.mended == ("close", "savefig", "show") and bare.mended == ()
    assert kept.png == bare.png


def test_the_same_program_gives_the_same_bytes_in_another_pool_whatever_was_drawn_between() -> None:
    names = ["lines and a legend", "chance without a seed", "a table", "in three dimensions"]
    order = PLT + "plt.title(''.join({'a', 'b', 'c', 'd', 'e', 'f', 'g'}))"
    programs = [*(HONEST[name] for name in names), order]

    def pictures() -> list[tuple[bytes, ...]]:
        found = []
        for rig in opened(CONFIG, "matplotlib", cached_mib=0):
            for some in (programs, programs[::-1]):
                outcomes = [draw(rig, text) for text in some]
                found.append(tuple(it.png for it in outcomes if isinstance(it, Picture)))
        return found

    first, backwards, again, last = pictures() + pictures()
    assert len(first) == len(programs)
    assert first == again == backwards[::-1] == last[::-1]


def test_the_renderer_id_names_engine_versions_size_fonts_and_rules(rig: Rig) -> None:
    words = rig[1].renderer_id.split()
    assert words[:2] == ["matplotlib", "3.11.2"]
    assert {"numpy", "freetype", "options", "64px", "fonts", "rules"} <= set(words)


def test_the_users_own_settings_and_fonts_change_nothing(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = HONEST["bars with labels"]
    expected = draw(rig, text)
    (tmp_path / "matplotlibrc").write_text("axes.facecolor: red\nfont.family: monospace\n")
    monkeypatch.setenv("MATPLOTLIBRC", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "svg")
    monkeypatch.chdir(tmp_path)
    for other in opened(CONFIG, "matplotlib"):
        outcome = draw(other, text)
        assert isinstance(outcome, Picture) and isinstance(expected, Picture)
        assert outcome.png == expected.png
    assert [path.name for path in tmp_path.iterdir()] == ["matplotlibrc"]


async def test_what_is_written_in_a_program_cannot_be_told() -> None:
    async with RenderPool(CONFIG, drawing="matplotlib") as pool:
        assert await pool.writing(PLT + "plt.title('text')") is None
        picture = await pool.render(PLT + "plt.title('text')")
    assert isinstance(picture, Picture)
    assert Image.open(io.BytesIO(picture.png)).info == {}


# The check


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_program_passes_the_check(name: str) -> None:
    assert isinstance(checked(HONEST[name]), Checked)


@pytest.mark.parametrize(
    "name", [name for name in REFUSED if REFUSED[name][1][:3] in ("pro", "lim")]
)
def test_a_refusal_has_a_kind_of_its_own_and_names_the_line(name: str) -> None:
    text, kind = REFUSED[name]
    below = "x = 1\nx = 2\n" + text
    verdict = checked(below)
    assert isinstance(verdict, RenderFailure), "it passed"
    assert (verdict.kind, verdict.kind in KINDS) == (kind, True), verdict.detail
    line = int(verdict.detail.removeprefix("line ").partition(":")[0])
    if kind != "program:syntax":  # a NUL or too deep a nesting has no line in Python's own words
        assert 3 <= line <= 3 + text.count("\n")


def test_every_kind_of_refusal_is_reached_by_some_program() -> None:
    kinds = {kind for kind in KINDS if kind.startswith("program:")}
    found = {kind for _, kind in REFUSED.values()}
    assert kinds - found == {"program:error", "program:empty"}  # found while it runs
    assert {"limit:nodes", "limit:depth", "limit:literal"} <= found


@pytest.mark.parametrize(
    "text",
    [
        "import numpy as np\nnp.random.default_rng(3).integers(5)",
        "from matplotlib import pyplot\npyplot.plot([1])",
        "import matplotlib.pyplot\nmatplotlib.pyplot.plot([1])",
        "from matplotlib.pyplot import plot, cm\nplot([1], color=cm.viridis(0.5))",
        "from numpy import random, linalg\nlinalg.norm(random.rand(3))",
        "import matplotlib.pyplot as plt\nplt.colormaps['viridis'](0.5)",
        "'{:>{w}}'.format(1, w=2)",
        "'{:.1f} {0!r}'.format(1.0)",
        "if __name__ == '__main__':\n    print('x')",
        "sum = 0\nfor _ in range(3):\n    sum += 1",
    ],
)
def test_what_drawings_need_passes(text: str) -> None:
    assert isinstance(checked(text), Checked)
