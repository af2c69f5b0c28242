"""Whether two answers mean the same: tables of what is equal and what is not, and hostile text."""

import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmzero_async.roles.grading import GRADER, same_answer
from mmzero_async.roles.grading.maths import within_budget


def cases(name: str) -> list[tuple[str, str]]:
    text = (Path(__file__).parent / "golden" / f"{name}.txt").read_text(encoding="utf-8")
    rows = (line.rpartition(" | ") for line in text.strip("\n").split("\n"))
    return [(a.strip(), b.strip()) for a, _, b in rows]


@pytest.mark.parametrize(("a", "b"), cases("same_answers"))
def test_these_answers_mean_the_same(a: str, b: str) -> None:
    assert same_answer(a, b)
    assert same_answer(b, a)


@pytest.mark.parametrize(("a", "b"), cases("different_answers"))
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


HOSTILE = [
    *("9" * 1000, "-" * 1000, "(" * 110, "{" * 110, "1," * 500, "one " * 250, "twenty-" * 140),
    *("\\frac{" * 19, "\\sqrt{" * 19, "\\text{" * 20 + "}" * 20, "$" * 500, "**" * 250, "|x|" * 30),
    *("hundred " * 120, "and " * 240, " " * 999 + "x", "\x00", "\ud800", "a" * 1001, "^" * 100),
    "(a+b+c+d+e+f)^{99}",  # ran for minutes: a loop without a call is free of a budget of calls
    "(\\sqrt{2}+\\sqrt{3}+\\sqrt{5}+\\sqrt{7}+\\sqrt{11})^{20}",
    "(a+b)(c+d)(e+f)(g+h)(i+j)(k+l)(m+n)(o+p)(q+r)(s+t)",  # 1024 terms
    "(x+1)^{200}",
    "((x+1)^{9})^{9}",
    "99999999999999^{199}",
]


@pytest.mark.parametrize("answer", HOSTILE, ids=[f"{a[:20]!a}" for a in HOSTILE])
@pytest.mark.timeout(90)  # some of them ran for minutes
def test_no_answer_holds_the_grader_up(answer: str) -> None:
    assert not same_answer(answer, "x+1")


def test_a_comparison_that_spends_its_budget_is_stopped_and_leaves_no_hook_behind() -> None:
    def forever() -> bool:
        while True:
            pass

    def seen(*_: object) -> None:
        return None

    before = sys.gettrace()
    sys.settrace(seen)
    try:
        assert within_budget(forever) is False
        assert sys.gettrace() is seen
        assert within_budget(lambda: True) is True
        assert sys.gettrace() is seen
    finally:
        sys.settrace(before)


def test_a_long_answer_is_compared_as_it_stands() -> None:
    assert same_answer("A" * 1001, " " + "a" * 1001)
    assert not same_answer("x" * 1001, "x" * 1002)


@given(st.integers(-(10**6), 10**6), st.integers(1, 10**4))
def test_a_fraction_is_the_same_in_all_its_spellings(over: int, under: int) -> None:
    sign, size = "-" if over < 0 else "", abs(over)
    spelled = [
        f"{over}/{under}",
        f"{sign}\\frac{{{size}}}{{{under}}}",
        f"${sign}\\dfrac{{{size}}}{{{under}}}$",
        f"{2 * over}/{2 * under}",
    ]
    if size >= under:
        spelled.append(f"{sign}{size // under} {size % under}/{under}")
    assert all(same_answer(spelled[0], other) for other in spelled[1:])
    assert not same_answer(spelled[0], f"{over + 1}/{under}")


@given(st.integers(0, 999_999))
def test_number_words_are_read_as_people_say_them(n: int) -> None:
    assert same_answer(in_words(n), str(n))
    assert not same_answer(in_words(n), str(n + 1))


def in_words(n: int) -> str:
    if n >= 1000:
        rest = f" {in_words(n % 1000)}" if n % 1000 else ""
        return f"{in_words(n // 1000)} thousand{rest}"
    if n >= 100:
        rest = f" and {in_words(n % 100)}" if n % 100 else ""
        return f"{in_words(n // 100)} hundred{rest}"
    small = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
    ]
    small += ["fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
    tens = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
    if n < 20:
        return small[n]
    return tens[n // 10 - 2] + (f"-{small[n % 10]}" if n % 10 else "")
