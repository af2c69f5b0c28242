"""Which answer do most votes agree with? Independent of the order in which they came.

Sameness is not transitive, so groups of answers could be drawn up in more than one way. The rule:
the answer that most votes agree with comes first and takes all of them with it, then the same
among the rest. So the votes of the first are exactly those that `same_answer` grants it. Of answers
that equally many agree with, the one given more often comes first; of those, a digest of all votes
decides, so that in the long run no answer is favoured for its spelling.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable

from mmzero_async.roles.grading.compare import Form, form_of, same_form


def count_votes(answers: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """(answer, votes), most agreed-with first; each answer as it was most often written.

    Blank answers vote for nothing.
    """
    spellings: dict[Form, Counter[str]] = {}
    for answer, votes in Counter(answers).items():
        if (form := form_of(answer)) is not None:
            spellings.setdefault(form, Counter())[answer] += votes
    given = {form: spelt.total() for form, spelt in spellings.items()}
    equal = {one: [two for two in given if same_form(one, two)] for one in given}
    lots = _lots(spellings)
    counted = []
    left = set(given)
    while left:
        support = {one: sum(given[two] for two in equal[one] if two in left) for one in left}
        first = max(left, key=lambda form: (support[form], given[form], lots[form]))
        counted.append((_spelling(spellings[first]), support[first]))
        left.difference_update(equal[first])
    return tuple(counted)


def _spelling(written: Counter[str]) -> str:
    """The most frequent; of equals the shortest, then the first in the alphabet."""
    return min(written, key=lambda text: (-written[text], len(text), text))


def _lots(spellings: dict[Form, Counter[str]]) -> dict[Form, bytes]:
    """A number for each form that depends on all votes and on no order."""
    every = sorted((text, votes) for spelt in spellings.values() for text, votes in spelt.items())
    ballot = hashlib.blake2b(repr(every).encode("utf-8", "surrogatepass")).digest()
    return {
        form: hashlib.blake2b(repr(form).encode("utf-8", "surrogatepass"), key=ballot).digest()
        for form in spellings
    }
