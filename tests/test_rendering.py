"""SVG from strangers: honest drawings become pictures, hostile ones cost one failure each."""

import asyncio
import base64
import io
import os
import signal
import struct
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmzero_async.config import RendererConfig
from mmzero_async.rendering.mending import fitted
from mmzero_async.rendering.outcomes import Picture, RenderFailure
from mmzero_async.rendering.pool import RenderPool
from mmzero_async.rendering.preflight import Passed, preflight
from mmzero_async.rendering.references import too_entangled

CONFIG = RendererConfig(size=64, children=1, wall_seconds=3.0)
XMLNS = 'xmlns="http://www.w3.org/2000/svg"'
KIB = 1 << 10


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

MENDED = {
    "no xmlns": (f'<svg viewBox="0 0 96 96">{RECT}<text x="9" y="90">abc</text></svg>', "xmlns"),
    "no xmlns:xlink": (svg(f'<g id="r">{RECT}</g><use xlink:href="#r" x="9"/>'), "xlink"),
    "a Markdown fence": (f"```svg\n{svg(RECT)}\n```", "fence"),
    "a doctype": ("<!DOCTYPE svg>" + svg(RECT), "doctype"),
    "a bare ampersand": (svg(RECT + '<text y="20">R & D</text>'), "ampersand"),
    "a bare less-than sign": (svg(RECT + '<text y="20">x < 5</text>'), "less_than"),
    "an HTML entity": (svg(RECT + '<text y="20">a&nbsp;b&deg;</text>'), "entity"),
    "dashes in a comment": (svg(RECT + "<!-- a -- b -->"), "comment"),
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


TENFOLD = ("".join([f"&e{i - 1};"] * 10) for i in range(1, 9))
ENTITIES = "".join(f'<!ENTITY e{i} "{value}">' for i, value in enumerate(TENFOLD, 1))
HOSTILE = {
    "nothing": ("", "invalid"),
    "prose": ("I cannot draw that.", "invalid"),
    "a cut-off drawing": (svg(RECT)[:-20], "invalid"),
    "tags that cross": (svg("<g><rect></g></rect>"), "invalid"),
    "another vocabulary": ('<svg xmlns="urn:other"><rect/></svg>', "invalid"),
    "a NUL": (svg("<text>\0</text>"), "invalid"),
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
    "a style sheet instruction": (svg('<?xml-stylesheet href="x.css"?>'), "forbidden"),
    "deep nesting": (svg("<g>" * 200 + "</g>" * 200), "limit:depth"),
    "many elements": (svg("<g/>" * 4000), "limit:elements"),
    "a huge number": (svg('<rect width="1e30" height="9"/>'), "limit:number"),
    "a huge number in a path": (svg('<path d="M0 0L9999999 5"/>'), "limit:number"),
    "a huge number in a style": (svg("<style>text{font-size:1e9px}</style>"), "limit:number"),
    "not a number": (svg('<circle cx="NaN" cy="5" r="5"/>'), "limit:number"),
    "infinity": (svg('<circle cx="5" cy="-Infinity" r="5"/>'), "limit:number"),
    "a long attribute": (svg(f'<path d="M0 0{"h1" * 9000}"/>'), "limit:attribute"),
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
    "endless turbulence": (
        svg('<filter id="f"><feTurbulence numOctaves="90000"/></filter>'),
        "limit:filter",
    ),
    "a wide morphology": (
        svg('<filter id="f"><feMorphology radius="5000"/></filter>'),
        "limit:filter",
    ),
    "a long filter": (svg(f'<filter id="f">{"<feOffset/>" * 50}</filter>'), "limit:filter"),
    "many layers": (svg('<g opacity="0.5"><path/></g>' * 300), "limit:layers"),
    "an empty drawing": (svg(""), "blank"),
    "one flat colour": (svg('<rect width="96" height="96" fill="navy"/>'), "blank"),
    "a drawing off its canvas": (svg('<rect x="500" width="9" height="9"/>'), "blank"),
}


@pytest.fixture(scope="module")
def loop_pool() -> AsyncIterator[tuple[asyncio.Runner, RenderPool]]:
    """One warm pool for the whole file; a child takes half a second to start."""
    with asyncio.Runner() as runner:
        pool = RenderPool(CONFIG)
        runner.run(pool.__aenter__())
        yield runner, pool
        runner.run(pool.__aexit__(None, None, None))


Rig = tuple[asyncio.Runner, RenderPool]


def draw(rig: Rig, text: str) -> Picture | RenderFailure:
    runner, pool = rig
    return runner.run(asyncio.wait_for(pool.render(text), 30))


def assert_alive(rig: Rig) -> None:
    assert isinstance(draw(rig, svg(RECT + f"<!--{os.urandom(4).hex()}-->")), Picture)


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_drawing_becomes_a_picture_of_the_exact_size(loop_pool: Rig, name: str) -> None:
    outcome = draw(loop_pool, HONEST[name])
    assert isinstance(outcome, Picture), outcome
    image = Image.open(io.BytesIO(outcome.png))
    assert image.size == (64, 64) == (outcome.width, outcome.height)
    assert 0.002 < outcome.ink <= 1


def test_a_wide_drawing_stands_in_the_middle_on_white_with_its_aspect_kept(loop_pool: Rig) -> None:
    outcome = draw(loop_pool, svg('<rect width="80" height="40"/>', 'width="80" height="40"'))
    assert isinstance(outcome, Picture)
    image = Image.open(io.BytesIO(outcome.png)).convert("RGB")
    column = [image.getpixel((32, y)) for y in range(64)]
    assert column == [(255, 255, 255)] * 16 + [(0, 0, 0)] * 32 + [(255, 255, 255)] * 16


def test_two_pools_draw_the_same_bytes_under_the_same_renderer_id(loop_pool: Rig) -> None:
    async def elsewhere() -> tuple[str, Picture | RenderFailure]:
        async with RenderPool(CONFIG) as pool:
            return pool.renderer_id, await pool.render(CHART)

    runner, pool = loop_pool
    name, other = runner.run(elsewhere())
    here = draw(loop_pool, CHART)
    assert isinstance(here, Picture) and isinstance(other, Picture)
    assert (name, other.png) == (pool.renderer_id, here.png)


@pytest.mark.parametrize("name", MENDED)
def test_a_slip_of_the_pen_is_mended_and_named(loop_pool: Rig, name: str) -> None:
    text, mend = MENDED[name]
    outcome = draw(loop_pool, text)
    assert isinstance(outcome, Picture), outcome
    assert outcome.mended == (mend,)


def test_text_is_drawn_even_without_xmlns_and_with_an_unknown_font(loop_pool: Rig) -> None:
    text = '<text x="5" y="60" font-size="50" font-family="No Such Font">MMM</text>'
    with_it, without = (
        draw(loop_pool, svg(text)),
        draw(loop_pool, f'<svg viewBox="0 0 96 96">{text}</svg>'),
    )
    assert isinstance(with_it, Picture) and isinstance(without, Picture)
    assert with_it.png == without.png


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_drawing_costs_one_failure_and_the_pool_goes_on(
    loop_pool: Rig, name: str
) -> None:
    text, kind = HOSTILE[name]
    outcome = draw(loop_pool, text)
    assert isinstance(outcome, RenderFailure)
    assert outcome.kind == kind
    assert outcome.detail
    assert_alive(loop_pool)


SLOW = svg(
    '<filter id="f" x="0" y="0" width="1" height="1">'
    + '<feTurbulence numOctaves="8" baseFrequency="0.9"/>' * 8
    + "</filter>"
    + '<rect width="96" height="96" filter="url(#f)"/>' * 20
)


async def test_a_child_that_computes_too_long_is_replaced_after_its_cpu_time() -> None:
    async with RenderPool(RendererConfig(size=512, wall_seconds=0.6)) as pool:
        outcome = await pool.render(SLOW)
        assert isinstance(outcome, RenderFailure) and outcome.kind == "timeout"
    async with RenderPool(RendererConfig(size=64, wall_seconds=3, memory_mib=256)) as pool:
        assert isinstance(await pool.render(CHART), Picture)


async def test_a_child_killed_in_mid_render_costs_that_render_and_is_replaced() -> None:
    async with RenderPool(RendererConfig(size=1024, children=2, wall_seconds=20)) as pool:
        victims = [child.process.pid for child in list(pool._idle._queue) if child]  # type: ignore[attr-defined]
        assert len(victims) == 2
        running = asyncio.create_task(pool.render(SLOW))
        await asyncio.sleep(0.1)
        os.kill(victims[0], signal.SIGKILL)
        outcome = await running
        assert isinstance(outcome, RenderFailure)
        assert outcome.kind == "crashed" and "-9" in outcome.detail
        assert isinstance(await pool.render(CHART), Picture)


async def test_a_render_that_is_cancelled_leaves_the_pool_whole() -> None:
    async with RenderPool(RendererConfig(size=512, wall_seconds=20)) as pool:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await pool.render(SLOW)
        assert isinstance(await pool.render(CHART), Picture)


async def test_many_renders_share_few_children_and_each_gets_its_own_picture() -> None:
    async with RenderPool(RendererConfig(size=64, children=2, wall_seconds=10)) as pool:
        drawings = [
            svg(f'<rect x="{i}" y="10" width="{9 + i}" height="40" fill="teal"/>')
            for i in range(30)
        ]
        outcomes = await asyncio.gather(*(pool.render(drawing) for drawing in drawings))
        assert all(isinstance(outcome, Picture) for outcome in outcomes)
        again = await asyncio.gather(*(pool.render(drawing) for drawing in drawings))
        assert again == outcomes  # seconds too: answered from the cache
        assert len({outcome.png for outcome in outcomes}) == 30  # type: ignore[union-attr]


def test_the_child_says_what_confines_it(loop_pool: Rig) -> None:
    assert loop_pool[1].isolation.startswith("process, rlimits")


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


@settings(max_examples=150, deadline=None)
@given(mutations() | st.text(max_size=80))
def test_preflight_never_raises_and_what_passes_is_stable(text: str) -> None:
    first = preflight(text, 64 * KIB)
    if isinstance(first, Passed):
        again = preflight(first.svg, 64 * KIB)
        assert again == Passed(first.svg)
        fitted(first.svg, 64)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(text=mutations())
def test_a_mutated_drawing_always_has_an_outcome(loop_pool: Rig, text: str) -> None:
    assert isinstance(draw(loop_pool, text), Picture | RenderFailure)


def test_the_pool_is_alive_after_all_that(loop_pool: Rig) -> None:
    assert_alive(loop_pool)


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
