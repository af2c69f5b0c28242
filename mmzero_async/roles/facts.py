"""What the solver's answers say about one picture: the facts that every reward is made of.

Pure arithmetic over events. Solvability is a share of all samples, answered or not; what
consistency is a share of, `solver.consistency` says.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mmzero_async.config import Consistency
from mmzero_async.roles.solver import agrees, tally
from mmzero_async.schemas.events import Answered, Proposal, Rendered


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """All shares in [0, 1]; difficulty in [0, 0.5]."""

    solvability: float  # easy answers that match the proposer's
    easy_consistency: float  # share of the most frequent easy answer
    hard_consistency: float  # share of the silver answer
    difficulty: float  # min(c, 1 - c) of the hard consistency c
    silver: str | None  # majority answer to the hard question
    agreement: float = 0.0  # 1 if the silver answer is the proposer's own, else 0

    def as_dict(self) -> dict[str, float]:
        """For `Rewarded.facts` and the filters."""
        return {
            "solvability": self.solvability,
            "easy_consistency": self.easy_consistency,
            "hard_consistency": self.hard_consistency,
            "difficulty": self.difficulty,
            "agreement": self.agreement,
        }


def picture_facts(
    easy: Answered, hard: Answered, proposal: Proposal, of: Consistency = "asked"
) -> PictureFacts:
    """Facts of one picture from the answers to both of its questions."""
    easy_answers = [outcome.answer for outcome in easy.outcomes]
    right = sum(agrees(answer, proposal.easy_answer) for answer in easy_answers)
    votes = tally([outcome.answer for outcome in hard.outcomes], of)
    c = votes.consistency
    return PictureFacts(
        solvability=right / len(easy_answers) if easy_answers else 0.0,
        easy_consistency=tally(easy_answers, of).consistency,
        hard_consistency=c,
        difficulty=min(c, 1.0 - c),
        silver=votes.silver,
        agreement=float(agrees(votes.silver, proposal.hard_answer)),
    )


def render_rate(renders: Sequence[Rendered | None]) -> float:
    """Share of a coder group's drawings that became pictures; None is one that did not."""
    drawn = sum(r is not None and not r.failure and r.picture is not None for r in renders)
    return drawn / len(renders) if renders else 0.0
