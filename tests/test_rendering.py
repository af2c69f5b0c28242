"""SVG from strangers: honest drawings become pictures, hostile ones cost one failure each."""

import asyncio
import base64
import io
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmzero_async.config import RendererConfig
from mmzero_async.rendering.errors import RenderingError
from mmzero_async.rendering.fonts import font_folder
from mmzero_async.rendering.mending import fitted
from mmzero_async.rendering.outcomes import KINDS, Picture, RenderFailure
from mmzero_async.rendering.pool import RenderPool
from mmzero_async.rendering.preflight import Checked, preflight
from mmzero_async.rendering.references import too_entangled

CONFIG = RendererConfig(size=64, children=1, wall_seconds=3.0)
XMLNS = 'xmlns="http://www.w3.org/2000/svg"'
KIB = 1 << 10
WHITE, RED, BLUE = (255, 255, 255), (255, 0, 0), (0, 0, 255)


def svg(body: str, attributes: str = 'viewBox="0 0 96 96"') -> str:
    return f"<svg {XMLNS} {attributes}>{body}</svg>"


RECT = '<rect x="10" y="10" width="50" height="40" fill="red"/>'
CHART = svg(
    '<defs><linearGradient id="a"><stop offset="0" stop-color="#123456"/></linearGradient>'
    '<linearGradient id="b" href="#a"/><g id="tick"><path d="M0 0h4" stroke="black"/></g>'
    '<clipPath id="c"><rect width="90" height="90"/></clipPath>'
    '<filter id="f"><feGaussianBlur stdDeviation="1"/></filter></defs>'
    "<style>.bar123456 { fill: #999999; opacity: 0.9 }</style>"
    '<g clip-path="url(#c)"><rect x="6" y="30" width="14" height="60" fill="url(#b)"/>'
    '<rect class="bar123456" x="30" y="10" width="14" height="80" filter="url(#f)"/></g>'
    '<use href="#tick" x="4" y="20"/><use href="#tick" x="4" y="40"/>'
    '<text x="50" y="20" font-family="Comic Sans MS" font-size="12">42 &amp; <tspan>7</tspan>'
    '</text><path d="M4 90H92" stroke="black"/>'
)

HONEST = {
    "a chart with gradients, clips, a filter, uses, a style and text": CHART,
    "a wide drawing": svg(RECT, 'viewBox="0 0 800 100"'),
    "a tall drawing": svg(RECT, 'viewBox="0 0 100 800"'),
    "sizes in pixels without a viewBox": svg(RECT, 'width="80" height="60"'),
    "sizes in centimetres": svg(RECT, 'width="4cm" height="2cm"'),
    "no size at all": svg(RECT, ""),
    "a size of 100 %": svg(RECT, 'width="100%" height="100%" viewBox="0 0 96 96"'),
    "a very large nominal size": svg(RECT, 'width="90000" height="90000" viewBox="0 0 96 96"'),
    "a prolog and a plain doctype": '<?xml version="1.0"?>\n<!DOCTYPE svg>\n' + svg(RECT),
    "a prefix for the namespace": (
        '<s:svg xmlns:s="http://www.w3.org/2000/svg" viewBox="0 0 9 9">'
        '<s:rect width="5" height="5"/></s:svg>'
    ),
    "what an editor leaves behind": svg(
        '<metadata><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/></metadata>'
        "<title>t</title><desc>d</desc>" + RECT
    ),
    "animation, drawn as its first frame": svg(
        '<rect width="40" height="40"><animate attributeName="x" to="9" dur="1s"/></rect>'
    ),
    "small numbers with many digits": svg('<rect width="20.123456789" height="3.3e1"/>'),
}

MENDED: dict[str, tuple[str, tuple[str, ...]]] = {
    "nothing amiss": (svg(RECT), ()),
    "no xmlns": (f'<svg viewBox="0 0 96 96">{RECT}<text x="9" y="90">abc</text></svg>', ("xmlns",)),
    "no xmlns:xlink": (svg(f'<g id="r">{RECT}</g><use xlink:href="#r" x="9"/>'), ("xlink",)),
    "a Markdown fence": (f"```svg\n{svg(RECT)}\n```", ("fence",)),
    "words around it": (f"Here it is: {svg(RECT)} I hope you like it.", ("prose",)),
    "a doctype": (
        '<?xml version="1.0"?><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" '
        f'"http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">{svg(RECT)}',
        ("doctype",),
    ),
    "an HTML entity": (svg(RECT + '<text y="20">a&nbsp;b&deg; &amp; c</text>'), ("entity",)),
    "all of them": (
        "Sure!\n```xml\n<!DOCTYPE svg>\n<svg viewBox='0 0 96 96'><g id='r'>"
        f"{RECT}</g><use xlink:href='#r'/><text y='9'>&frac12;</text></svg>\n```",
        ("doctype", "fence", "prose", "xmlns", "xlink", "entity"),
    ),
    "a comment before, with another root in it": (f"<!-- <svg> --> {svg(RECT)}", ()),
}
NOT_MENDED = {  # each would need a guess at what was meant
    "a bare ampersand": svg(RECT + "<text>R & D</text>"),
    "a bare less-than sign": svg(RECT + "<text>x < 5</text>"),
    "dashes in a comment": svg(RECT + "<!-- a -- b -->"),
    "an entity nobody knows": svg(RECT + "<text>&nosuch;</text>"),
    "an entity in a CDATA section beside a real one": svg("<text>&deg;<![CDATA[&deg;]]></text>"),
    "an attribute without quotes": svg("<rect width=9 height=9/>"),
    "a wrong xmlns": '<svg xmlns="https://www.w3.org/2000/svg"><rect/></svg>',
    "two drawings": svg(RECT) + svg(RECT),
}


def png_bomb() -> str:
    """A tiny file that claims 20,000 x 20,000 pixels."""
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 20000, 20000, 1, 0, 0, 0, 0)
    return "data:image/png;base64," + base64.b64encode(header).decode()


def nested(name: str, levels: int, reference: str) -> str:
    """Each level draws with the one before it, twice."""
    parts = [f'<{name} id="n0" width="1" height="1"><rect width="9" height="9"/></{name}>']
    for i in range(1, levels):
        inner = f'<rect width="9" height="9" {reference}="url(#n{i - 1})"/>' * 2
        parts.append(f'<{name} id="n{i}" width="1" height="1">{inner}</{name}>')
    use = f'<rect width="90" height="90" {reference}="url(#n{levels - 1})"/>'
    return svg(f"<defs>{''.join(parts)}</defs>{use}")


MANY = " ".join(f'a{i}=""' for i in range(300))
TENFOLD = ("".join([f"&e{i - 1};"] * 10) for i in range(1, 9))
ENTITIES = "".join(f'<!ENTITY e{i} "{value}">' for i, value in enumerate(TENFOLD, 1))
HOSTILE = {
    "nothing": ("", "invalid"),
    "prose": ("I cannot draw that.", "invalid"),
    "a cut-off drawing": (svg(RECT)[:-20], "invalid"),
    "tags that cross": (svg("<g><rect></g></rect>"), "invalid"),
    "another vocabulary": ('<svg xmlns="urn:other"><rect/></svg>', "invalid"),
    "a NUL": (svg("<text>\0</text>"), "invalid"),
    "a UTF-16 claim": ('<?xml version="1.0" encoding="UTF-16"?><svg/', "invalid"),
    "half a surrogate": (svg("<text>\ud800</text>"), "invalid"),
    "too many bytes": (svg("<g/>" * 20_000), "too_large"),
    "billion laughs": (f'<!DOCTYPE svg [<!ENTITY e0 "ha">{ENTITIES}]>{svg("&e8;")}', "forbidden"),
    "an external entity": (
        f'<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>{svg("<text>&x;</text>")}',
        "forbidden",
    ),
    "a script": (svg("<script>alert(1)</script>"), "forbidden"),
    "an event handler": (svg('<rect onload="x()" width="9" height="9"/>'), "forbidden"),
    "a foreign object": (svg("<foreignObject><p>hi</p></foreignObject>"), "forbidden"),
    "a file as an image": (svg('<image href="file:///etc/passwd"/>'), "forbidden"),
    "an endless file as an image": (svg('<image href="/dev/zero"/>'), "forbidden"),
    "a FIFO as an image": (svg('<image xlink:href="{fifo}"/>'), "forbidden"),
    "an image bomb": (svg(f'<image href="{png_bomb()}"/>'), "forbidden"),
    "a filter that reads a file": (
        svg('<filter id="f"><feImage href="/etc/passwd"/></filter>'),
        "forbidden",
    ),
    "a use of another file": (svg('<use href="other.svg#x"/>'), "forbidden"),
    "a paint from the network": (svg('<rect fill="url(http://x.example/#a)"/>'), "forbidden"),
    "an import": (svg("<style>@import 'x.css';</style>"), "forbidden"),
    "a style that refers outside": (svg("<style>a{fill:url(x.svg#a)}</style>"), "forbidden"),
    "a prefixed script": (
        f'<svg {XMLNS} xmlns:q="http://www.w3.org/2000/svg"><q:script/></svg>',
        "forbidden",
    ),
    "an import behind a comment": (svg("<style>a{}<!-- -->@import 'x.css';</style>"), "forbidden"),
    "an HTML page": (svg('<div xmlns="http://www.w3.org/1999/xhtml"/><iframe/>'), "forbidden"),
    "another base": (svg('<g xml:base="file:///etc/"/>'), "forbidden"),
    "a style sheet instruction": (svg('<?xml-stylesheet href="x.css"?>'), "forbidden"),
    "deep nesting": (svg("<g>" * 200 + "</g>" * 200), "limit:depth"),
    "many elements": (svg("<g/>" * 4000), "limit:elements"),
    "a huge number": (svg('<rect width="1e30" height="9"/>'), "limit:number"),
    "a huge number in a path": (svg('<path d="M0 0L9999999 5"/>'), "limit:number"),
    "a huge number in a style": (svg("<style>text{font-size:1e9px}</style>"), "limit:number"),
    "numbers in scientific clothes": (svg('<g transform="scale(1e+6)"/>'), "limit:number"),
    "not a number": (svg('<circle cx="NaN" cy="5" r="5"/>'), "limit:number"),
    "infinity": (svg('<circle cx="5" cy="-Infinity" r="5"/>'), "limit:number"),
    "a long attribute": (svg(f'<path d="M0 0{"h1" * 9000}"/>'), "limit:attribute"),
    "many attributes": (
        svg(f"<rect {MANY}/>"),
        "limit:attribute",
    ),
    "a long text": (svg(f"<text>{'x' * 9000}</text>"), "limit:text"),
    "a long text in parts": (
        svg("<text>" + f"<tspan>{'x' * 900}</tspan>" * 10 + "</text>"),
        "limit:text",
    ),
    "a use of itself": (svg('<g id="a"><use href="#a"/></g>'), "limit:references"),
    "two that use each other": (
        svg('<g id="a"><use href="#b"/></g><g id="b"><use href="#a"/></g>'),
        "limit:references",
    ),
    "uses that double": (
        svg(
            '<g id="u0"><rect width="9" height="9"/></g>'
            + "".join(
                f'<g id="u{i}"><use href="#u{i - 1}"/><use href="#u{i - 1}"/></g>'
                for i in range(1, 20)
            )
        ),
        "limit:references",
    ),
    "nested patterns": (nested("pattern", 15, "fill"), "limit:references"),
    "nested masks": (nested("mask", 15, "mask"), "limit:references"),
    "nested clips": (nested("clipPath", 15, "clip-path"), "limit:references"),
    "a huge pattern tile": (
        svg(
            '<pattern id="p" width="90000" height="90000" patternUnits="userSpaceOnUse">'
            '<rect width="1" height="1"/></pattern><rect width="9" height="9" fill="url(#p)"/>'
        ),
        "limit:pattern",
    ),
    "a pattern tile many times what it fills": (
        svg('<pattern id="p" width="50" height="1"/>'),
        "limit:pattern",
    ),
    "memory for a tile that only the engine can size": (
        svg(
            '<pattern id="p" width="4" height="4"><rect width="1" height="1"/></pattern>'
            '<rect width="99999" height="99999" fill="url(#p)"/>'
        ),
        "memory",
    ),
    "endless turbulence": (
        svg('<filter id="f"><feTurbulence numOctaves="90000"/></filter>'),
        "limit:filter",
    ),
    "a wide morphology": (
        svg('<filter id="f"><feMorphology radius="5000"/></filter>'),
        "limit:filter",
    ),
    "a long filter": (svg(f'<filter id="f">{"<feOffset/>" * 50}</filter>'), "limit:filter"),
    "many filtered elements": (svg('<g filter="url(#f)"/>' * 30), "limit:filter"),
    "many filtered elements by style": (svg('<g style="filter:url(#f)"/>' * 30), "limit:filter"),
    "many layers": (svg('<g opacity="0.5"><path/></g>' * 300), "limit:layers"),
    "an empty drawing": (svg(""), "blank"),
    "one flat colour": (svg('<rect width="96" height="96" fill="navy"/>'), "blank"),
    "a drawing off its canvas": (svg('<rect x="500" width="9" height="9"/>'), "blank"),
}


SLOW = svg(
    '<filter id="f" x="0" y="0" width="1" height="1">'
    + '<feTurbulence numOctaves="8" baseFrequency="0.9"/>' * 8
    + "</filter>"
    + '<rect width="96" height="96" filter="url(#f)"/>' * 20
)


def nested_by_class(name: str, levels: int, prop: str) -> str:
    """As `nested`, with the references in a style, where the pre-flight sees no owner."""
    sheet = "".join(f".c{i}{{{prop}:url(#n{i})}}" for i in range(levels))
    bodies = ['<rect width="9" height="9"/>']
    bodies += [f'<rect width="9" height="9" class="c{i}"/>' * 2 for i in range(levels - 1)]
    parts = "".join(
        f'<{name} id="n{i}" width="1" height="1">{body}</{name}>' for i, body in enumerate(bodies)
    )
    last = f'<rect width="90" height="90" class="c{levels - 1}"/>'
    return svg(f"<style>{sheet}</style><defs>{parts}</defs>{last}")


LATE = {  # only the child's own limits stop these
    "patterns nested by class": nested_by_class("pattern", 20, "fill"),
    "masks nested by class": nested_by_class("mask", 20, "mask"),
    "a marker on every point": svg(
        f'<marker id="m">{RECT * 200}</marker><path d="M0 0{"h1" * 4000}" marker-mid="url(#m)"/>'
    ),
    "a pattern's view box of almost nothing": svg(
        '<pattern id="p" width="4" height="4" viewBox="0 0 0.00001 0.00001"><rect width="1" '
        'height="1"/></pattern><rect width="90000" height="90000" fill="url(#p)"/>'
    ),
}


@pytest.fixture(scope="module")
def rig() -> Iterator["Rig"]:
    """One warm pool for the whole file."""
    with asyncio.Runner() as runner:
        pool = RenderPool(CONFIG)
        runner.run(pool.__aenter__())
        yield runner, pool
        runner.run(pool.__aexit__(None, None, None))


Rig = tuple[asyncio.Runner, RenderPool]


def draw(rig: Rig, text: str) -> Picture | RenderFailure:
    runner, pool = rig
    return runner.run(asyncio.wait_for(pool.render(text), 30))


def drawn(rig: Rig, text: str) -> Image.Image:
    outcome = draw(rig, text)
    assert isinstance(outcome, Picture), outcome
    return Image.open(io.BytesIO(outcome.png)).convert("RGB")


def unseen() -> str:
    """A good drawing that no cache knows."""
    return svg(RECT + f"<!--{os.urandom(8).hex()}-->")


def assert_alive(rig: Rig) -> None:
    assert isinstance(draw(rig, unseen()), Picture)


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


# Hostile drawings


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_drawing_costs_one_failure_and_the_pool_goes_on(
    rig: Rig, name: str, tmp_path: Path
) -> None:
    text, kind = HOSTILE[name]
    os.mkfifo(tmp_path / "fifo")
    outcome = draw(rig, text.replace("{fifo}", str(tmp_path / "fifo")))
    assert isinstance(outcome, RenderFailure)
    assert outcome.kind == kind
    assert outcome.kind in KINDS and outcome.detail
    assert_alive(rig)


@pytest.mark.parametrize("name", LATE)
async def test_a_bomb_that_passes_the_pre_flight_costs_one_failure_too(name: str) -> None:
    async with RenderPool(RendererConfig(size=64, wall_seconds=1.2)) as pool:
        outcome = await pool.render(LATE[name])
        assert isinstance(outcome, RenderFailure)
        assert outcome.kind in ("timeout", "memory", "crashed")
        assert isinstance(await pool.render(unseen()), Picture)


async def test_a_child_that_computes_too_long_ends_by_its_cpu_time() -> None:
    async with RenderPool(RendererConfig(size=512, wall_seconds=0.6)) as pool:
        outcome = await pool.render(SLOW)
        assert isinstance(outcome, RenderFailure) and outcome.kind == "timeout"


async def test_a_child_killed_in_mid_render_costs_that_render_and_is_replaced() -> None:
    async with RenderPool(RendererConfig(size=1024, wall_seconds=30)) as pool:
        (victim,) = pool.pids
        running = asyncio.create_task(pool.render(SLOW))
        await asyncio.sleep(0.1)
        os.kill(victim, signal.SIGKILL)
        outcome = await running
        assert isinstance(outcome, RenderFailure)
        assert outcome.kind == "crashed" and "-9" in outcome.detail
        assert isinstance(await pool.render(CHART), Picture)
        assert len(pool.pids) == 1 and victim not in pool.pids


async def test_a_child_lost_between_renders_costs_none() -> None:
    async with RenderPool(CONFIG) as pool:
        (victim,) = pool.pids
        os.kill(victim, signal.SIGKILL)
        await asyncio.to_thread(wait_for_the_end_of, victim)
        await asyncio.sleep(0.2)  # the event loop hears of it
        assert isinstance(await pool.render(unseen()), Picture)
        assert len(pool.pids) == 1 and victim not in pool.pids


async def test_a_child_does_not_mind_the_signals_that_stop_its_parent() -> None:
    async with RenderPool(CONFIG) as pool:
        before = pool.pids
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(before[0], number)
        assert isinstance(await pool.render(unseen()), Picture)
        assert pool.pids == before


# Children that misbehave: a script in the child's place

FAKE = """
import os, sys, time
from mmzero_async.rendering.frames import LENGTH, Ready, Reply, read_frame, write_frame
pipe = sys.stdout.buffer
def say(data):
    pipe.write(data)
    pipe.flush()
read_frame(sys.stdin.buffer)
write_frame(pipe, Ready(["fake"], "fake"))
read_frame(sys.stdin.buffer)
"""


@pytest.mark.parametrize(
    ("then", "kind"),
    [
        ("time.sleep(60)", "timeout"),
        ("say(LENGTH.pack(5) + b'abc'); time.sleep(60)", "timeout"),
        ("say(LENGTH.pack(5) + b'\\xc1abcd'); time.sleep(60)", "crashed"),
        ("say(LENGTH.pack(2**31)); time.sleep(60)", "crashed"),
        ("write_frame(pipe, Reply(failure='surprise'))", "crashed"),
        ("sys.exit(3)", "crashed"),
        ("os.abort()", "crashed"),
        ("os.close(1); time.sleep(60)", "crashed"),
    ],
)
async def test_a_child_that_babbles_or_falls_silent_costs_one_failure(then: str, kind: str) -> None:
    command = (sys.executable, "-c", FAKE + then)
    config = RendererConfig(size=64, wall_seconds=0.5 if kind == "timeout" else 20)
    async with RenderPool(config, command=command) as pool:
        outcome = await pool.render(CHART)
        assert isinstance(outcome, RenderFailure) and outcome.kind == kind


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("/nonexistent/python",), "cannot be started: /nonexistent/python"),
        ((sys.executable, "-c", "import sys; sys.exit('no engine here')"), "no engine here"),
    ],
)
async def test_a_child_that_cannot_start_is_an_error_that_says_why_and_what_to_do(
    command: tuple[str, ...], said: str
) -> None:
    with pytest.raises(RenderingError, match=said) as caught:
        async with RenderPool(CONFIG, command=command):
            pass
    assert "Check" in str(caught.value)


async def test_a_pool_with_too_little_memory_says_so_at_the_start() -> None:
    with pytest.raises(RenderingError, match=r"renderer\.memory_mib"):
        async with RenderPool(RendererConfig(size=64, memory_mib=8)):
            pass


# Many at once, cancelled, closed


async def test_a_render_that_is_cancelled_leaves_no_answer_for_the_next_caller() -> None:
    config = RendererConfig(size=64, wall_seconds=20)
    async with RenderPool(config, cached_mib=0) as pool:
        expected = await pool.render(CHART)
        assert isinstance(expected, Picture)
        for delay in (0.0, 0.001, 0.003, 0.01, 0.03):
            victim = asyncio.create_task(pool.render(svg(RECT)))
            waiting = asyncio.create_task(pool.render(svg(RECT)))
            await asyncio.sleep(delay)
            victim.cancel()
            waiting.cancel()
            outcome = await pool.render(CHART)
            assert isinstance(outcome, Picture) and outcome.png == expected.png
        assert len(pool.pids) == 1


async def test_a_long_render_that_is_cancelled_frees_its_place_at_once() -> None:
    async with RenderPool(RendererConfig(size=512, wall_seconds=60)) as pool:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await pool.render(SLOW)
        async with asyncio.timeout(15):
            assert isinstance(await pool.render(CHART), Picture)


async def test_many_renders_share_few_children_and_each_gets_its_own_picture() -> None:
    async with RenderPool(RendererConfig(size=64, children=2, wall_seconds=20)) as pool:
        drawings = [
            svg(f'<rect x="{i}" y="10" width="{9 + i}" height="40" fill="rgb({i},0,255)"/>')
            for i in range(40)
        ]
        outcomes = await asyncio.gather(*(pool.render(drawing) for drawing in drawings))
        for i, outcome in enumerate(outcomes):
            assert isinstance(outcome, Picture)
            image = Image.open(io.BytesIO(outcome.png)).convert("RGB")
            assert (i, 0, 255) in {colour for _, colour in image.getcolors() or []}
        assert len(pool.pids) == 2
        again = await asyncio.gather(*(pool.render(drawing) for drawing in drawings))
        assert again == outcomes  # seconds too: answered from the cache


async def test_good_renders_beside_bombs_are_all_drawn() -> None:
    async with RenderPool(RendererConfig(size=64, children=2, wall_seconds=20)) as pool:
        bomb = HOSTILE["memory for a tile that only the engine can size"][0]
        texts = [bomb if i % 4 == 0 else unseen() for i in range(16)]
        outcomes = await asyncio.gather(*(pool.render(text) for text in texts))
        kinds = [o.kind if isinstance(o, RenderFailure) else "" for o in outcomes]
        assert kinds == ["memory" if i % 4 == 0 else "" for i in range(16)]


async def test_closing_ends_the_children_and_wakes_all_who_wait() -> None:
    async with RenderPool(RendererConfig(size=512, wall_seconds=60)) as pool:
        pids = pool.pids
        tasks = [asyncio.create_task(pool.render(SLOW + " " * i)) for i in range(4)]
        await asyncio.sleep(0.1)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, RenderingError) for outcome in outcomes), outcomes
    assert not any(is_alive(pid) for pid in pids)
    with pytest.raises(RenderingError, match="closed"):
        await pool.render(CHART)


def test_children_end_even_when_their_parent_is_killed_while_they_draw() -> None:
    script = (
        "import asyncio, sys\n"
        "from mmzero_async.config import RendererConfig\n"
        "from mmzero_async.rendering.pool import RenderPool\n"
        "async def main():\n"
        "    async with RenderPool(RendererConfig(size=1024, wall_seconds=90)) as pool:\n"
        "        drawing = asyncio.create_task(pool.render(sys.stdin.read()))\n"
        "        await asyncio.sleep(0.1)\n"
        "        print(*pool.pids, flush=True)\n"
        "        await drawing\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        (sys.executable, "-c", script), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        parent.stdin.write(SLOW)
        parent.stdin.close()
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
    wait_for_the_end_of(pid)


def wait_for_the_end_of(pid: int) -> None:
    deadline = time.monotonic() + 20
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} still runs"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process runs, zombies not counted."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# What confines a child

PROBES = {
    "landlock": "open('/etc/hosts').close()",
    "seccomp": "import socket; socket.socket()",
    "seccomp fork": "os.fork() or os._exit(0)",
    "seccomp exec": "os.execv('/bin/true', ['true'])",
    "seccomp kill": "os.kill(os.getppid(), 0)",
    "rlimits": "open('/dev/null').close(); bytearray(1 << 29)",
}


@pytest.mark.parametrize("probe", PROBES)
def test_each_measure_that_is_named_holds(rig: Rig, probe: str) -> None:
    if probe.split()[0] not in rig[1].isolation:
        pytest.skip(f"this kernel has no {probe.split()[0]}")
    script = (
        "import os, sys, socket, threading\nfrom pathlib import Path\n"
        "from mmzero_async.rendering.guard import confine\n"
        f"confine(256, Path({str(font_folder())!r}))\n"
        f"next(Path({str(font_folder())!r}).glob('*.ttf')).read_bytes()\n"
        "thread = threading.Thread(target=print, args=('ready',), kwargs={'flush': True})\n"
        "thread.start(); thread.join()\n"
        f"try:\n    {PROBES[probe]}\n"
        "except (OSError, MemoryError): sys.exit(7)\n"
    )
    done = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (7, "ready\n"), done.stderr


def test_a_measure_that_does_not_take_hold_is_not_named_and_nothing_fails() -> None:
    script = (
        "from pathlib import Path\nfrom mmzero_async.rendering.guard import confine\n"
        "print(*confine(256, Path('/no/such/folder')))\n"
    )
    done = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "rlimits" in done.stdout and "landlock" not in done.stdout


def test_a_child_says_what_confines_it(rig: Rig) -> None:
    assert rig[1].isolation[:2] == ("process", "rlimits")


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("child", {"torch", "transformers", "numpy", "asyncio"}),
        ("pool", {"torch", "transformers", "numpy", "resvg_py", "PIL"}),
    ],
)
def test_neither_side_imports_what_it_does_not_need(module: str, unwanted: set[str]) -> None:
    script = f"import sys, mmzero_async.rendering.{module}; print(*sys.modules)"
    done = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True)
    assert unwanted.isdisjoint(done.stdout.split())


# Whatever comes


def mutations() -> st.SearchStrategy[str]:
    """Honest drawings with stretches cut, doubled or replaced by what XML does not expect."""
    edits = st.tuples(
        st.integers(0, 1200),
        st.integers(0, 40),
        st.sampled_from(
            ["", "<", ">", "&", '"', "]]>", "<!--", "-->", "<g>", "</g>", "1e9", "-", "NaN", "url("]
        )
        | st.text(max_size=8),
    )

    def apply(text: str, changes: list[tuple[int, int, str]]) -> str:
        for at, length, inserted in changes:
            text = text[:at] + inserted + text[at + length :]
        return text

    sources = [*HONEST.values(), *(text for text, _ in MENDED.values())]
    return st.builds(apply, st.sampled_from(sources), st.lists(edits, min_size=1, max_size=5))


NAMES = """g rect circle ellipse line polyline polygon path text tspan use symbol svg pattern mask
clipPath marker filter feTurbulence feMorphology feGaussianBlur feTile feFlood feConvolveMatrix
linearGradient radialGradient stop switch a textPath defs"""
PLACED = """x y width height rx r cx cy x1 y2 dx offset font-size stroke-width stroke-miterlimit
patternUnits textLength"""
PAINTED = "fill stroke mask filter clip-path marker-mid"
WORDED = "d points transform stroke-dasharray viewBox kernelMatrix"
HEAVY = "radius order stdDeviation baseFrequency numOctaves"


def one_of(words: str) -> st.SearchStrategy[str]:
    return st.sampled_from(words.split())


def drawings() -> st.SearchStrategy[str]:
    """Well-formed drawings of real elements, with attributes from the edge of what is allowed."""
    number = st.sampled_from(["0", "-1", "0.5", "7", "60", "1e-9", "99999", "-99999", "50%", "3e4"])
    paint = st.sampled_from(["red", "none", "url(#p)", "url(#q)", "url(#no)", "currentColor", "x"])
    words = st.sampled_from(["M0 0L9 9Z", "M1 1a5 5 0 0 1 9 9", "1 2 3", "rotate(5)", "scale(9e4)"])
    attribute = (
        st.tuples(one_of(PLACED), number)
        | st.tuples(one_of(PAINTED), paint)
        | st.tuples(one_of(WORDED), words)
        | st.tuples(one_of(HEAVY), number)
        | st.tuples(st.just("href"), st.sampled_from(["#p", "#q", "#no"]))
        | st.tuples(st.just("id"), st.sampled_from("pq"))
        | st.tuples(st.just("opacity"), number)
    )

    def element(name: str, attributes: dict[str, str], inside: list[str]) -> str:
        written = "".join(f' {key}="{value}"' for key, value in attributes.items())
        return f"<{name}{written}>{''.join(inside)}</{name}>"

    attributes = st.lists(attribute, max_size=5).map(dict)
    name = one_of(NAMES)
    tree = st.recursive(
        st.sampled_from(["", "Text", "&amp;"]),
        lambda inside: st.builds(element, name, attributes, st.lists(inside, max_size=4)),
        max_leaves=12,
    )
    return st.builds(lambda parts: svg("".join(parts)), st.lists(tree, min_size=1, max_size=5))


@settings(max_examples=200, deadline=None)
@given(mutations() | drawings() | st.text(max_size=80))
def test_preflight_never_raises_and_what_passes_is_stable(text: str) -> None:
    first = preflight(text, 64 * KIB)
    if isinstance(first, Checked):
        assert preflight(first.svg, 64 * KIB) == Checked(first.svg)
        again = preflight(fitted(first.svg, 64), 64 * KIB)
        assert again == Checked(fitted(first.svg, 64))
    else:
        assert first.kind in KINDS


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=mutations() | drawings())
def test_whatever_comes_has_an_outcome(rig: Rig, text: str) -> None:
    outcome = draw(rig, text)
    assert isinstance(outcome, Picture) or outcome.kind in KINDS


def test_the_pool_is_alive_after_all_that(rig: Rig) -> None:
    assert_alive(rig)


@given(
    st.dictionaries(
        st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=3), max_size=6
    )
)
def test_a_graph_with_a_cycle_is_refused_whenever_the_drawing_reaches_it(
    graph: dict[str, list[str]],
) -> None:
    def cyclic(node: str, path: tuple[str, ...]) -> bool:
        return node in path or any(cyclic(to, (*path, node)) for to in graph.get(node, []))

    whole = {**graph, "": [target for targets in graph.values() for target in targets]}
    found = too_entangled(whole)
    assert (found is not None and "itself" in found) == any(cyclic(n, ()) for n in whole[""])
