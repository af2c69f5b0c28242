"""Words and numbers of short texts, compared as a reader would. Cheap on whatever is written."""

import re
import unicodedata

from mmzero_async.roles.grading.quantities import quantity, same_quantity
from mmzero_async.roles.grading.wording import normalise

MAX_READ = 2000  # characters of one text that are looked at
_WORD = re.compile(r"[^\W_]+(?:[.,'\u2019][^\W_]+)*%?")
_NUMERIC = re.compile(r"[-+]?[$€£]?\d")
_COMMON = """a an and are as at be by do does for from has have how in is it its of on or that the
their there they this to was were what when where which who why with you your"""
_STOP = frozenset(_COMMON.split())


def words(text: str) -> list[str]:
    """Its words and numbers in order, in one case and without marks."""
    return _WORD.findall(unicodedata.normalize("NFKC", text[:MAX_READ]).casefold())


def content_words(text: str) -> set[str]:
    """Without those that every sentence has."""
    return {word for word in words(text) if word not in _STOP}


def is_number(text: str) -> bool:
    return _NUMERIC.match(text.strip()) is not None


def same(one: str, two: str) -> bool:
    """Whether two short texts say the same: letters or quantities, without any mathematics."""
    a, b = normalise(one[:MAX_READ]), normalise(two[:MAX_READ])
    if not a or not b:
        return False
    if a.casefold() == b.casefold():
        return True
    left, right = quantity(a), quantity(b)
    return left is not None and right is not None and same_quantity(left, right)


def says(text: str, answer: str) -> bool:
    """Whether the answer stands somewhere in the text, as whole words."""
    if same(text, answer):
        return True
    said, wanted = words(text), words(answer)
    if not wanted:
        return False
    if len(wanted) == 1 and is_number(wanted[0]):
        return any(is_number(word) and same(word, wanted[0]) for word in said)
    size = len(wanted)
    return any(said[i : i + size] == wanted for i in range(len(said) - size + 1))
