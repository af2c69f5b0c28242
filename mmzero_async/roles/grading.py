"""Do two answers mean the same? One function, for labels and votes alike.

Plain numbers, words, units and fractions are decided here in microseconds; only answers that look
like mathematics go to math-verify, under bounds on what they may contain and a budget of function
calls. No signals, so it is safe in any thread. Symmetric, deterministic, cached, never raises.
"""

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

GRADER = f"mmzero-grader-1+math-verify-{metadata.version('math-verify')}"

MAX_MATHS = 120  # characters of an answer that math-verify may see
MAX_CALLS = 300_000  # function calls that one comparison may make: about a second
MAX_DEGREE = 200  # product of all whole exponents in an answer
MAX_LENGTH = 1000  # longer answers are compared as they stand
TOLERANCE = Fraction(1, 1_000_000)  # absolute, on numbers that are not whole

_COUNTED = """zero one two three four five six seven eight nine ten eleven twelve thirteen
fourteen fifteen sixteen seventeen eighteen nineteen twenty"""
_NUMBER_WORDS = {word: value for value, word in enumerate(_COUNTED.split())}
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
        "px": "pixel",
    }.items()
    for long in longs.split()
}
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
_UNIT_WORD = r"[a-z°$€£%][a-z°/²³.]*(?:\s[a-z²³]+)?"
_PLAIN = r"(?:\d{1,3}(?:,\d{3})+|\d{1,40})(?:\.\d{0,40})?|\.\d{1,40}"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*(?P<money>[$€£]?)\s*(?:(?P<whole>\d{{1,9}})\s+(?=\d+/))?"
    rf"(?P<value>{_PLAIN})(?:e(?P<power>[-+]?\d{{1,2}})(?![\w.]))?"
    rf"(?:\s*/\s*(?P<under>{_PLAIN}))?\s*(?P<unit>%|percent|per cent|{_UNIT_WORD})?"
)
_LIST = re.compile(r"\s*,\s*")
_LATEX_FRACTION = re.compile(
    r"(?P<sign>[-+]?)\s*\\[dt]?frac\s*(?:\{\s*(\d{1,20})\s*\}|(\d))\s*(?:\{\s*(\d{1,20})\s*\}|(\d))"
)
_MATHS = re.compile(
    r"[\\^_{}=+*/()\[\]|\u221a\u03c0\u00d7\u00b7\u00f7<>\u2264\u2265\u221e]|\bpi\b|sqrt|\d[a-z]\b|\d-"
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
    if one.casefold() == two.casefold():
        return True
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


def normalise(answer: str) -> str:
    """The answer without its wrapping: mathematics marks, quotes, articles, closing periods."""
    text = unicodedata.normalize("NFKC", answer).translate(_CHARACTERS)
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
    word, _, rest = lowered.partition(" ")
    if word in _NUMBER_WORDS and (not rest or re.fullmatch(_UNIT_WORD, rest)):
        return Quantity(Fraction(_NUMBER_WORDS[word]), _unit(rest))
    match = _NUMBER.fullmatch(lowered)
    if match is None:
        return None
    value = _plain(match["value"]) * Fraction(10) ** int(match["power"] or 0)
    if match["under"] is not None:
        under_value = _plain(match["under"])
        if not under_value:
            return None
        value /= under_value
    value += int(match["whole"] or 0)
    unit = match["money"] or _unit(match["unit"] or "")
    return Quantity(-value if match["sign"] == "-" else value, unit)


def _plain(digits: str) -> Fraction:
    digits = digits.replace(",", "")
    return Fraction("0" + digits if digits.startswith(".") else digits.removesuffix("."))


def _unit(text: str) -> str:
    """One spelling for the common units; a plural is its singular."""
    text = text.strip().rstrip(".")
    if text in ("%", "percent", "per cent"):
        return "%"
    singular = text.removesuffix("s") if len(text) > 2 and not text.endswith("ss") else text
    return _UNITS.get(text, _UNITS.get(singular, singular))


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
    """A comparison made more calls than it may. BaseException: sympy swallows the others."""


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
    return degree <= MAX_DEGREE


def _within_budget(compare: Callable[[], bool]) -> bool:
    """Run with a budget of calls, counted by this thread's profile hook: the same verdict on
    every machine, however busy, where a clock would make it a matter of luck."""
    calls = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"
        if calls > MAX_CALLS:
            raise _BudgetSpent

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        return compare()
    except _BudgetSpent:
        return False
    finally:
        sys.setprofile(before)


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
