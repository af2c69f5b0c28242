"""Math-verify behind bounds: what an answer may contain, and how many lines a comparison may run.

No signals, so it is safe in any thread; never raises; the same verdict on every machine.
"""

import inspect
import logging
import math
import re
import sys
from collections.abc import Callable
from functools import lru_cache
from types import FrameType
from typing import Any

MAX_MATHS = 120  # characters of an answer that math-verify may see
MAX_LINES = 3_000_000  # lines of Python that one comparison may run: about a second
MAX_TERMS = 20_000  # of what an answer's powers can expand to
MAX_DEGREE = 200  # product of all whole exponents in an answer

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


class _BudgetSpent(BaseException):
    """A comparison ran more lines than it may. BaseException: sympy swallows the others."""


def looks_like_maths(text: str) -> bool:
    """Whether a normalised answer is worth asking math-verify about."""
    return _MATHS.search(text) is not None


def same_maths(one: str, two: str) -> bool:
    """Math-verify in both directions; False for what is too long or could grow without bound."""
    if not (_bounded(one) and _bounded(two)):
        return False
    parse, verify = _library()
    try:
        return within_budget(lambda: _math_verify(parse, verify, one, two))
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


def within_budget(compare: Callable[[], bool]) -> bool:
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
