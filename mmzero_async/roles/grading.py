"""Do two answers mean the same? One function, for labels and votes alike.

Plain numbers, words, units and fractions are decided here in microseconds; only answers that look
like mathematics go to math-verify, under bounds on what they may contain and a budget of
executed lines. No signals, so it is safe in any thread. Symmetric, cached, never raises.
"""

import inspect
import logging
import math
import re
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from importlib import metadata
from types import FrameType
from typing import Any

GRADER = f"mmzero-grader-2+math-verify-{metadata.version('math-verify')}"

MAX_MATHS = 120  # characters of an answer that math-verify may see
MAX_LINES = 3_000_000  # lines of Python that one comparison may run: about a second
MAX_TERMS = 20_000  # of what an answer's powers can expand to
MAX_DEGREE = 200  # product of all whole exponents in an answer
MAX_LENGTH = 1000  # longer answers are compared as they stand
TOLERANCE = Fraction(1, 1_000_000)  # absolute, on numbers that are not whole

_COUNTED = """zero one two three four five six seven eight nine ten eleven twelve thirteen
fourteen fifteen sixteen seventeen eighteen nineteen twenty"""
_TENS = ("thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_NUMBER_WORDS = {word: value for value, word in enumerate(_COUNTED.split())} | {
    word: 10 * tens for tens, word in enumerate(_TENS, start=3)
}
_SCALES = {
    "hundred": 100,
    "k": 1000,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
_LARGE = frozenset(_SCALES) - {"k", "hundred"}
_PARTS = {"half": 2, "halve": 2, "third": 3, "quarter": 4, "fifth": 5, "eighth": 8, "tenth": 10}
_UNITS = {
    long: short
    for short, longs in {
        "mm": "millimeter millimetre",
        "cm": "centimeter centimetre",
        "m": "meter metre",
        "km": "kilometer kilometre",
        "g": "gram",
        "kg": "kilogram kilo",
        "s": "second sec",
        "min": "minute",
        "h": "hour hr",
        "degree": "deg °",
        "$": "dollar usd",
        "€": "euro eur",
        "£": "pound gbp",
        "l": "liter litre",
        "in": "inch",
        "ft": "foot feet",
        "px": "pixel",
    }.items()
    for long in longs.split()
}
_NO_UNITS = frozenset({"pi", "x", "y", "z", "and", "or", "to"})
_SHORT_UNITS = frozenset(_UNITS.values())
_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u207b]+")  # NFKC would make 3² a 32
_MIXED = re.compile("(?<=\\d)\\s*(?=[\u00bc-\u00be\u2150-\u215e])")  # and 1½ eleven halves
_ONE_DIGIT_POWER = re.compile(r"\^\{(\d)\}(?!\d)")
_CHARACTERS = str.maketrans(  # minus signs and dashes, quotes, the fraction slash
    {
        "\u2212": "-",
        "\u2013": "-",
        "\u2014": "-",
        "\u2010": "-",
        "\u2019": "'",
        "\u2018": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u2044": "/",
    }
)
_WRAPPERS = (
    re.compile(r"^\$\$?([^$]*)\$?\$$"),
    re.compile(r"^\\\((.*)\\\)$"),
    re.compile(r"^\\\[(.*)\\\]$"),
    re.compile(r"^\\(?:boxed|text|textbf|textit|mathrm|mathbf|mbox)\s*\{([^{}]*)\}$"),
    re.compile(r"^\*\*(.*)\*\*$"),
    re.compile(r'^"(.*)"$'),
    re.compile(r"^'(.*)'$"),
    re.compile(r"^`(.*)`$"),
)
_TEXT_COMMAND = re.compile(r"\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}")
_DEGREES = re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\s*\\degree")
_SPACING = re.compile(r"\\[,;:! ]|~|\\(?:left|right)(?![a-z])")
_ASSIGNED = re.compile(r"^[a-zA-Z]\s*=\s*(?=[^=])")
_ARTICLE = re.compile(r"^(?:the|an?)\s+(?=\w)")
_UNIT_WORD = r"[a-z°$€£%][a-z°/.]*(?:\^?[23])?(?:\s[a-z]+(?:\^?[23])?)?"
_PLAIN = r"(?:\d{1,3}(?:,\d{3})+|\d{1,40})(?:\.\d{0,40})?|\.\d{1,40}"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*(?P<money>[$€£]?)\s*(?P<inner>-?)(?:(?P<whole>\d{{1,9}})\s+(?=\d+/))?"
    rf"(?P<value>{_PLAIN})(?:e(?P<power>[-+]?\d{{1,2}})(?![\w.]))?"
    rf"(?:\s*/\s*(?P<under>{_PLAIN}))?(?:\s*(?P<scale>{'|'.join(_SCALES)})(?![\w/]))?"
    rf"(?P<gap>\s*)(?P<unit>%|percent|per cent|{_UNIT_WORD})?"
)
_RANGE = re.compile(r"\d[\d.,:]*(?:\s?-\s?\d[\d.,:]*)+")  # or a date or a score: no subtraction
_TIGHT = re.compile(r"(?<=\d)\s(?=[a-z])|(?<=\d)\s(?=-\s?\d)|(?<=\d-)\s(?=\d)|(?<=\d\s-)\s(?=\d)")
_WORD = re.compile(r"([a-z]+)(?:[\s-]+(?=([a-z]*))|$)")
_LIST = re.compile(r"\s*,\s*")
_LATEX_FRACTION = re.compile(
    r"(?P<sign>[-+]?)\s*\\[dt]?frac\s*(?:\{\s*(\d{1,20})\s*\}|(\d))\s*(?:\{\s*(\d{1,20})\s*\}|(\d))"
)
_MATHS = re.compile(
    r"[\\^_{}=+*/()\[\]|\u221a\u03c0\u00d7\u00b7\u00f7<>\u2264\u2265\u221e]|(?<![a-z])pi\b|sqrt|\d[a-z]\b|\d-"
)
_FORBIDDEN = re.compile(
    r"!|\d{16}|matrix|\\(?:sum|prod|int|lim|binom|cup|cap|bigcup|bigcap|begin|factorial|iint|oint)"
    r"|\*\*|\d[eE][-+]?\d{3}"
)
_SAFE_POWER = re.compile(
    r"\^\s*(?:\{\s*[-+]?\s*[a-zA-Z0-9./]{1,3}\s*\}|\(\s*[-+]?[a-zA-Z0-9./]{1,3}\s*\)|[a-zA-Z0-9])"
    r"(?!\s*[\^!])"
)
_WHOLE_POWER = re.compile(r"\^\W*(\d+)")
_BARE_PI = re.compile(r"(?<![\\a-zA-Z])pi(?![a-zA-Z])|\u03c0")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number as answers write it; `unit` is "" for none, "%" for a percentage."""

    value: Fraction
    unit: str


def same_answer(a: str, b: str) -> bool:
    """Whether two answers (number, word or short phrase) mean the same; symmetric."""
    if a == b:
        return bool(a.strip())
    return _same(a, b) if a < b else _same(b, a)


@lru_cache(maxsize=65_536)
def _same(a: str, b: str) -> bool:
    if max(len(a), len(b)) > MAX_LENGTH:
        return a.strip().casefold() == b.strip().casefold()
    one, two = normalise(a), normalise(b)
    if not one or not two:
        return False
    if _letters(one) == _letters(two):
        return True
    if _RANGE.fullmatch(one) or _RANGE.fullmatch(two):
        return False
    left, right = quantity(one), quantity(two)
    if left is not None and right is not None:
        return same_quantity(left, right)
    if (
        left is None
        and right is None
        and _LIST.sub(", ", one).casefold() == _LIST.sub(", ", two).casefold()
    ):
        return True  # a list of numbers; a comma inside one number is another matter
    looks = _MATHS.search(one) is not None or _MATHS.search(two) is not None
    return looks and _verify(one, two)


def _letters(text: str) -> str:
    """Without case, and without blanks between a number and its unit or around a hyphen."""
    return _TIGHT.sub("", text.casefold())


def normalise(answer: str) -> str:
    """The answer without its wrapping: mathematics marks, quotes, articles, closing periods."""
    text = _MIXED.sub(" ", _RAISED.sub(lambda match: f"^{{{match[0]}}}", answer))
    text = unicodedata.normalize("NFKC", text).translate(_CHARACTERS)
    text = _ONE_DIGIT_POWER.sub(r"^\1", text)
    text = " ".join(text.split())
    text = _DEGREES.sub("°", _SPACING.sub(" ", text)).replace("\\%", "%").replace("\\$", "$")
    for _ in range(4):
        before = text
        text = text.strip().rstrip(".;,!").strip()
        for wrapper in _WRAPPERS:
            text = wrapper.sub(r"\1", text).strip()
        if text == before:
            break
    text = _TEXT_COMMAND.sub(r" \1", text).strip()
    text = _ASSIGNED.sub("", text)
    if text[:1].isalpha() or text[:1] == "(":
        text = re.sub(r"\s*([,:;])\s*", r"\1", text)
        lowered = text.casefold()
        if (article := _ARTICLE.match(lowered)) is not None and len(lowered) > article.end():
            text = text[article.end() :]
    else:
        text = re.sub(r"\s+([,:;])\s*|([:;])\s+", r"\1\2", text)
    return " ".join(text.split())


def quantity(text: str) -> Quantity | None:
    """The number that a normalised answer is, with its unit, or None."""
    lowered = text.casefold()
    if (match := _LATEX_FRACTION.fullmatch(lowered)) is not None:
        over, under = match[2] or match[3], match[4] or match[5]
        sign = -1 if match["sign"] == "-" else 1
        return Quantity(sign * Fraction(int(over), int(under)), "") if int(under) else None
    if (match := _NUMBER.fullmatch(_spelled(lowered))) is None:
        return None
    unit = _unit(match["unit"] or "")
    if not _is_unit(unit, match["gap"]):
        return None
    value = _plain(match["value"]) * Fraction(10) ** int(match["power"] or 0)
    if match["under"] is not None:
        under_value = _plain(match["under"])
        if not under_value:
            return None
        value /= under_value
    value = (value + int(match["whole"] or 0)) * _SCALES.get(match["scale"] or "", 1)
    negative = (match["sign"] == "-") != (match["inner"] == "-")
    return Quantity(-value if negative else value, match["money"] or unit)


def _spelled(text: str) -> str:
    """The text with the number words that it begins with as digits; unchanged if there are none.

    "twenty-one bars" is "21 bars", "two thirds" is "2/3", "two three" and "one-way" stay.
    """
    total = current = end = 0
    for match in _WORD.finditer(text):
        word, next_word = match[1], match[2]
        if match.start() != end:
            break
        if word in _NUMBER_WORDS:
            number = _NUMBER_WORDS[word]
            after_tens = number < 10 and current % 10 == 0 and current % 100 >= 20
            if end and (number == 0 or not (current % 100 == 0 or after_tens)):
                return text
            current += number
        elif word == "hundred" and 0 < current < 100:
            current *= 100
        elif word in _LARGE and current:
            total, current = total + current * _SCALES[word], 0
        elif not (word == "and" and current % 100 == 0 and end and next_word in _NUMBER_WORDS):
            break
        end = match.end()
    rest = text[end:]
    if end and (part := _PARTS.get(rest.removesuffix("s"))) is not None:
        return f"{total + current}/{part}"
    if not end or text[end - 1] == "-":
        return text
    return f"{total + current} {rest}".strip()


def _is_unit(unit: str, gap: str) -> bool:
    """2x, 2 pi and 3x2 are no numbers; right behind one any unknown lone letter is a symbol."""
    first = unit.partition(" ")[0]
    if first in _NO_UNITS or first in _NUMBER_WORDS:
        return False
    if unit[-1:] in ("2", "3"):
        return unit[:-1] in _SHORT_UNITS or "/" in unit
    return bool(gap) or len(unit) > 1 or unit in _SHORT_UNITS or unit in ("", "%")


def _plain(digits: str) -> Fraction:
    digits = digits.replace(",", "")
    return Fraction("0" + digits if digits.startswith(".") else digits.removesuffix("."))


def _unit(text: str) -> str:
    """One spelling for the common units; a plural is its singular."""
    text = text.strip().rstrip(".")
    if text in ("%", "percent", "per cent"):
        return "%"
    first, _, second = text.partition(" ")
    if second and first.rstrip(".") in ("sq", "square", "cubic"):
        return _unit(second) + ("3" if first == "cubic" else "2")
    if text[-1:] in ("2", "3"):
        return _unit(text[:-1].rstrip("^")) + text[-1]
    singular = _singular(text)
    return _UNITS.get(text, _UNITS.get(singular, singular))


def _singular(text: str) -> str:
    if "/" in text:
        return text
    if len(text) > 4 and text.endswith("ies"):
        return text[:-3] + "y"
    if len(text) > 4 and text.endswith(("xes", "ches", "shes", "sses")):
        return text[:-2]
    return text.removesuffix("s") if len(text) > 2 and not text.endswith("ss") else text


def same_quantity(one: Quantity, two: Quantity) -> bool:
    """Equal numbers whose units agree or where one has none; 50 % is 50 and 0.5."""
    if one.unit and two.unit and one.unit != two.unit:
        return False
    if _close(one.value, two.value):
        return True
    if (one.unit == "%") != (two.unit == "%"):
        percent, plain = (one, two) if one.unit == "%" else (two, one)
        return _close(percent.value / 100, plain.value)
    return False


def _close(one: Fraction, two: Fraction) -> bool:
    if one == two:
        return True
    return (one.denominator > 1 or two.denominator > 1) and abs(one - two) <= TOLERANCE


# --- mathematics ------------------------------------------------------------------------------


class _BudgetSpent(BaseException):
    """A comparison ran more lines than it may. BaseException: sympy swallows the others."""


def _verify(one: str, two: str) -> bool:
    """Math-verify in both directions; False for what is too long or could grow without bound."""
    if not (_bounded(one) and _bounded(two)):
        return False
    parse, verify = _library()
    try:
        return _within_budget(lambda: _math_verify(parse, verify, one, two))
    except Exception:
        # math-verify and sympy raise at will on odd input; an unreadable answer is just not equal
        return False


def _bounded(text: str) -> bool:
    """Whether evaluating it stays small: no towers of powers, no factorials, no huge integers."""
    if len(text) > MAX_MATHS or _FORBIDDEN.search(text) or text.count("^") > 6:
        return False
    if text.count("^") != len(_SAFE_POWER.findall(text)):
        return False
    # Nested or not, what all powers together can expand to stays below this degree.
    degree = math.prod(max(1, int(power)) for power in _WHOLE_POWER.findall(text))
    signs = text.count("+") + text.count("-")
    return degree <= MAX_DEGREE and math.comb(degree + signs, signs) <= MAX_TERMS


def _within_budget(compare: Callable[[], bool]) -> bool:
    """Run with a budget of lines, counted by this thread's trace hook: the same verdict on
    every machine, however busy, where a clock would make it a matter of luck."""
    lines = 0

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += 1
        # Raised in a generator that is being closed it would be lost, and this hook with it.
        if lines > MAX_LINES and not frame.f_code.co_flags & inspect.CO_GENERATOR:
            raise _BudgetSpent
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        return compare()
    except _BudgetSpent:
        return False
    finally:
        sys.settrace(before)


def _math_verify(parse: Any, verify: Any, one: str, two: str) -> bool:
    texts = [_BARE_PI.sub(r"\\pi ", text) for text in (one, two)]
    left, right = (parse(f"${text}$", parsing_timeout=None) for text in texts)
    if not left or not right:
        return False
    return any(
        verify(gold, target, timeout_seconds=None)
        for gold, target in ((left, right), (right, left))
    )


@lru_cache(maxsize=1)
def _library() -> tuple[Any, Any]:
    from math_verify import parse, verify

    # It warns on every call that no signal timeout is set; that is on purpose here.
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    # The parser builds its tables on first use; that must not come out of an answer's budget.
    for one, two in (("x^2+1", "1+x^2"), (r"\sqrt{8}", r"2\sqrt{2}"), (r"\{1,2\}", r"\{2,1\}")):
        left, right = (parse(f"${text}$", parsing_timeout=None) for text in (one, two))
        verify(left, right, timeout_seconds=None)
    return parse, verify
