"""The proposer: from its text to a proposal, and from what became of its drawings to its reward.

A proposal pays when a solver can answer its easy question on the rendered pictures and is torn
over its hard one. Knows nothing of how pictures or answers came about. MM-Zero, arXiv 2603.09206.
"""

import re

from mmzero_async.config import ProposerConfig
from mmzero_async.roles.content_types import CONTENT_TYPES
from mmzero_async.roles.diversity import BatchContext
from mmzero_async.roles.facts import PictureFacts
from mmzero_async.schemas.events import Proposal, ProposalOutcome, Proposed
from mmzero_async.schemas.ids import proposal_id

MAX_TEXT = 65_536  # characters of a whole sample
LIMITS: dict[str, int] = {  # characters a block
    "content_type": 40,
    "caption": 6000,
    "easy_question": 1000,
    "easy_answer": 120,
    "hard_question": 1500,
    "hard_answer": 120,
}
_TAGS = {
    tag: (
        re.compile(rf"<\s*{tag}\s*>", re.IGNORECASE),
        re.compile(rf"<\s*/\s*{tag}\s*>", re.IGNORECASE),
    )
    for tag in LIMITS
}


def parse(text: str) -> ProposalOutcome:
    """The six tagged blocks, in any order, blanks around tags and contents allowed.

    Failures: "missing:<tag>", "empty:<tag>", "content_type" (not one of CONTENT_TYPES),
    "too_long" (a block or the whole text). Of a repeated block the first counts.
    """
    if len(text) > MAX_TEXT:
        return ProposalOutcome(failure="too_long")
    said = text.rpartition("</think>")[2]  # what a reasoning model drafts is not its proposal
    blocks: dict[str, str] = {}
    for tag, (opening, closing) in _TAGS.items():
        start = opening.search(said)
        stop = closing.search(said, start.end()) if start else None
        if start is None or stop is None:
            return ProposalOutcome(failure=f"missing:{tag}")
        block = said[start.end() : stop.start()].strip()
        if not block:
            return ProposalOutcome(failure=f"empty:{tag}")
        if len(block) > LIMITS[tag]:
            return ProposalOutcome(failure="too_long")
        blocks[tag] = block
    content_type = re.sub(r"[\s-]+", "_", blocks["content_type"].lower())
    if content_type not in CONTENT_TYPES:
        return ProposalOutcome(failure="content_type")
    return ProposalOutcome(proposal=Proposal(**{**blocks, "content_type": content_type}))


def proposer_terms(
    group: Proposed,
    per_sample: list[list[PictureFacts | None] | None],
    config: ProposerConfig,
    batch: BatchContext,
) -> list[dict[str, float]]:
    """Reward terms of each proposal of a group; its reward is their sum.

    `per_sample[i]` has one entry a drawing of proposal i, None where no picture came of it; the
    list itself is None where proposal i could not be parsed (or never reached the coder).

    R = (1/N) sum over pictures [min(s, cap) + d] - low difficulty - type share - likeness
    (- memory, - structure, where the batch says that they are on). N = all drawings, failed ones
    too; the mean difficulty is over the pictures alone.
    """
    return [
        {"unparseable": config.unparseable}
        if outcome.proposal is None
        else _terms(facts or [], proposal_id(group.group, i), config, batch)
        for i, (outcome, facts) in enumerate(zip(group.outcomes, per_sample, strict=True))
    ]


def _terms(
    facts: list[PictureFacts | None], proposal: str, config: ProposerConfig, batch: BatchContext
) -> dict[str, float]:
    pictures = [fact for fact in facts if fact is not None]
    drawings = max(1, len(facts))
    # Without the cap the proposer learns to have the answers written into the picture.
    solvability = sum(min(p.solvability, config.solvability_cap) for p in pictures) / drawings
    difficulty = sum(p.difficulty for p in pictures) / drawings
    too_easy = bool(pictures) and (
        sum(p.difficulty for p in pictures) / len(pictures) < config.low_difficulty
    )
    terms = {
        "solvability": solvability,
        "difficulty": difficulty,
        "low_difficulty": -config.low_difficulty_penalty if too_easy else 0.0,
        "type_share": -batch.type_penalties.get(proposal, 0.0),
        "likeness": -batch.diversity_penalties.get(proposal, 0.0),
    }
    if batch.memory_penalties:
        terms["memory"] = -batch.memory_penalties.get(proposal, 0.0)
    if batch.structure_penalties:
        terms["structure"] = -batch.structure_penalties.get(proposal, 0.0)
    return terms
