"""Ways around reading the picture: what must be found, and what is there to be read.

Drawings go through the real renderer; each table has cases in which its detector must fire and
honest ones in which it must not.
"""

from collections.abc import Iterator

import msgspec
import pytest
from builders import PROPOSAL
from hypothesis import given
from hypothesis import strategies as st
from rendering_rig import RECT, SLOW, Rig, draw, opened, svg

from mmzero_async.config import RendererConfig
from mmzero_async.rendering.outcomes import Picture
from mmzero_async.roles.shortcuts import consequences, detect
from mmzero_async.roles.shortcuts.answers import gives_away
from mmzero_async.schemas.events import Finding, Proposal
from mmzero_async.schemas.writing import Inscription, Writing
from mmzero_async.shortcut_options import ShortcutConfig

CONFIG = ShortcutConfig()
CITIES = Proposal(
    content_type="map",
    caption="Map of five cities along a river with their distances in kilometres.",
    easy_question="Which city lies at the mouth of the river?",
    easy_answer="Aral",
    hard_question="Which city is the farthest from Brod along the river?",
    hard_answer="Celje",
)
RATES = Proposal(
    content_type="data_chart",
    caption="Bar chart of sales a quarter: Q1 12, Q2 20, Q3 16.",
    easy_question="How many were sold in Q2?",
    easy_answer="20",
    hard_question="What is the average of the three quarters?",
    hard_answer="16",
)
TICKS = ["0", "1", "2", "3", "4", "5", "6", "7"]

GIVEN_AWAY: dict[str, tuple[list[str], Proposal]] = {
    "announced": (["Answer: 3"], PROPOSAL),
    "announced without a mark": (["the answer is 3"], PROPOSAL),
    "announced for the easy question": (["Easy answer = 4"], PROPOSAL),
    "announced in another text": (["Bars", "Answer:", "3", "x"], PROPOSAL),
    "announced as a word number": (["Answer: three"], PROPOSAL),
    "announced with a unit": (["ANSWER: 3 units"], PROPOSAL),
    "a solution": (["Solution: 3"], PROPOSAL),
    "announced in the midst of a title": (["Bars (answer: 3)"], PROPOSAL),
    "the question repeated with its answer": (
        ["What is the difference between red and blue? 3"],
        PROPOSAL,
    ),
    "the easy question repeated with its answer": (["Red bar value? 4"], PROPOSAL),
    "the derived value named": (["Difference: 3"], PROPOSAL),
    "the derived value by a synonym": (["gap 3", *TICKS], PROPOSAL),
    "the average beside its name": (["Mean = 16", "12", "20", "16"], RATES),
    "the hard answer alone": (["3"], PROPOSAL),
    "the hard answer beside one label": (["3", "Bars"], PROPOSAL),
    "the hard answer among words, a number alone": (["red", "blue", "green", "3"], PROPOSAL),
    "a name alone": (["Celje"], CITIES),
    "a name announced": (["Answer: Celje", "Aral", "Brod", "Dobra"], CITIES),
}
TO_BE_READ: dict[str, tuple[list[str], Proposal]] = {
    "nothing written": ([], PROPOSAL),
    "an axis with a tick that equals the answer": (TICKS, PROPOSAL),
    "values on bars": (["4", "7", "red", "blue"], PROPOSAL),
    "three values, one equal to the answer": (["3", "10", "7"], PROPOSAL),
    "a legend": (["red", "blue", "Bars"], PROPOSAL),
    "a value with its name, which the easy question asks for": (["red: 4", "blue: 7"], PROPOSAL),
    "a title that has the answer's digit in a number": (["Chart 13", "30 and 33"], PROPOSAL),
    "the question without its answer": (
        ["What is the difference between red and blue?"],
        PROPOSAL,
    ),
    "the question's own numbers": (
        ["How many of the 3 bars are taller than 5?"],
        msgspec.structs.replace(
            PROPOSAL, hard_question="How many of the 3 bars are taller than 5?", hard_answer="3"
        ),
    ),
    "a value that the caption asks for and that equals the answer": (["16", "Sales"], RATES),
    "the derived name without the value": (["Difference", "4", "7"], PROPOSAL),
    "another derived value": (["Total: 3 bars"], PROPOSAL),
    "an announcement of something else": (["Answers: 12"], PROPOSAL),
    "a name among names": (["Celje", "Aral", "Brod"], CITIES),
    "a word that begins like an announcement": (["Answering machines 3", *TICKS], PROPOSAL),
    "a distance beside a name": (["Celje 3 km", "Aral 9 km", "Brod 12 km"], CITIES),
}


@pytest.mark.parametrize("name", GIVEN_AWAY)
def test_a_text_that_gives_the_answer_away_is_found(name: str) -> None:
    texts, proposal = GIVEN_AWAY[name]
    assert gives_away(texts, proposal) is not None


@pytest.mark.parametrize("name", TO_BE_READ)
def test_a_text_that_is_there_to_be_read_is_left_alone(name: str) -> None:
    texts, proposal = TO_BE_READ[name]
    assert gives_away(texts, proposal) is None


def chart(more: str = "") -> str:
    """Bars with an axis, ticks, a legend and values, at a size at which text can be read."""
    ticks = "".join(
        f'<text x="4" y="{190 - 20 * i}" font-size="12">{i}</text>' for i in range(0, 9, 2)
    )
    return svg(
        '<rect x="30" y="110" width="40" height="80" fill="red"/>'
        '<rect x="90" y="50" width="40" height="140" fill="blue"/>'
        '<path d="M20 190H190" stroke="black"/><path d="M20 20V190" stroke="black"/>'
        '<text x="40" y="104" font-size="12">4</text><text x="100" y="44" font-size="12">7</text>'
        f'<text x="60" y="14" font-size="14" class="t">Bars</text>{ticks}{more}',
        'viewBox="0 0 200 200"',
    )


WORDS = "Bar chart with 2 bars: red 4, blue 7."
LINES = "".join(
    f'<text x="4" y="{40 * i + 40}" font-size="16">{line}</text>'
    for i, line in enumerate(["Bar chart with 2 bars:", "with 2 bars: red 4, blue 7."])
)
TEXT = '<text x="20" y="150" font-size="14" {}>Hello there</text>'
FOUND: dict[str, tuple[str, str]] = {
    "not displayed": (chart(TEXT.format('display="none"')), "hidden_text"),
    "in a group that is not displayed": (
        chart(f'<g style="display:none">{TEXT.format("")}</g>'),
        "hidden_text",
    ),
    "transparent": (chart(TEXT.format('opacity="0"')), "hidden_text"),
    "transparent by its fill": (chart(TEXT.format('fill-opacity="0"')), "hidden_text"),
    "invisible": (chart(TEXT.format('visibility="hidden"')), "hidden_text"),
    "invisible by a class": (
        chart("<style>.h{visibility:hidden !important}</style>" + TEXT.format('class="h"')),
        "hidden_text",
    ),
    "without any paint": (chart(TEXT.format('fill="none"')), "hidden_text"),
    "only defined": (chart(f"<defs>{TEXT.format('')}</defs>"), "hidden_text"),
    "clipped away": (
        chart(
            TEXT.format('clip-path="url(#c)"') + '<clipPath id="c"><path d="M0 0h1v1z"/></clipPath>'
        ),
        "hidden_text",
    ),
    "of no size": (chart('<text x="20" y="150" font-size="0.2">Hello</text>'), "tiny_text"),
    "of a tiny size": (chart('<text x="20" y="150" font-size="1.2">Hello</text>'), "tiny_text"),
    "scaled down": (
        chart('<text transform="translate(20 150) scale(0.1)" font-size="12">Hello</text>'),
        "tiny_text",
    ),
    "to the right": (chart('<text x="300" y="50" font-size="14">Hello</text>'), "off_canvas_text"),
    "above": (chart('<text x="20" y="-50" font-size="14">Hello</text>'), "off_canvas_text"),
    "moved away": (
        chart('<g transform="translate(0 900)"><text x="9" y="9">Hello</text></g>'),
        "off_canvas_text",
    ),
    "white on white": (chart('<text x="140" y="150" fill="white">Help</text>'), "same_colour_text"),
    "nearly white": (
        chart('<text x="140" y="150" style="fill:#fafafa">Help</text>'),
        "same_colour_text",
    ),
    "blue on blue": (
        chart('<text x="92" y="120" font-size="14" fill="blue">Help</text>'),
        "same_colour_text",
    ),
    "covered": (
        chart(TEXT.format("") + '<rect x="10" y="130" width="180" height="30" fill="#dddddd"/>'),
        "same_colour_text",
    ),
    "nothing but the caption": (svg(LINES, 'viewBox="0 0 240 200"'), "caption_only"),
    "the caption in a frame": (
        svg(
            '<rect width="240" height="200" fill="#eee"/>'
            f'<rect x="2" y="2" width="236" height="196" fill="none" stroke="black"/>{LINES}',
            'viewBox="0 0 240 200"',
        ),
        "caption_only",
    ),
    "the answer in the picture": (
        chart('<text x="100" y="180" font-size="12" fill="white">Answer: 3</text>'),
        "answer_text",
    ),
    "the answer in the title": (chart("<title>Answer: 3</title>"), "answer_metadata"),
    "the answer in the description": (
        chart("<desc>The difference is 3.</desc>"),
        "answer_metadata",
    ),
    "the answer in a label": (chart('<g aria-label="answer 3"/>'), "answer_metadata"),
}
HONEST: dict[str, str] = {
    "a chart": chart(),
    "a chart with a title and a description": chart(
        "<title>Bars</title><desc>Bar chart with 2 bars: red 4, blue 7.</desc>"
    ),
    "no text": svg(RECT),
    "white text on a dark bar": chart(
        '<text x="94" y="120" font-size="12" fill="white">blue</text>'
    ),
    "a shadow beneath its text": chart(
        '<text x="101" y="181" font-size="14" fill="#888888">Hello</text>'
        '<text x="100" y="180" font-size="14">Hello</text>'
    ),
    "text that is used": chart(
        '<defs><text id="q" x="20" y="150" font-size="12">Hi</text></defs><use href="#q"/>'
    ),
    "small text that can be read": chart('<text x="100" y="180" font-size="6">Hello</text>'),
    "half transparent text": chart(TEXT.format('opacity="0.5"')),
    "text at the edge": chart('<text x="180" y="100" font-size="14">Hello</text>'),
    "outlined text": chart(TEXT.format('fill="none" stroke="black"')),
    "a full stop": chart('<text x="150" y="150" font-size="14">.</text>'),
    "a table in the caption's order": svg(
        "".join(
            f'<text x="{20 + 80 * (i % 2)}" y="{40 + 40 * (i // 2)}" font-size="16">{cell}</text>'
            for i, cell in enumerate(["Bar", "chart", "bars", "with", "red", "4", "blue", "7"])
        ),
        'viewBox="0 0 200 200"',
    ),
    "a long label on a real drawing": chart(
        f'<text x="4" y="199" font-size="8">{WORDS}</text><circle cx="160" cy="60" r="20"/>'
    ),
    "a blank <text>": chart('<text x="9" y="9"> </text>'),
}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    yield from opened(RendererConfig(size=256, wall_seconds=20.0))


def found_in(rig: Rig, text: str, config: ShortcutConfig = CONFIG) -> list[str]:
    outcome = draw(rig, text)
    assert isinstance(outcome, Picture), outcome
    runner, pool = rig
    writing = runner.run(pool.writing(text))
    assert writing is not None
    findings = detect.find(writing, outcome.ink, PROPOSAL, config)
    assert all(finding.detail for finding in findings)
    return [finding.detector for finding in findings]


@pytest.mark.parametrize("name", FOUND)
def test_what_is_hidden_or_said_in_a_drawing_is_found_as_what_it_is(rig: Rig, name: str) -> None:
    text, detector = FOUND[name]
    assert found_in(rig, text) == [detector]


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_drawing_has_no_finding(rig: Rig, name: str) -> None:
    assert found_in(rig, HONEST[name]) == []


def test_what_is_written_cannot_be_found_out_where_the_child_is_lost() -> None:
    slow = SLOW.replace("</svg>", '<text x="9" y="9">a</text></svg>')
    for rig in opened(RendererConfig(size=1024, wall_seconds=3.0)):
        runner, pool = rig
        assert runner.run(pool.writing(slow)) is None
        assert runner.run(pool.writing(svg("<text>a</text>"))) is not None


def test_a_blank_picture_is_found_by_its_ink() -> None:
    assert [f.detector for f in detect.find(None, 0.001, PROPOSAL, CONFIG)] == ["blank"]
    assert detect.find(None, 0.003, PROPOSAL, CONFIG) == []


@pytest.mark.parametrize("detector", detect.DETECTORS[:-1])
def test_a_detector_that_is_off_finds_nothing(detector: str) -> None:
    writing = Writing(
        [
            Inscription(text="Answer: 3 as Bar chart with 2 bars: red 4, blue 7", painted=False),
            Inscription(text="Answer: 3", metadata="title"),
            Inscription(text="tiny", pixels=1, shown=1.0),
            Inscription(text="pale", pixels=90, shown=0.1),
            Inscription(text="away", placed=False),
        ]
    )
    everything = {f.detector for f in detect.find(writing, 0.0, PROPOSAL, CONFIG)}
    assert everything == set(detect.DETECTORS[:-1])
    silent = msgspec.structs.replace(CONFIG, **{detector: "off"})
    assert {f.detector for f in detect.find(writing, 0.0, PROPOSAL, silent)} == everything - {
        detector
    }


def test_every_detector_has_its_key_and_all_are_counted_by_default() -> None:
    assert all(detect.reaction(CONFIG, detector) == "count" for detector in detect.DETECTORS)
    silent = msgspec.structs.replace(CONFIG, **dict.fromkeys(detect.OF_WRITING, "off"))
    assert detect.wants_writing(CONFIG) and not detect.wants_writing(silent)


# --- whatever is written ------------------------------------------------------------------------

TEXTS = st.text(max_size=40) | st.sampled_from(["Answer:", "3", "4", "difference 3", "red bar"])


@given(
    st.lists(TEXTS, max_size=6),
    st.builds(Proposal, **dict.fromkeys(Proposal.__struct_fields__, TEXTS)),
)
def test_any_text_has_a_verdict(texts: list[str], proposal: Proposal) -> None:
    found = gives_away(texts, proposal)
    assert found is None or found
    assert gives_away([], proposal) is None


# --- what follows -------------------------------------------------------------------------------

FOUND_TWO = [Finding(detector="tiny_text", detail="x"), Finding(detector="answer_text", detail="y")]


def test_nothing_follows_from_what_is_only_counted() -> None:
    assert consequences.rejection(FOUND_TWO, CONFIG) is None
    assert consequences.penalties([[FOUND_TWO], [[]]], 0.5, CONFIG) == [{}, {}]


def test_what_is_filtered_rejects_with_its_name() -> None:
    config = ShortcutConfig(answer_text="filter")
    rejection = consequences.rejection(FOUND_TWO, config)
    assert rejection is not None
    assert (rejection.reason, rejection.detail) == ("shortcut:answer_text", "y")
    assert consequences.rejection(FOUND_TWO[:1], config) is None


def test_a_penalty_is_a_term_by_name_times_the_share_of_drawings() -> None:
    config = ShortcutConfig(answer_text="penalty", copy="penalty")
    copied = consequences.findings(None, "g0.s0.d0")
    terms = consequences.penalties([[FOUND_TWO, [], [], copied], [[]], []], 0.5, config)
    assert terms == [{"shortcut:answer_text": -0.125, "shortcut:copy": -0.125}, {}, {}]
