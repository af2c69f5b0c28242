"""What a caption shows when its tag says "other": words that must fire, and such as must not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reward_builders import proposal

from mmzero_async.roles.content_types import CONTENT_TYPES, content_type_of

FIRES = {
    "data_chart": [
        "Stacked bar chart of four harbours",
        "A heatmap of 5 x 5 cells",
        "A heat map with seven columns",
        "A tree-map of budgets",
        "Two scatterplots side by side",
        "Bar charts of exports by country",
        "A line graph in which two lines cross",
        "Histograms with an outlier",
        "Six bars in red and blue",
        "An x axis from 0 to 60",
        "A PIE in five slices",
        "A bar chart with a table of totals and a map inset",
    ],
    "diagram": [
        "A flowchart of a login",
        "A flow chart of a login",
        "A state machine with four states",
        "A Venn diagram of three circles",
        "A mind map about bees",
        "An org chart of a lighthouse service",
        "The schematics of a pump",
        "A series circuit with two lamps",
    ],
    "timeline": [
        "A timeline from 1900 to 1950",
        "A Gantt chart of six tasks",
        "Gantt: three tasks overlap",
        "The schedule of a ferry",
    ],
    "geometry": [
        "A right triangle ABC",
        "Two circles with radii of 3 and 5",
        "An angle of 40 degrees between two rays",
        "A square of side 4 with its diagonal",
        "Hexagons in a row",
    ],
    "table": [
        "A table of five rivers",
        "Tables: two of them, side by side",
        "A spreadsheet with three columns",
        "Rows and columns of departure times",
        "A timetable of trams",
    ],
    "map": [
        "A map of an island with four routes",
        "Maps of two districts",
        "The floor plan of a museum",
        "A route from A to B over three bridges",
        "Four countries and their neighbours",
    ],
}
MUST_NOT = [
    ("A tablet beside a vegetable", "table"),
    ("A stable with a notable roof", "table"),
    ("A mapping of names to a mapmaker", "map"),
    ("A heatmap in a bitmap's style", "map"),
    ("Four rectangles, one untangled", "geometry"),
    ("A lake of 40 square kilometres", "geometry"),
    ("Fields of 3 square metres and 12 square feet", "geometry"),
    ("A plotter draws charted waters", "data_chart"),
    ("Barbers and barley", "data_chart"),
    ("A photograph of a paragraph", "data_chart"),
    ("Rescheduled trains", "timeline"),
    ("A router with outer ports", "map"),
    ("A highlighted region in the upper left", "map"),
    ("Circuitous words", "diagram"),
]


@pytest.mark.parametrize(
    ("caption", "kind"), [(text, kind) for kind, texts in FIRES.items() for text in texts]
)
def test_the_type_other_is_read_off_the_caption(caption: str, kind: str) -> None:
    assert content_type_of(proposal(caption, "other")) == kind
    assert content_type_of(proposal(caption.upper(), "other")) == kind


@pytest.mark.parametrize(("caption", "kind"), MUST_NOT)
def test_part_of_a_word_is_no_word(caption: str, kind: str) -> None:
    assert content_type_of(proposal(caption, "other")) != kind


def test_a_form_goes_before_a_subject_and_the_first_form_before_others() -> None:
    assert content_type_of(proposal("Routes of five ships as a table", "other")) == "table"
    assert content_type_of(proposal("A map with a bar chart", "other")) == "map"
    assert content_type_of(proposal("A bar chart over a map", "other")) == "data_chart"


@given(st.text(max_size=80), st.sampled_from(CONTENT_TYPES))
def test_a_tag_counts_whatever_the_caption_says_and_other_becomes_a_known_type(
    caption: str, kind: str
) -> None:
    found = content_type_of(proposal(caption, kind))
    assert found == kind if kind != "other" else found in CONTENT_TYPES


def test_a_caption_without_any_of_the_words_stays_other() -> None:
    assert content_type_of(proposal("A poem", "other")) == "other"
    assert content_type_of(proposal("", "other")) == "other"
