"""Parsing what models wrote: proposals, SVG and boxed answers, out of any text, in linear time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmzero_async.roles import coder, content_types, proposer, solver

# --- proposer ---------------------------------------------------------------------------------


def blocks(**changes: str | None) -> str:
    values: dict[str, str | None] = {
        "content_type": "data_chart",
        "caption": "Bars.",
        "easy_question": "How many?",
        "easy_answer": "3",
        "hard_question": "Sum?",
        "hard_answer": "12",
        **changes,
    }
    return "".join(f"<{tag}>{value}</{tag}>" for tag, value in values.items() if value is not None)


def test_six_blocks_make_a_proposal() -> None:
    outcome = proposer.parse(blocks())
    assert outcome.failure == "" and outcome.proposal is not None
    assert outcome.proposal.caption == "Bars." and outcome.proposal.hard_answer == "12"


@pytest.mark.parametrize(
    "text",
    [
        "Here you are:\n\n" + blocks().replace("><", ">\n\n  <") + "\nDone.",
        blocks().replace("<caption>", "< Caption >").replace("</caption>", "\n</ caption>"),
        blocks(content_type="Data Chart"),
        blocks(content_type=" data-chart\n"),
        "<think><caption>a draft</caption></think>" + blocks(),
        blocks() + blocks(caption="A second one."),
    ],
)
def test_blanks_prose_drafts_and_repetitions_do_not_matter(text: str) -> None:
    proposal = proposer.parse(text).proposal
    assert proposal is not None
    assert (proposal.caption, proposal.content_type) == ("Bars.", "data_chart")


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("", "missing:content_type"),
        (blocks(hard_answer=None), "missing:hard_answer"),
        (blocks()[:-5], "missing:hard_answer"),
        (blocks(easy_question="  \n"), "empty:easy_question"),
        (blocks(content_type="poem"), "content_type"),
        (blocks(caption="x" * 6001), "too_long"),
        (blocks(easy_answer="x" * 121), "too_long"),
        ("x" * 70_000, "too_long"),
    ],
)
def test_what_is_no_proposal_says_why(text: str, failure: str) -> None:
    outcome = proposer.parse(text)
    assert outcome.proposal is None and outcome.failure == failure


def test_each_block_may_be_as_long_as_its_limit_and_no_longer() -> None:
    for tag, limit in proposer.LIMITS.items():
        if tag == "content_type":
            continue
        assert proposer.parse(blocks(**{tag: "x" * limit})).failure == ""
        assert proposer.parse(blocks(**{tag: "x" * (limit + 1)})).failure == "too_long"
    filler = proposer.MAX_TEXT - len(blocks())
    assert proposer.parse(blocks() + " " * filler).failure == ""
    assert proposer.parse(blocks() + " " * (filler + 1)).failure == "too_long"


@pytest.mark.parametrize("tag", list(proposer.LIMITS))
def test_each_block_is_demanded_and_must_not_be_empty(tag: str) -> None:
    assert proposer.parse(blocks(**{tag: None})).failure == f"missing:{tag}"
    assert proposer.parse(blocks(**{tag: " \t\n"})).failure == f"empty:{tag}"
    assert proposer.parse(blocks().replace(f"</{tag}>", "")).failure == f"missing:{tag}"


@pytest.mark.parametrize("kind", content_types.CONTENT_TYPES)
def test_every_content_type_of_the_method_is_known(kind: str) -> None:
    assert len(content_types.CONTENT_TYPES) == 7
    proposal = proposer.parse(blocks(content_type=kind.replace("_", " ").upper())).proposal
    assert proposal is not None and proposal.content_type == kind


def test_blocks_may_stand_in_any_order_and_keep_their_own_line_breaks() -> None:
    text = blocks(caption=None) + "<caption>\n a\n\n  b <i>c</i> & d \n</caption>"
    proposal = proposer.parse(text).proposal
    assert proposal is not None and proposal.caption == "a\n\n  b <i>c</i> & d"


@given(st.text(max_size=50), st.text(max_size=20))
def test_what_a_block_holds_comes_back_without_its_outer_blanks(caption: str, around: str) -> None:
    text = around.replace("<", "") + blocks(caption=caption.replace("<", "")) + around
    outcome = proposer.parse(text)
    if outcome.proposal is not None:
        assert outcome.proposal.caption == caption.replace("<", "").strip()
    else:
        assert outcome.failure in ("empty:caption", "missing:content_type")


# --- coder ------------------------------------------------------------------------------------

SVG = '<svg viewBox="0 0 9 9"><svg x="1"><g/></svg></svg>'


@pytest.mark.parametrize(
    "text",
    [
        f"```svg\n{SVG}\n```",
        f"Sure!\n``` SVG \n{SVG}\n```\nand more <svg></svg>",
        f"```svg {SVG}```",
        f"```python\nprint('<svg></svg>')\n```\n```svg\n{SVG}\n```",
        f"```xml\n{SVG}\n```",
        f"```xml\n<a/>\n```\n```xml\n{SVG}\n```",
        f"Here: {SVG} and another <svg></svg>",
        f"```\n{SVG}\n```",
        f"<think><svg>draft</svg></think>{SVG}",
        f"```svg is the language. {SVG}",
        f"~~~\n{SVG}\n~~~",
        f"``` \t svg\r\n{SVG}\r\n```",
        f"```html\n<svg>no</svg>\n```\n```SVG\n{SVG}\n```\n```svg\n<svg>later</svg>\n```",
        f"```svg\n{SVG}\n",  # cut off, but the picture is whole
        f"</svg> first, then {SVG}",
    ],
)
def test_the_svg_is_found_wherever_models_put_it(text: str) -> None:
    assert coder.parse(text).svg == SVG


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("", "no_code"),
        ("I cannot draw.", "no_code"),
        ("<svg viewBox='0 0 9 9'><g>", "no_code"),
        ("```svg\n\n```", "no_code"),
        ("```svg\ncircle(3)\n```", "not_svg"),
        ("```python\nplt.plot()\n```", "not_svg"),
        ("```xml\n<html/>\n```", "not_svg"),
        ("<svgfoo></svgfoo>", "no_code"),
        ("</svg>", "no_code"),
        ("<svg", "no_code"),
        ("<svg></svg", "no_code"),
        ("```svg\n<svg viewBox='0 0 9 9'><g>", "no_code"),  # cut off in the middle
        ("```svg\n<svgfoo/>\n```", "not_svg"),
        ("<think><svg></svg></think>", "no_code"),
    ],
)
def test_a_reply_without_svg_says_what_was_missing(text: str, failure: str) -> None:
    outcome = coder.parse(text)
    assert (outcome.svg, outcome.failure) == (None, failure)


def test_an_svg_fence_wins_over_xml_and_both_over_raw_text() -> None:
    raw, xml, svg = "<svg>raw</svg>", "```xml\n<svg>xml</svg>\n```", "```svg\n<svg>svg</svg>\n```"
    assert coder.parse(raw + xml + svg).svg == "<svg>svg</svg>"
    assert coder.parse(raw + xml).svg == "<svg>xml</svg>"
    assert coder.parse(raw).svg == raw


def test_of_an_unbalanced_picture_the_first_end_counts() -> None:
    assert coder.parse("<svg><svg></svg><g/> and words").svg == "<svg><svg></svg>"
    assert coder.parse('<svg a="1"><SVG/></svg>!').svg == '<svg a="1"><SVG/></svg>'


def test_an_svg_fence_is_given_on_whole_with_what_stands_before_the_picture() -> None:
    code = '<?xml version="1.0"?>\n<!-- bars -->\n<svg></svg>'
    assert coder.parse(f"```svg\n{code}\n```").svg == code


# --- solver -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer", "format_ok"),
    [
        ("<think>red 3, blue 4</think>\\boxed{7}", "7", True),
        (" <think>\n\n</think>\n\n\\boxed{ 7 }\n", "7", True),
        ("<think>a</think>\\boxed{\\frac{1}{2}}", "\\frac{1}{2}", True),
        ("<think>a</think>\\boxed{\\{1, 2\\}}", "\\{1, 2\\}", True),
        ("<think>\\boxed{1}</think>\\boxed{2}", "2", True),
        ("<think>a</think>The answer is \\boxed{7}", "7", False),
        ("<think>a</think>\\boxed{7}.", "7", False),
        ("<think>a</think>\\boxed{7}\\boxed{8}", "8", False),
        ("<think>a</think><think>b</think>\\boxed{7}", "7", False),
        ("x<think>a</think>\\boxed{7}", "7", False),
        ("\\boxed{7}", "7", False),
        ("<think>a\\boxed{7}", "7", False),
        ("\\boxed{3} or \\boxed{4", "3", False),
        ("\\boxed{\\boxed{5}}", "5", False),
        ("\\boxed {6}", "6", False),
        ("<think>a</think>\\boxed{}", None, False),
        ("<think>a</think>7", None, False),
        ("\\boxed{", None, False),
        ("}}\\boxed{2}", "2", False),
        ("\\boxed{" + "x" * 200 + "}", "x" * 200, False),
        ("\\boxed{" + "x" * 201 + "}", None, False),
        ("<think>a</think>\\boxed{\\text{a {b} c}}", "\\text{a {b} c}", True),
        ("<think>a</think>\\boxed{a\n b}", "a\n b", True),
        ("<think>{{{</think>\\boxed{7}", "7", True),
        ("<think>\\boxed{</think>\\boxed{7}", "7", True),
        ("<think>a</think>\\boxed{7", None, False),
        ("\\boxed{7} then \\boxed{ }", None, False),
        ("\\boxed{\\}}", "\\}", False),
        ("\\boxed7", None, False),
        ("\\boxedx{7}", None, False),
        ("boxed{7}", None, False),
        ("<THINK>a</THINK>\\boxed{7}", "7", False),
        ("</think>\\boxed{7}", "7", False),
        ("<think>a</think>\\boxed{7}<think>b</think>", "7", False),
        ("", None, False),
    ],
)
def test_the_last_complete_box_is_the_answer(
    text: str, answer: str | None, format_ok: bool
) -> None:
    outcome = solver.parse(text)
    assert (outcome.answer, outcome.format_ok) == (answer, format_ok)


FRAGMENTS = st.sampled_from(
    ["<think>", "</think>", "\\boxed{", "{", "}", "\\", "7", " ", "<svg", "</svg>", "```", "svg\n"]
    + [f"<{tag}>" for tag in proposer.LIMITS]
    + [f"</{tag}>" for tag in proposer.LIMITS]
)


@given(st.lists(FRAGMENTS | st.text(max_size=5), max_size=40).map("".join))
def test_parsers_take_any_text(text: str) -> None:
    assert (proposer.parse(text).proposal is None) == bool(proposer.parse(text).failure)
    assert (coder.parse(text).svg is None) == bool(coder.parse(text).failure)
    answer = solver.parse(text)
    assert not answer.format_ok or answer.answer


@pytest.mark.parametrize(
    "unit",
    [
        *("\\boxed{", "\\boxed ", "\\boxed{x}", "{", "}", "\\", "\\boxed{}"),
        *("<think>", "</think>", "<think></think>", "<"),
        *("<caption>", "</caption>", "<caption ", "< ", "<content_type>map</content_type>"),
        *("```", "```svg", "```svg\n", "```svg\n```", "``` ", "`"),
        *("<svg ", "</svg ", "<svg>", "</svg>", "<svg/>", "<svg></svg>"),
        *(" ", "\n", "\x00", "\U0001f600"),
    ],
)
@pytest.mark.timeout(60)  # anything quadratic takes hours
def test_parsers_are_linear_in_long_repetitions(unit: str) -> None:
    # A thousand tokens could hold some of these; a hundred times as much must still be nothing.
    text = (unit * 300_000)[:300_000]
    for hostile in (text, "<think>" + text, text + ">", "<svg>" + text + "</svg>", text + "}"):
        for parse in (proposer.parse, coder.parse, solver.parse):
            parse(hostile)
        proposer.parse(hostile[-proposer.MAX_TEXT :])


@pytest.mark.timeout(60)
def test_openings_first_and_one_bracket_at_the_end_are_linear_too() -> None:
    text = "<svg " * 200_000 + "</svg " * 200_000 + ">"
    assert coder.parse(text).svg == text


# --- votes ------------------------------------------------------------------------------------


def test_the_silver_answer_is_the_majority_of_answers_that_mean_the_same() -> None:
    tally = solver.tally(["7", "seven", "8", None, "7.0", "8", "x", "7 bars"])
    assert tally.counts == (("7", 4), ("8", 2), ("x", 1))
    assert (tally.silver, tally.consistency) == ("7", 0.5)


def test_of_equal_votes_the_same_answer_wins_whatever_came_first() -> None:
    orders = [["8", "7", "7", "8"], ["7", "7", "8", "8"], [None, "7", "8", "8", "7"]]
    assert len({solver.tally(order).silver for order in orders}) == 1


def test_without_answers_there_is_no_silver_answer() -> None:
    for answers in ([], [None, None]):
        tally = solver.tally(answers)
        assert (tally.silver, tally.consistency) == (None, 0.0)


@given(st.lists(st.sampled_from(["1", "2", "3", "red", None]), min_size=1), st.randoms())
def test_consistency_does_not_depend_on_the_order_of_answers(
    answers: list[str | None], rng: object
) -> None:
    shuffled = list(answers)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert solver.tally(shuffled) == solver.tally(answers)
