"""The solver: from its text to an answer, from answers to a silver answer, and its reward.

There is no ground truth: the majority of the votes is the label (TTRL, arXiv 2504.16084).
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mmzero_async.config import SolverConfig
from mmzero_async.roles.grading import same_answer
from mmzero_async.schemas.events import Answered, AnswerOutcome

MAX_ANSWER = 200  # characters; an answer is a number, a word or a short phrase
_BRACE = re.compile(r"\\boxed\s*\{|\\[{}\\]|[{}]")
_THINK = re.compile(r"\s*<think>((?:(?!</?think>).)*)</think>\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Tally:
    """Votes on one question. `counts` in order of first appearance, one entry a distinct answer."""

    counts: tuple[tuple[str, int], ...]
    asked: int  # samples, those without an answer too

    @property
    def silver(self) -> str | None:
        """The majority answer as first written; of equals the one seen first."""
        return max(self.counts, key=lambda vote: vote[1])[0] if self.counts else None

    @property
    def consistency(self) -> float:
        """Share of all samples that gave the silver answer, 0 to 1."""
        return max((n for _, n in self.counts), default=0) / self.asked if self.asked else 0.0


def parse(text: str) -> AnswerOutcome:
    """The content of the last complete \\boxed{}, and whether the whole text kept the format.

    Format: `<think>…</think>`, then the box, and nothing else but blanks.
    """
    box = _last_box(text)
    if box is None:
        return AnswerOutcome()
    start, inside, stop = box
    answer = text[inside : stop - 1].strip()
    if not answer or len(answer) > MAX_ANSWER:
        return AnswerOutcome()
    thought = _THINK.match(text)
    in_order = thought is not None and thought.end() == start and not text[stop:].strip()
    return AnswerOutcome(answer=answer, format_ok=in_order)


def _last_box(text: str) -> tuple[int, int, int] | None:
    """(start, start of content, end) of the closed box that opens last; linear in the text."""
    open_braces: list[tuple[int, int, bool]] = []
    last: tuple[int, int, int] | None = None
    for token in _BRACE.finditer(text):
        mark = token[0]
        if mark == "}":
            if open_braces:
                start, inside, boxed = open_braces.pop()
                if boxed and (last is None or start > last[0]):
                    last = (start, inside, token.end())
        elif mark == "{" or mark.startswith("\\boxed"):
            open_braces.append((token.start(), token.end(), mark != "{"))
    return last


def tally(answers: Sequence[str | None]) -> Tally:
    """Count answers that mean the same together; None (no answer) votes for nothing."""
    written = Counter(answer for answer in answers if answer is not None)
    counts: dict[str, int] = {}
    for answer, votes in written.items():  # a Counter keeps the order of first appearance
        known = next((seen for seen in counts if same_answer(seen, answer)), answer)
        counts[known] = counts.get(known, 0) + votes
    return Tally(counts=tuple(counts.items()), asked=len(answers))


def solver_terms(hard: Answered, config: SolverConfig) -> list[dict[str, float]]:
    """Reward terms of each answer of a solver group; its reward is their sum.

    R = 0.9 * [answer equals the silver answer] + 0.1 * [format kept].
    """
    silver = tally([outcome.answer for outcome in hard.outcomes]).silver
    return [
        {
            "answer": config.answer_weight * agrees(outcome.answer, silver),
            "format": config.format_weight * outcome.format_ok,
        }
        for outcome in hard.outcomes
    ]


def agrees(answer: str | None, label: str | None) -> bool:
    return answer is not None and label is not None and same_answer(answer, label)
