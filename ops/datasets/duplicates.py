"""Rows that say what an earlier row said: the same words, and pictures that look the same.

Words are compared in one spelling (NFKC, case, blanks). Pictures look the same when their
fingerprints differ in at most BITS of 2304, as copies do in a run (projections/copies.py). What is
remembered of a row are two numbers in a dictionary; fingerprints are read again from the
log when words agree.
"""

import hashlib
import unicodedata
from collections.abc import Callable, Iterable

from mmzero_async.schemas.events import Rendered

BITS = 8  # shortcuts.copy_bits by default
Picture = Callable[[int], Rendered]  # by the offset of its event


def normalised(text: str) -> str:
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def key_of(words: Iterable[str]) -> int:
    """The same for words that are told apart by spelling alone."""
    text = "\0".join(map(normalised, words)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


def look_alike(one: Rendered, other: Rendered) -> bool:
    """A picture without a fingerprint (of an older writer) looks only like itself."""
    if one.picture == other.picture:
        return True
    if not one.fingerprint or len(one.fingerprint) != len(other.fingerprint):
        return False
    differing = int.from_bytes(one.fingerprint) ^ int.from_bytes(other.fingerprint)
    return differing.bit_count() <= BITS


class Duplicates:
    """`seen` every row once, in order: the first of its like is kept."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self._words: set[int] = set()
        self._pictures: dict[int, tuple[int, ...]] = {}  # words -> offsets of Rendered events

    def seen(self, key: int, picture: int | None = None) -> bool:
        """Whether a kept row has the words of this key, and a picture that looks like the one at
        this offset; remembers the row otherwise."""
        if picture is None:
            known = key in self._words
            self._words.add(key)
            return known
        earlier = self._pictures.get(key, ())
        if earlier:
            mine = self._picture(picture)
            if any(look_alike(mine, self._picture(offset)) for offset in earlier):
                return True
        self._pictures[key] = (*earlier, picture)
        return False
