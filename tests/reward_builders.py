"""Proposals, answers and pictures as rewards look at them, without a sample inside."""

from builders import generation

from mmzero_async.config import CoderConfig, FilterConfig, ProposerConfig, SolverConfig
from mmzero_async.roles.facts import PictureFacts
from mmzero_async.schemas.events import (
    Answered,
    AnswerOutcome,
    Proposal,
    ProposalOutcome,
    Proposed,
    Question,
    Rendered,
)

PROPOSER, CODER, SOLVER, FILTERS = ProposerConfig(), CoderConfig(), SolverConfig(), FilterConfig()


def proposal(caption: str = "Bars.", content_type: str = "data_chart", **changes: str) -> Proposal:
    values = {
        "easy_question": "How many bars?",
        "easy_answer": "3",
        "hard_question": "What is the sum of all bars?",
        "hard_answer": "12",
        **changes,
    }
    return Proposal(content_type=content_type, caption=caption, **values)


def proposed(*proposals: Proposal | None, group: str = "g1") -> Proposed:
    outcomes = [
        ProposalOutcome(proposal=p, failure="" if p else "missing:caption") for p in proposals
    ]
    return Proposed(
        group=group, topic="t", seed=1, generation=generation("proposer", []), outcomes=outcomes
    )


def answered(question: Question, *answers: str | None, format_ok: bool = True) -> Answered:
    outcomes = [AnswerOutcome(answer=a, format_ok=format_ok and a is not None) for a in answers]
    return Answered(
        drawing="g1.s0.d0",
        question=question,
        generation=generation("solver", []),
        outcomes=outcomes,
    )


def facts(s: float, c: float, silver: str | None = "12") -> PictureFacts:
    return PictureFacts(
        solvability=s,
        easy_consistency=s,
        hard_consistency=c,
        difficulty=min(c, 1 - c),
        silver=silver,
    )


def rendered(failure: str = "") -> Rendered:
    picture = None if failure else "digest"
    return Rendered(drawing="g1.s0.d0", renderer="r", picture=picture, failure=failure)
