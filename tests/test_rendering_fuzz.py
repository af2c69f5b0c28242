"""Whatever comes has an outcome: mutated drawings, and sound ones at the edge of the limits."""

from collections.abc import Iterator

import pytest
from honest_drawings import HONEST, MENDED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rendering_rig import CONFIG, Rig, assert_alive, draw, opened, svg

from mmzero_async.rendering.mending import fitted
from mmzero_async.rendering.outcomes import KINDS, Picture
from mmzero_async.rendering.preflight import Checked, preflight
from mmzero_async.rendering.references import too_entangled

KIB = 1 << 10


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """One warm pool for the whole file."""
    yield from opened(CONFIG)


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
