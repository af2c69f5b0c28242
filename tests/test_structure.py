"""The structure of a drawing: what it does not see, what it tells apart, what follows from it."""

import random
import re
from collections.abc import Iterator
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from builders import rendered, whole_tree
from grown_log import SMALL, Log, varied_tree
from hypothesis import given, settings
from hypothesis import strategies as st
from rendering_rig import CHART, CONFIG, RECT, Rig, draw, opened, svg
from reward_builders import PROPOSER, proposal, proposed

from mmzero_async.config import ConfigError, load
from mmzero_async.filter_options import FACTS
from mmzero_async.learner.scoring import Scored
from mmzero_async.ops.bench.charts import chart
from mmzero_async.projections import structures
from mmzero_async.projections.copies import FINGERPRINT_BYTES, Copies
from mmzero_async.rendering.outcomes import Picture
from mmzero_async.rendering.structure import BYTES, structure
from mmzero_async.roles.diversity import batch_context
from mmzero_async.roles.filters import Rejection
from mmzero_async.schemas.events import Event, Rendered
from mmzero_async.seedling.scenes import random_scene


def alike(one: str, two: str) -> float:
    first, second = (structures.read(structure(text)) for text in (one, two))
    assert first is not None and second is not None
    return float(structures.likeness(first, second[None])[0])


# --- what it does not see -----------------------------------------------------------------------

TAGS = {"rect": ("x", "y", "width", "height"), "circle": ("cx", "cy", "r"), "g": ("transform",)}
TAGS |= {"text": ("x", "y", "font-size"), "path": ("d", "stroke"), "use": ("href", "x")}
VALUES = {"transform": "rotate(30)", "d": "M1 2L30 40Z", "stroke": "red", "href": "#i3"}


@st.composite
def drawings(draw: st.DrawFn, most: int = 12) -> ElementTree.Element:
    """A small tree whose elements have ids, places and words."""
    root = ElementTree.Element(
        "svg", {"xmlns": "http://www.w3.org/2000/svg", "viewBox": "0 0 96 96"}
    )
    groups = [root]
    for i in range(draw(st.integers(1, most))):
        tag = draw(st.sampled_from(sorted(TAGS)))
        element = ElementTree.SubElement(draw(st.sampled_from(groups)), tag, {"id": f"i{i}"})
        for key in TAGS[tag]:
            element.set(key, VALUES.get(key) or str(draw(st.integers(0, 96))))
        if draw(st.booleans()):
            element.set("fill", draw(st.sampled_from(["red", "#00f", "url(#i1)", "none"])))
        if tag == "text":
            element.text = draw(st.sampled_from(["one", "two", "3"]))
        if tag == "g":
            groups.append(element)
    return root


def written(root: ElementTree.Element) -> str:
    return ElementTree.tostring(root, encoding="unicode")


@given(drawings(), st.randoms(use_true_random=False))
def test_blanks_comments_metadata_names_words_and_order_make_no_difference(
    root: ElementTree.Element, rng: random.Random
) -> None:
    plain = structure(written(root))
    for element in list(root.iter()):
        attributes = list(element.attrib.items())
        rng.shuffle(attributes)
        element.attrib.clear()
        element.attrib.update(attributes)
        children = list(element)
        rng.shuffle(children)
        element[:] = children
        element.tail = rng.choice(["", "\n  ", "\t"])
        if rng.random() < 0.5:
            element.append(ElementTree.Comment("more"))
        if rng.random() < 0.3:
            ElementTree.SubElement(element, "title").text = "said"
        if element.text and element.tag == "text":
            element.text = "other words"
    text = re.sub(r'(id="|#)i(\d+)', r"\1other\2", written(root))
    assert structure(text) == plain


def test_another_scale_of_the_canvas_makes_no_difference() -> None:
    small = '<svg viewBox="0 0 100 50"><circle cx="30" cy="20" r="10"/></svg>'
    assert structure(small) == structure(re.sub(r"(\d+)(?=[\" ])", r"\g<1>0", small))


# --- what it tells apart ------------------------------------------------------------------------


@given(drawings(most=4), st.data())
def test_an_added_element_another_type_or_colour_is_seen(
    root: ElementTree.Element, data: st.DataObject
) -> None:
    """Of few features each decides many of the 64 numbers; one of many may decide none."""
    plain = structure(written(root))
    chosen = data.draw(st.sampled_from(list(root)))
    change = data.draw(st.sampled_from(["more", "type", "colour"]))
    if change == "more":
        ElementTree.SubElement(root, "ellipse", {"rx": "40", "ry": "5"})
    elif change == "type":
        chosen.tag = "ellipse"
    else:
        chosen.set("fill", "#808000")
    assert structure(written(root)) != plain


def test_likeness_grows_with_what_drawings_have_in_common() -> None:
    bars, other_bars, line = chart(1), chart(3), chart(2)
    assert alike(bars, bars) == 1.0
    assert alike(bars, bars.replace("Sales", "Costs")) == 1.0
    one_more = alike(bars, bars.replace("</svg>", '<circle cx="9" cy="9" r="5"/></svg>'))
    assert 0.8 < one_more < 1.0
    assert 0.15 < alike(bars, other_bars) < one_more
    assert alike(bars, line) < alike(bars, other_bars)
    assert alike(bars, CHART) < 0.2


def test_the_estimate_is_near_the_share_in_common() -> None:
    """Disjoint halves: of 200 circles 100 are the same in both."""

    def row(numbers: range) -> str:
        circles = "".join(f'<circle cx="{97 * i}" r="6"/>' for i in numbers)
        return f'<svg viewBox="0 0 16 16">{circles}</svg>'

    assert 0.2 < alike(row(range(200)), row(range(100, 300))) < 0.55  # 1/3, less at the root


def test_the_seedlings_scenes_are_told_apart_where_they_differ_in_more_than_words() -> None:
    rng = random.Random(5)
    scenes = sorted({random_scene(rng).svg() for _ in range(150)})
    read = [structures.read(structure(text)) for text in scenes]
    found = structures.likenesses([s for s in read if s is not None])
    np.fill_diagonal(found, 0.0)
    assert float(np.median(found)) < 0.5
    assert np.array_equal(found, found.T) and found.max() <= 1.0


@pytest.mark.parametrize("count", [1, 2999])
def test_any_drawing_gives_as_many_numbers(count: int) -> None:
    text = svg(f'<path d="M{"1 2 " * 2000}" transform="rotate(1)"/>' + "<g/>" * (count - 1))
    assert len(structure(text)) == BYTES == structures.STRUCTURE_BYTES


@settings(max_examples=30)
@given(st.lists(st.binary(min_size=BYTES, max_size=BYTES) | st.binary(max_size=4), max_size=7))
def test_likeness_is_symmetric_and_a_strangers_nonsense_has_no_structure(
    drawn: list[bytes],
) -> None:
    known = [s for d in drawn if (s := structures.read(d)) is not None]
    assert len(known) == sum(len(d) == BYTES for d in drawn)
    found = structures.likenesses(known)
    assert np.array_equal(found, found.T) and np.all(np.diag(found) == 1.0)
    for i, one in enumerate(known):
        assert np.array_equal(found[i], structures.likeness(one, np.asarray(known)))
    spread = structures.spread(drawn)
    assert (spread is None) == (len(known) < 2) and (spread is None or 0 <= spread <= 1)


# --- the child tells it -------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[True, False])
def rig(request: pytest.FixtureRequest) -> Iterator[tuple[bool, Rig]]:
    config = msgspec.structs.replace(CONFIG, structure=request.param)
    for rig in opened(config):
        yield request.param, rig


def test_a_picture_tells_the_structure_of_its_drawing_where_that_is_wanted(
    rig: tuple[bool, Rig],
) -> None:
    wanted, pool = rig
    outcome = draw(pool, f"Look: ```svg\n{svg(RECT)}```")
    assert isinstance(outcome, Picture)
    assert outcome.structure == (structure(svg(RECT)) if wanted else b"")


# --- copies, facts and penalties ----------------------------------------------------------------


def made_of(event: Rendered, numbers: range, looks: int = 0) -> Rendered:
    drawn = np.array(numbers, "<u2").tobytes()
    fingerprint = (looks << 40).to_bytes(FINGERPRINT_BYTES, "big")
    return msgspec.structs.replace(event, structure=drawn, fingerprint=fingerprint)


BASE, FAR = range(64), range(1000, 1064)  # agree nowhere


@pytest.mark.parametrize(
    ("by", "same_structure", "same_looks"),
    [("looks", "", "g0.s0.d0"), ("structure", "g0.s0.d0", ""), ("either", "g0.s0.d0", "g0.s0.d0")],
)
def test_a_copy_is_alike_in_looks_or_structure_as_the_run_says(
    by: str, same_structure: str, same_looks: str
) -> None:
    def told(second: Rendered) -> str:
        copies = Copies(bits=2, by=by)  # type: ignore[arg-type]
        assert copies.see(made_of(rendered("g0.s0.d0"), BASE)) == ""
        assert copies.see(made_of(rendered("g0.s0.d1"), BASE)) == ""  # the same proposal's
        return copies.see(second)

    assert told(made_of(rendered("g1.s0.d0"), BASE, looks=0xFF)) == same_structure
    assert told(made_of(rendered("g1.s0.d0"), FAR)) == same_looks
    assert told(made_of(rendered("g1.s0.d0"), FAR, looks=0xFF)) == ""


def test_novelty_is_the_distance_from_the_nearest_picture_of_another_proposal() -> None:
    copies = Copies(memory=2)
    first = made_of(rendered("g0.s0.d0"), BASE)
    assert copies.novelty(first) == 1.0
    copies.see(first)
    assert copies.novelty(made_of(rendered("g0.s0.d1"), BASE)) == 1.0
    assert copies.novelty(made_of(rendered("g0.s1.d0"), BASE)) == 0.0
    assert copies.novelty(rendered("g0.s1.d0")) is None
    half = made_of(rendered("g0.s1.d0"), range(64))
    mixed = np.array([*range(32), *range(900, 932)], "<u2").tobytes()
    assert copies.novelty(msgspec.structs.replace(half, structure=mixed)) == 0.5
    for i in range(2):
        copies.see(made_of(rendered(f"g1.s{i}.d0"), FAR))
    assert copies.novelty(made_of(rendered("g2.s0.d0"), BASE)) == 1.0  # the first is forgotten


def structured_tree() -> list[Event]:
    """g0 as in varied_tree; g1's pictures are made of what g0's first is made of."""
    events: list[Event] = []
    for event in [*varied_tree(), *whole_tree("g1", proposals=1, drawings=2)]:
        if isinstance(event, Rendered) and event.picture is not None:
            far = event.drawing == "g0.s0.d1"
            event = made_of(event, FAR if far else BASE, looks=len(events))
        events.append(event)
    return events


def test_groups_record_how_their_drawings_differ_and_filters_see_it() -> None:
    log = Log(structured_tree())
    coder, solver = log.score("coder", "g0.s0"), log.score("solver", "g1.s0.d1")
    assert isinstance(coder, Scored) and isinstance(solver, Scored)
    assert coder.facts["structure_spread"] == 1.0  # two pictures with nothing in common
    assert solver.facts["structure_novelty"] == 0.0
    proposer = log.score("proposer", "g0")
    assert isinstance(proposer, Scored) and 0 < proposer.facts["structure_spread"] <= 1
    for role, scored in (("coder", coder), ("solver", solver), ("proposer", proposer)):
        assert (*scored.facts, "version") == FACTS[role]  # which is for filters alone
    novel = 'filters.solver=[{fact = "structure_novelty", low = 0.2}]'
    spread = 'filters.coder=[{fact = "structure_spread", high = 0.9}]'
    strict = load(overrides=[*SMALL, novel, spread])
    refused = log.score("solver", "g1.s0.d1", strict)
    assert isinstance(refused, Rejection) and refused.reason == "structure_novelty"
    refused = log.score("coder", "g0.s0", strict)
    assert isinstance(refused, Rejection) and refused.reason == "structure_spread"


def test_a_log_without_structures_has_no_such_facts() -> None:
    log = Log(varied_tree())
    for role, group in (("proposer", "g0"), ("coder", "g0.s0"), ("solver", "g0.s0.d0")):
        scored = log.score(role, group)  # type: ignore[arg-type]
        assert isinstance(scored, Scored)
        assert not [fact for fact in scored.facts if fact.startswith("structure")]


def test_a_proposal_pays_for_pictures_that_are_made_like_anothers() -> None:
    groups = [
        proposed(proposal("a"), proposal("b"), group="g1"),
        proposed(proposal("c"), group="g2"),
    ]
    base, far = (np.array(numbers, "<u2").tobytes() for numbers in (BASE, FAR))
    drawn = {"g1.s0": [far, base], "g1.s1": [far], "g2.s0": []}
    weighted = msgspec.structs.replace(PROPOSER, structure_weight=0.4)
    context = batch_context(groups, weighted, (), drawn)
    assert context.structure_penalties == {"g1.s0": 0.4, "g1.s1": 0.4, "g2.s0": 0.0}
    alone = batch_context(groups, weighted, (), {"g1.s0": [base, base], "g1.s1": [far]})
    assert set(alone.structure_penalties.values()) == {0.0}
    assert batch_context(groups, PROPOSER, (), drawn).structure_penalties == {}


def test_unknown_words_for_copies_are_refused() -> None:
    assert load(overrides=["shortcuts.copy_by=either"]).shortcuts.copy_by == "either"
    for wrong in ("shortcuts.copy_by=both", "shortcuts.copy_likeness=0"):
        with pytest.raises(ConfigError):
            load(overrides=[wrong])
