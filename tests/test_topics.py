"""Seed topics of the paper's templates: many axes, evenly drawn, never twice, always the same."""

import re
from collections import Counter
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmzero_async.projections.dispatcher import derived_seed
from mmzero_async.roles.content_types import CONTENT_TYPES, content_type_of
from mmzero_async.roles.prompts import load_templates, proposer_messages
from mmzero_async.roles.topics import axes, spread, topic
from mmzero_async.schemas.events import Proposal

SEEDS = st.integers(0, spread.SEEDS - 1)
DRAWN = [spread.choose(derived_seed(20260310, f"propose/g{i}")) for i in range(6000)]


@given(st.lists(SEEDS, unique=True, min_size=2, max_size=50))
def test_different_seeds_have_different_topics(seeds: list[int]) -> None:
    assert len({topic("mmzero", seed) for seed in seeds}) == len(seeds)


def test_no_topic_comes_twice_in_many_nor_in_a_row_of_seeds() -> None:
    assert spread.SPACE >= spread.SEEDS  # what makes it more than luck
    assert len({topic("mmzero", seed) for seed in range(20_000)}) == 20_000
    high = range(spread.SEEDS - 5000, spread.SEEDS)
    assert len({topic("mmzero", seed) for seed in [*range(5000), *high]}) == 10_000


@pytest.mark.parametrize("axis", [field.name for field in fields(spread.Topic)])
def test_every_value_of_an_axis_is_drawn_and_about_equally_often(axis: str) -> None:
    counts = Counter(getattr(drawn, axis) for drawn in DRAWN)
    if axis in ("kind", "relation"):  # as many as forms of the kind
        weights = Counter(kind for kind, _ in axes.FORMS)
        per_kind = {drawn.kind: 0 for drawn in DRAWN}
        for drawn in DRAWN:
            per_kind[drawn.kind] += 1
        for kind, count in per_kind.items():
            expected = len(DRAWN) * weights[kind] / len(axes.FORMS)
            assert 0.8 * expected < count < 1.2 * expected
        values = {r for relations in axes.RELATIONS.values() for r in relations}
        assert set(counts) == (values if axis == "relation" else set(axes.RELATIONS))
        return
    values = {
        "form": [form for _, form in axes.FORMS],
        "domain": axes.DOMAINS,
        "setting": axes.SETTINGS,
        "twist": axes.TWISTS,
        "difficulty": axes.DIFFICULTIES,
        "size": axes.SIZES,
        "colours": axes.COLOURS,
    }[axis]
    expected = len(DRAWN) / len(values)
    assert set(counts) == set(values)
    # Five standard deviations of a fair draw, so a skewed axis is found and luck is not.
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


def test_axes_are_drawn_independently_of_each_other() -> None:
    for one, two in (("form", "difficulty"), ("form", "colours"), ("twist", "size")):
        pairs = Counter((getattr(drawn, one), getattr(drawn, two)) for drawn in DRAWN)
        cells = len({getattr(d, one) for d in DRAWN}) * len({getattr(d, two) for d in DRAWN})
        expected = len(DRAWN) / cells
        assert max(pairs.values()) < expected + 6 * expected**0.5


def test_no_value_of_an_axis_stands_in_it_twice() -> None:
    lists = [axes.FORMS, axes.DOMAINS, axes.SETTINGS, axes.TWISTS, axes.DIFFICULTIES]
    for values in [*lists, axes.SIZES, axes.COLOURS, *axes.RELATIONS.values()]:
        assert len(set(values)) == len(values)
    assert {len(relations) for relations in axes.RELATIONS.values()} == {12}
    assert set(axes.RELATIONS) == set(CONTENT_TYPES) - {"other"}


@given(st.integers(0, 2**63))
def test_every_topic_renders_into_the_prompt_and_says_its_axes(seed: int) -> None:
    about = topic("mmzero", seed)
    assert re.fullmatch(r"[A-Za-z0-9_ ,;().'-]{80,400}", about)
    [message] = proposer_messages(load_templates("mmzero"), about)
    assert message["content"].count(about) == 1
    assert not re.search(r"\{[a-z_]+\}", message["content"])
    drawn = spread.choose(seed)
    assert all(getattr(drawn, field.name) in about for field in fields(drawn))
    assert drawn.relation in axes.RELATIONS[drawn.kind]


def test_the_topics_of_a_seed_are_these_for_ever() -> None:
    # The seeds stand in the events: another topic for an old seed would make them untrue.
    assert topic("mmzero", 1) == (
        "a waterfall chart (data_chart) about stamp errors, at the turn of a century; six "
        "elements, in shades of one colour, with subtotals for two groups. The hard question turns "
        "on a share of a total and takes three steps, one of them a comparison."
    )
    assert topic("mmzero", 4).startswith("an area chart (data_chart) about bakery ovens, over one")
    assert topic("mmzero", 2**32 + 1) == topic("mmzero", 1)
    assert topic("seedling", 1) != topic("mmzero", 1)


def test_a_caption_that_names_the_form_is_of_its_type() -> None:
    """Two ways to say the type of a picture agree, wherever the form's words say one."""
    wrong = []
    for kind, form in axes.FORMS:
        found = content_type_of(
            Proposal(
                content_type="other",
                caption=form,
                easy_question="q",
                easy_answer="a",
                hard_question="q",
                hard_answer="a",
            )
        )
        if found not in (kind, "other"):
            wrong.append((form, kind, found))
    assert wrong == []
