"""Two answers in canonical form, and whether they mean the same.

Plain numbers, words, units and fractions are decided here in microseconds; only answers that look
like mathematics go to math-verify. Symmetric, cached, never raises. Not transitive, and it cannot
be: "3" is "3 apples" and "3 pears". `votes` says how such answers are counted.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from mmzero_async.roles.grading.maths import looks_like_maths, same_maths
from mmzero_async.roles.grading.quantities import Quantity, quantity, same_quantity
from mmzero_async.roles.grading.wording import normalise, words

MAX_DECIMAL = 10**6  # what a denominator divides for its fraction to be written as a decimal
MAX_LENGTH = 1000  # longer answers are compared as they stand
_RANGE = re.compile(r"\d[\d.,:]*(?:\s?-\s?\d[\d.,:]*)+")  # or a date or a score: no subtraction


@dataclass(frozen=True, slots=True)
class Form:
    """What is left of an answer when its wording is taken off: answers of one form are the same,
    and are the same as exactly the same others."""

    words: str  # in one spelling; of a quantity, its value and unit
    maths: tuple[str, ...] = ()  # readings for math-verify; none if it is not to be asked
    quantity: Quantity | None = None


def same_answer(a: str, b: str) -> bool:
    """Whether two answers (number, word or short phrase) mean the same; symmetric."""
    one, two = form_of(a), form_of(b)
    return one is not None and two is not None and same_form(one, two)


@lru_cache(maxsize=65_536)
def form_of(answer: str) -> Form | None:
    """The answer's canonical form; None when nothing is left of it."""
    if len(answer) > MAX_LENGTH:
        return Form(answer.strip().casefold())
    text = normalise(answer)
    if not text:
        # Dots or dollar signs alone: an answer, if no meaningful one.
        return Form(answer.strip().casefold()) if answer.strip() else None
    if _RANGE.fullmatch(text):
        return Form(words(text))
    if (number := quantity(text)) is not None:
        return Form(f"{_latex(number.value)}{number.unit}", _readings(number), number)
    return Form(words(text), (text,))


def same_form(one: Form, two: Form) -> bool:
    """Whether two forms mean the same; symmetric, and true of a form and itself."""
    if one.words == two.words:
        return True
    if one.quantity is not None and two.quantity is not None:
        return same_quantity(one.quantity, two.quantity)
    if one.words > two.words:
        one, two = two, one
    return _same_maths(one.maths, two.maths)


@lru_cache(maxsize=65_536)
def _same_maths(one: tuple[str, ...], two: tuple[str, ...]) -> bool:
    pairs = [(left, right) for left in one for right in two]
    if not any(looks_like_maths(text) for pair in pairs for text in pair):
        return False
    return any(same_maths(left, right) for left, right in pairs)


def _readings(number: Quantity) -> tuple[str, ...]:
    """A quantity as math-verify reads it; a percentage is its number and its hundredth."""
    if number.unit == "%":
        return f"{_latex(number.value)}%", _latex(number.value), _latex(number.value / 100)
    return (f"{_latex(number.value)} {number.unit}".strip(),)


def _latex(value: Fraction) -> str:
    """A decimal where it ends soon, as sums of decimals are never quite a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    if MAX_DECIMAL % value.denominator == 0:
        return f"{Decimal(value.numerator) / Decimal(value.denominator):f}"
    sign = "-" if value < 0 else ""
    return f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
