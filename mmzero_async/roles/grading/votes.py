"""Which answer do most votes agree with? Independent of the order in which they came.

Sameness is not transitive, so groups of answers could be drawn up in more than one way. The rule:
the answer that most votes agree with comes first and takes all of them with it, then the same
among the rest. So the votes of the first are exactly those that `same_answer` grants it. Of answers
that equally many agree with, the one given more often comes first; of those, a digest of all votes
decides, so that in the long run no answer is favoured for its spelling.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations

from mmzero_async.roles.grading.compare import Form, form_of, same_form


def count_votes(answers: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """(answer, votes), most agreed-with first; each answer as it was most often written.

    Blank answers vote for nothing.
    """
    # Forms are told apart once and are numbers from there on: to hash one is to hash fractions.
    places: dict[Form, int] = {}
    spellings: list[Counter[str]] = []
    for answer, votes in Counter(answers).items():
        if (form := form_of(answer)) is not None:
            place = places.setdefault(form, len(spellings))
            if place == len(spellings):
                spellings.append(Counter())
            spellings[place][answer] += votes
    given = [spelt.total() for spelt in spellings]
    equal = _equal(list(places))
    lots: list[bytes] = []
    counted = []
    left = set(range(len(given)))
    while left:
        support = {one: sum(given[two] for two in equal[one] if two in left) for one in left}
        most = max((support[place], given[place]) for place in left)
        first, *tied = (place for place in left if (support[place], given[place]) == most)
        if tied:
            lots = lots or _lots(places, spellings)
            first = max(first, *tied, key=lots.__getitem__)
        counted.append((_spelling(spellings[first]), support[first]))
        left.difference_update(equal[first])
    return tuple(counted)


def _equal(forms: Sequence[Form]) -> list[set[int]]:
    """Places of the forms that each is the same as, its own among them."""
    equal = [{place} for place in range(len(forms))]
    for one, two in combinations(range(len(forms)), 2):
        if same_form(forms[one], forms[two]):
            equal[one].add(two)
            equal[two].add(one)
    return equal


def _spelling(written: Counter[str]) -> str:
    """The most frequent; of equals the shortest, then the first in the alphabet."""
    return min(written, key=lambda text: (-written[text], len(text), text))


def _lots(forms: Iterable[Form], spellings: Iterable[Counter[str]]) -> list[bytes]:
    """A number for each form that depends on all votes and on no order."""
    every = sorted((text, votes) for spelt in spellings for text, votes in spelt.items())
    ballot = hashlib.blake2b(repr(every).encode("utf-8", "surrogatepass")).digest()
    return [
        hashlib.blake2b(repr(form).encode("utf-8", "surrogatepass"), key=ballot).digest()
        for form in forms
    ]
