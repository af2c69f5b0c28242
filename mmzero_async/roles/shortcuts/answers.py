"""Does a text give an answer away? The rules, from the plainest to the subtlest.

1. announced: "Answer: 3", "Solution 3", "The answer is 3", also over two texts that follow each
   other, for either question.
2. asked: one text repeats a question (four fifths of its words; four at least, or with a question
   mark) and says its answer.
3. derived: a text names what the hard question asks to be worked out (sum, difference, average,
   ...) beside its answer: "Difference: 3". It need only be read off.
4. alone: a text is the hard answer and nothing else, the caption does not name it, and it cannot be
   a label among labels or a tick of an axis, as fewer than two other texts of its kind (number or
   word) stand in the picture.

So a tick, a value beside its bar, a legend's entry and all that the caption asks for are read, not
given away, although they may equal an answer; and an easy question is there to be read off.
"""

import re
from collections.abc import Sequence
from itertools import zip_longest

from mmzero_async.roles.shortcuts.words import content_words, is_number, same, says, words
from mmzero_async.schemas.events import Proposal

_ANNOUNCED = re.compile(
    r"(?:^|[\s(\[])(?:(?:easy|hard|the|correct|final|right)\s+)*"
    r"(?:answer|ans|solution|soln)s?\b\.?\s*(?:is|are|=|:|->|\u2192|-|\u2013)?\s*(?P<said>.*)",
    re.IGNORECASE | re.DOTALL,
)
_DERIVED = (  # what stands for the same operation
    frozenset({"difference", "differ", "apart", "minus", "gap", "more", "fewer", "less"}),
    frozenset({"sum", "total", "together", "combined", "altogether", "overall", "plus"}),
    frozenset({"average", "mean"}),
    frozenset({"median"}),
    frozenset({"ratio", "times", "proportion"}),
    frozenset({"product", "multiplied"}),
    frozenset({"range", "spread"}),
    frozenset({"percentage", "percent", "share"}),
    frozenset({"increase", "growth", "rise", "change", "decrease", "drop", "decline"}),
    frozenset({"area"}),
    frozenset({"perimeter", "circumference"}),
    frozenset({"volume"}),
    frozenset({"largest", "highest", "maximum", "max", "tallest", "greatest", "most"}),
    frozenset({"smallest", "lowest", "minimum", "min", "shortest", "least", "fewest"}),
    frozenset({"second"}),
    frozenset({"duration", "elapsed", "distance"}),
)
ASKED_SHARE, ASKED_WORDS = 0.8, 4
SIBLINGS = 2  # other texts of its kind that make a bare text a label among labels
MAX_DERIVED = 12  # words; a longer text is prose, which rule 2 looks at


def gives_away(texts: Sequence[str], proposal: Proposal) -> str | None:
    """The first rule that the texts break, in words; None where they are to be read."""
    for text, following in zip_longest(texts, texts[1:], fillvalue=""):
        found = (
            _announced(text, following, proposal)
            or _asked(text, proposal)
            or _derived(text, proposal)
            or _alone(text, texts, proposal)
        )
        if found:
            return f"{found}: {text[:120]!r}"
    return None


def _announced(text: str, following: str, proposal: Proposal) -> str | None:
    match = _ANNOUNCED.search(text)
    if match is None:
        return None
    said = match["said"].strip() or following
    answers = {"easy": proposal.easy_answer, "hard": proposal.hard_answer}
    for question, answer in answers.items():
        if same(said, answer) or says(said[: len(answer) + 40], answer):
            return f"announces the {question} answer"
    return None


def _asked(text: str, proposal: Proposal) -> str | None:
    written = content_words(text)
    pairs = {
        "easy": (proposal.easy_question, proposal.easy_answer),
        "hard": (proposal.hard_question, proposal.hard_answer),
    }
    for name, (question, answer) in pairs.items():
        asked = content_words(question)
        repeated = len(asked & written) >= ASKED_SHARE * len(asked)
        beyond = _without(words(text), words(question))
        sentence = "?" in text or len(asked) >= ASKED_WORDS  # else "red bar: 4" would be one
        if asked and sentence and repeated and says(" ".join(beyond), answer):
            return f"repeats the {name} question with its answer"
    return None


def _without(said: list[str], question: list[str]) -> list[str]:
    """What a text says besides the words of the question, each taken away as often as it occurs."""
    left = list(question)
    kept = []
    for word in said:
        if word in left:
            left.remove(word)
        else:
            kept.append(word)
    return kept


def _derived(text: str, proposal: Proposal) -> str | None:
    written = words(text)
    if len(written) > MAX_DERIVED or not says(text, proposal.hard_answer):
        return None
    asked = set(words(proposal.hard_question))
    answer = set(words(proposal.hard_answer))
    for operation in _DERIVED:
        named = operation & set(written) - answer
        if named and operation & asked:
            return f"says the {sorted(named)[0]} that the hard question asks for"
    return None


def _alone(text: str, texts: Sequence[str], proposal: Proposal) -> str | None:
    answer = proposal.hard_answer
    if not same(text, answer) or says(proposal.caption, answer):
        return None
    if says(proposal.hard_question, answer) or same(answer, proposal.easy_answer):
        return None  # a choice among those the question names, or what is there to be read off
    number = is_number(text)
    others = [t for t in texts if not same(t, text) and is_number(t) == number and _short(t)]
    return None if len(others) >= SIBLINGS else "is the hard answer, with no label like it"


def _short(text: str) -> bool:
    return len(words(text)) <= 3
