"""Prompts, parsing and the grading of answers, from outside."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmzero_async.schemas.events import ROLES, Proposal

from mmzero_async.roles import coder, proposer, solver
from mmzero_async.roles.errors import TemplateError
from mmzero_async.roles.grading import GRADER, same_answer
from mmzero_async.roles.prompts import (
    PLACEHOLDERS,
    Templates,
    checked,
    coder_messages,
    load_templates,
    proposer_messages,
    solver_messages,
    template_sets,
)

PROPOSAL = Proposal(
    content_type="data_chart",
    caption="A bar chart {topic} with {easy_answer} bars and \\1 {question}",
    easy_question="How many bars?",
    easy_answer="3",
    hard_question="What is the sum of all {bars}?",
    hard_answer="12",
)

# --- prompts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", template_sets())
def test_every_shipped_template_set_loads_and_asks_for_what_its_role_is_given(name: str) -> None:
    templates = load_templates(name)
    for role in ROLES:
        assert "{" + PLACEHOLDERS[role][0] + "}" in templates.text(role)
        assert len(templates.digest(role)) == 16
    assert len({templates.digest(role) for role in ROLES}) == 3


def test_the_papers_prompts_hold_its_demands() -> None:
    paper = load_templates("mmzero")
    for tag in proposer.LIMITS:
        assert f"<{tag}>" in paper.proposer and f"</{tag}>" in paper.proposer
    assert "at least three" in paper.proposer and "without the picture" in paper.proposer
    for demand in ("```svg", "viewBox", "12 px", "14 px", "self-contained"):
        assert demand in paper.coder
    assert "<think>" in paper.solver and "\\boxed{" in paper.solver


def test_the_solver_sees_the_picture_before_the_question() -> None:
    templates = load_templates("mmzero")
    (message,) = solver_messages(templates, "How many {question} \\boxed{}?", "data:image/png,x")
    picture, text = message["content"]
    assert picture == {"type": "image_url", "image_url": {"url": "data:image/png,x"}}
    assert "How many {question} \\boxed{}?" in text["text"]


@given(st.text(max_size=40))
def test_text_that_a_model_wrote_is_inserted_verbatim_and_never_filled_again(written: str) -> None:
    templates = Templates(
        name="t", proposer="[{topic}]", coder="[{caption}|{hard_answer}]", solver=""
    )
    proposal = Proposal(
        content_type="map",
        caption=written + "{hard_answer}",
        easy_question="",
        easy_answer="",
        hard_question="",
        hard_answer=written + "{caption}\\g<0>",
    )
    assert proposer_messages(templates, written)[0]["content"] == f"[{written}]"
    filled = coder_messages(templates, proposal)[0]["content"]
    assert filled == f"[{written}{{hard_answer}}|{written}{{caption}}\\g<0>]"


def test_a_template_set_that_cannot_be_used_is_refused_with_the_reason() -> None:
    with pytest.raises(TemplateError, match="choose one of"):
        load_templates("../../etc")
    fine = {"proposer": "{topic}", "coder": "{caption}", "solver": "{question} \\boxed{x}"}
    assert checked(Templates(name="t", **fine))
    with pytest.raises(TemplateError, match=r"topic.*missing"):
        checked(Templates(name="t", **{**fine, "proposer": "draw"}))
    with pytest.raises(TemplateError, match="question"):
        checked(Templates(name="t", **{**fine, "coder": "{caption} {question}"}))


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
    ],
)
def test_a_reply_without_svg_says_what_was_missing(text: str, failure: str) -> None:
    outcome = coder.parse(text)
    assert (outcome.svg, outcome.failure) == (None, failure)


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
        ("\\boxed{" + "x" * 201 + "}", None, False),
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
    "text",
    [
        "\\boxed{" * 20_000,
        "<think>" * 20_000,
        "<caption>" * 7_000,
        "```svg" * 20_000,
        "<svg " * 30_000,
    ],
)
def test_parsers_stay_quick_on_long_repetitions(text: str) -> None:
    for parse in (proposer.parse, coder.parse, solver.parse):
        parse(text)


# --- votes ------------------------------------------------------------------------------------


def test_the_silver_answer_is_the_majority_of_answers_that_mean_the_same() -> None:
    tally = solver.tally(["7", "seven", "8", None, "7.0", "8", "x", "7 bars"])
    assert tally.counts == (("7", 4), ("8", 2), ("x", 1))
    assert (tally.silver, tally.consistency) == ("7", 0.5)


def test_of_equal_votes_the_answer_seen_first_wins() -> None:
    assert solver.tally(["8", "7", "7", "8"]).silver == "8"
    assert solver.tally([None, "7", "8"]).silver == "7"


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
    assert solver.tally(shuffled).consistency == solver.tally(answers).consistency
    assert dict(solver.tally(shuffled).counts) == dict(solver.tally(answers).counts)


# --- grading ----------------------------------------------------------------------------------

SAME = """
7 | 7
7 | 7.0
7 | 07
7 | +7
7 |  7.
7 | seven
7 | Seven
7 | $7$
7 | \\(7\\)
7 | \\boxed{7}
7 | \\text{7}
7 | **7**
7 | "7"
7 | 7 bars
7 | seven bars
7 | x = 7
7 | $7
zero | 0
twenty | 20
twelve | 12
-3 | \u22123
-3 | - 3
.5 | 0.5
5. | 5
1,234 | 1234
1,234,567 | 1234567
1,234.50 | 1234.5
1e3 | 1000
1.5e-3 | 0.0015
1/2 | 0.5
1/2 | \\frac{1}{2}
1/2 | \\dfrac12
-1/2 | -\\frac{1}{2}
2/4 | 1/2
1 1/2 | 1.5
1/3 | 0.333333
50% | 50
50% | 0.5
50 % | 50%
50\\% | 50%
50 percent | 50%
0.5 | 50 percent
12.5% | 12.5
5 cm | 5
5 cm | 5cm
5 cm | 5 centimeters
5 metres | 5 m
5 m | 5.0 m
3 apples | 3 apple
3 apples | 3
$5 | 5 dollars
$1,000 | 1000
€20 | 20 euros
90° | 90
90^\\circ | 90 degrees
90^{\\circ} | 90°
5\\text{ cm} | 5 cm
5\\,\\mathrm{cm} | 5 cm
red | Red
red | RED.
red | "red"
red | \\text{red}
red | \\textbf{red}
Red | 'red'
the red bar | red bar
A triangle | triangle
an apple | Apple
yes | Yes!
New  York | new york
B | b
option B | Option B
Q3 | q3
2021 | 2021
3:2 | 3 : 2
1, 2, 3 | 1,2, 3
red, blue | red,blue
(1, 2) | (1,2)
x^2+1 | 1+x^2
2\\pi | 2*pi
2\\pi | 2π
\\sqrt{8} | 2\\sqrt{2}
sqrt(2) | \\sqrt{2}
\\frac{\\pi}{4} | \\pi/4
\\{1,2\\} | \\{2,1\\}
3\\times 10^2 | 300
2(x+1) | 2x+2
2^3 | 8
\\frac{3}{6} | 0.5
10^{-2} | 0.01
café | CAFÉ
\uff17 | 7
"""
DIFFERENT = """
7 | 8
7 | -7
7 | 70
7 | 7.5
7 | eight
7 | red
7 | 7 8
1/2 | 1/3
1/2 | 0.51
1/3 | 0.33
50% | 5
50% | 51%
50% | 0.05
5 cm | 5 m
5 cm | 6 cm
$5 | €5
3 apples | 3 pears
1,234 | 1.234
1,23 | 123
1000000 | 1000001
12345678901234567890 | 12345678901234567891
red | blue
red | red bar
red | dark red
yes | no
A | B
a | the
Q3 | Q4
3:2 | 2:3
1, 2 | 2, 1
(1,2) | (2,1)
red, blue | blue, red
x^2+1 | x^2+2
2\\pi | 2
\\sqrt{2} | 2
\\frac{1}{0} | 1
1/0 | 1/0.0
none | 0
10^{10^{10}} | 10
9^9^9^9 | 9
2^{999999999} | 2
99999! | 1
\\sum_{n=1}^{99999999} n | 1
((((x+1)^{99}+2)^{99}+1)^{99}+3)^{99} | 1
\\frac | \\sqrt
{{{ | }}}
\\ | /
"""


def cases(table: str) -> list[tuple[str, str]]:
    rows = (line.split("|") for line in table.strip().splitlines())
    return [(a.strip(), b.strip()) for a, b in rows]


@pytest.mark.parametrize(("a", "b"), cases(SAME))
def test_these_answers_mean_the_same(a: str, b: str) -> None:
    assert same_answer(a, b)
    assert same_answer(b, a)


@pytest.mark.parametrize(("a", "b"), cases(DIFFERENT))
def test_these_answers_differ(a: str, b: str) -> None:
    assert not same_answer(a, b)
    assert not same_answer(b, a)


def test_nothing_equals_no_answer() -> None:
    assert not same_answer("", "")
    assert not same_answer(" ", " ")
    assert not same_answer("", "7")


ANSWERS = st.text(max_size=12) | st.text("0123456789.,-/%$ \\{}^abcx()=+*!", max_size=14)


@settings(max_examples=200, deadline=None)
@given(ANSWERS, ANSWERS)
def test_grading_is_symmetric_and_reflexive_and_takes_any_text(a: str, b: str) -> None:
    assert same_answer(a, b) == same_answer(b, a)
    assert same_answer(a, a) == bool(a.strip())


@given(st.integers(-(10**9), 10**9))
def test_a_whole_number_equals_itself_however_it_is_written(n: int) -> None:
    for written in (f"{n:,}", f"{n}.0", f"${n}$", f" {n}. ", f"{n} items", f"\\boxed{{{n}}}"):
        assert same_answer(str(n), written)
    assert not same_answer(str(n), str(n + 1))


def test_grading_works_in_any_thread_at_the_same_time() -> None:
    found: list[bool] = []

    def grade(i: int) -> None:
        found.append(same_answer(f"x^2+{i}", f"{i}+x^2"))

    threads = [threading.Thread(target=grade, args=(i,)) for i in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 5


def test_the_grader_has_a_version() -> None:
    assert "math-verify" in GRADER
