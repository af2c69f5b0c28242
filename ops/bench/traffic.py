"""What is appended: values of one size, and the events of whole lineages as a run writes them.

A lineage is one prompt with 4 proposals, 16 drawings and 32 answered questions, sized as a model of
a few billion parameters writes them: 53 events of about 6 kB and 16 pictures of 4 kB.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from msgspec.structs import replace

from mmzero_async.ops.bench.stores import Item
from mmzero_async.schemas.events import (
    Answered,
    AnswerOutcome,
    Coded,
    DrawingOutcome,
    Event,
    Generation,
    Proposal,
    ProposalOutcome,
    Proposed,
    Rendered,
    Role,
    Sample,
    Sampling,
    VersionSpan,
    encode_event,
    kind_of,
)
from mmzero_async.schemas.ids import drawing_id, group_id, proposal_id

SIZES = {"1kB": 1_000, "10kB": 10_000, "100kB": 100_000}
BRANCHES = 4  # proposals a prompt, drawings a proposal, answers a question
PICTURE_BYTES = 4_000
EVENTS_A_LINEAGE = 1 + BRANCHES + 3 * BRANCHES**2
_TOKENS: dict[Role, int] = {"proposer": 160, "coder": 400, "solver": 120}
_rng = random.Random(1)


def values(size: int, count: int = 64) -> list[bytes]:
    """Random, so that nothing is gained by compression anywhere."""
    return [_rng.randbytes(size) for _ in range(count)]


@dataclass(frozen=True, slots=True)
class Lineage:
    """The events under one prompt, stage by stage, each with its picture."""

    proposed: Proposed
    coded: list[Coded]
    rendered: list[tuple[Rendered, bytes]]
    answered: list[Answered]

    def all(self) -> Iterator[tuple[Event, bytes | None]]:
        yield self.proposed, None
        for coded in self.coded:
            yield coded, None
        yield from self.rendered
        for answered in self.answered:
            yield answered, None


class Lineages:
    """Makes one after another; what costs time is made once and used again."""

    def __init__(self) -> None:
        proposal = Proposal(
            content_type="data_chart",
            caption="Bar chart with four bars. " * 8,
            easy_question="What is the value of the red bar?",
            easy_answer="4",
            hard_question="What is the difference between the red and the blue bar?",
            hard_answer="3",
        )
        outcomes = [ProposalOutcome(proposal=proposal)] * BRANCHES
        drawings = [DrawingOutcome(svg="<svg>" + "x" * 1200 + "</svg>")] * BRANCHES
        self._proposed = Proposed(
            group="", topic="bars", seed=1, generation=_generation("proposer"), outcomes=outcomes
        )
        self._coded = Coded(proposal="", generation=_generation("coder"), outcomes=drawings)
        self._rendered = Rendered(drawing="", renderer="resvg", width=512, height=512, ink=0.2)
        votes = [AnswerOutcome(answer="3", format_ok=True)] * BRANCHES
        self._answered = Answered(
            drawing="", question="easy", generation=_generation("solver"), outcomes=votes
        )
        self._picture = _rng.randbytes(PICTURE_BYTES)

    def make(self, prompt: int) -> Lineage:
        """Its pictures are its own; the digests in `Rendered` are left to whoever sends them."""
        group = group_id(prompt)
        proposals = [proposal_id(group, i) for i in range(BRANCHES)]
        drawings = [drawing_id(p, i) for p in proposals for i in range(BRANCHES)]
        return Lineage(
            replace(self._proposed, group=group),
            [replace(self._coded, proposal=proposal) for proposal in proposals],
            [(replace(self._rendered, drawing=d), d.encode() + self._picture) for d in drawings],
            [
                replace(self._answered, drawing=drawing, question=question)
                for drawing in drawings
                for question in ("easy", "hard")
            ],
        )


def mixed_items() -> list[Item]:
    """The events of a few lineages, encoded, with their pictures."""
    make = Lineages()
    return [
        Item(encode_event(event), picture, kind_of(event))
        for prompt in range(4)
        for event, picture in make.make(prompt).all()
    ]


def _generation(role: Role) -> Generation:
    tokens = _TOKENS[role]
    samples = [
        Sample(
            token_ids=_rng.randbytes(4 * tokens),
            logprobs=_rng.randbytes(4 * tokens),
            versions=[VersionSpan(0, tokens, 1)],
            text=_rng.randbytes(2 * tokens).hex()[: 3 * tokens],
            finish_reason="stop",
        )
        for _ in range(BRANCHES)
    ]
    return Generation(
        role=role,
        policy=f"{role}@1",
        version=1,
        prompt_token_ids=_rng.randbytes(4 * 200),
        sampling=Sampling(temperature=1.0),
        template="t",
        samples=samples,
    )
