"""The solver: from its text to an answer, from answers to a silver answer, and its reward.

There is no ground truth: the majority of the votes is the label (TTRL, arXiv 2504.16084).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mmzero_async.config import Consistency, SolverConfig
from mmzero_async.roles.grading import count_votes, same_answer
from mmzero_async.schemas.events import Answered, AnswerOutcome, Probed

NO_ANSWER = frozenset({"none", "n/a", "unknown"})  # words that the reference takes for none
MAX_ANSWER = 200  # characters; an answer is a number, a word or a short phrase
_BRACE = re.compile(r"\\boxed\s*\{|\\[{}\\]|[{}]")
_THINK = re.compile(r"\s*<think>((?:(?!</?think>).)*)</think>\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Tally:
    """Votes on one question. `counts` has one entry a distinct answer, the majority first."""

    counts: tuple[tuple[str, int], ...]
    asked: int  # samples that the shares are of: those without an answer too, or not

    @property
    def silver(self) -> str | None:
        """The answer that most votes agree with; of equals the one that `counts` begins with."""
        return self.counts[0][0] if self.counts else None

    @property
    def consistency(self) -> float:
        """Share of the samples that gave the silver answer, 0 to 1."""
        return self.counts[0][1] / self.asked if self.counts else 0.0


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


def tally(answers: Sequence[str | None], of: Consistency = "asked") -> Tally:
    """Count answers that mean the same together, in whatever order they came; None (no answer)
    votes for nothing.

    of "valid": nor does one of NO_ANSWER, and what votes for nothing is not counted as asked.
    """
    given = [answer for answer in answers if answer is not None]
    if of == "asked":
        return Tally(counts=count_votes(given), asked=len(answers))
    valid = [it for it in given if it.strip() and it.strip().casefold() not in NO_ANSWER]
    return Tally(counts=count_votes(valid), asked=len(valid))


def solver_terms(hard: Answered, config: SolverConfig) -> list[dict[str, float]]:
    """Reward terms of each answer of a solver group; its reward is their sum.

    R = 0.9 * [answer equals the silver answer] + 0.1 * [format kept].
    """
    silver = tally([outcome.answer for outcome in hard.outcomes], config.consistency).silver
    return [
        {
            "answer": config.answer_weight * agrees(outcome.answer, silver),
            "format": config.format_weight * outcome.format_ok,
        }
        for outcome in hard.outcomes
    ]


def blind_share(probe: Probed, seen: Answered, of: Consistency = "asked") -> float:
    """Share of the blind answers that agree with the majority of those that saw the picture."""
    silver = tally([outcome.answer for outcome in seen.outcomes], of).silver
    blind = probe.outcomes
    return sum(agrees(it.answer, silver) for it in blind) / len(blind) if blind else 0.0


def agrees(answer: str | None, label: str | None) -> bool:
    return answer is not None and label is not None and same_answer(answer, label)
