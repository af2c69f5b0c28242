"""All that the log says of one prompt's descendants, but for tokens and tensors."""

from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec.structs import replace

from mmzero_async.schemas.events import (
    Answered,
    Coded,
    Generation,
    GroupRejected,
    Probed,
    Proposal,
    Proposed,
    Question,
    Rendered,
    Rewarded,
    Role,
    StepCommitted,
    WorkAbandoned,
)
from mmzero_async.schemas.ids import drawing_id, indices, parent, prompt_of, proposal_id, root
from mmzero_async.schemas.record import Record

LONGEST = 20_000  # characters of one text


class Fate(msgspec.Struct, frozen=True):
    """What became of a group."""

    state: str  # "trained" | "rejected"
    offset: int
    step: int = 0
    version: int = 0
    reason: str = ""


@dataclass(slots=True)
class Tree:
    """`apply` the records that concern a root, in order; `next` is where to read on."""

    root: str
    next: int = 0
    proposed: Proposed | None = None
    coded: dict[str, Coded] = field(default_factory=dict)
    rendered: dict[str, Rendered] = field(default_factory=dict)
    answered: dict[tuple[str, Question], Answered] = field(default_factory=dict)
    probed: dict[str, list[Probed]] = field(default_factory=dict)
    rewarded: dict[tuple[Role, str], Rewarded] = field(default_factory=dict)
    fates: dict[tuple[Role, str], Fate] = field(default_factory=dict)
    abandoned: dict[str, str] = field(default_factory=dict)  # work -> reason
    offsets: dict[str, int] = field(default_factory=dict)  # of each node's own event
    seconds: dict[str, float] = field(default_factory=dict)

    def apply(self, record: Record) -> None:
        match record.event():
            case Proposed() as event:
                self.proposed = replace(event, generation=_light(event.generation))
                self._at(event.group, record)
            case Coded() as event:
                self.coded[event.proposal] = replace(event, generation=_light(event.generation))
                self._at(event.proposal, record)
            case Rendered() as event:
                self.rendered[event.drawing] = replace(event, fingerprint=b"", structure=b"")
                self._at(event.drawing, record)
            case Answered() as event:
                light = replace(event, generation=_light(event.generation))
                self.answered[event.drawing, event.question] = light
            case Probed() as event:
                probe = replace(event, generation=_light(event.generation))
                self.probed.setdefault(event.drawing, []).append(probe)
            case Rewarded() as event:
                self.rewarded[event.role, event.group] = event
            case StepCommitted() as event:
                for group in event.groups:
                    if root(group) == self.root:
                        fate = Fate("trained", record.offset, event.step, event.version)
                        self.fates[event.role, group] = fate
            case GroupRejected() as event:
                reason = f"{event.reason}: {event.detail}" if event.detail else event.reason
                fate = Fate("rejected", record.offset, reason=reason[:LONGEST])
                self.fates[event.role, event.group] = fate
            case WorkAbandoned() as event:
                self.abandoned[event.work] = event.reason
            case _:
                pass

    def _at(self, node: str, record: Record) -> None:
        self.offsets[node] = record.offset
        self.seconds[node] = record.envelope.time_ns / 1e9

    # --- looking up ----------------------------------------------------------------------------

    def proposal(self, drawing: str) -> Proposal | None:
        """That a drawing was drawn from; None for one that the log does not know."""
        outcomes = self.proposed.outcomes if self.proposed else []
        sample = indices(drawing)[1]
        return outcomes[sample].proposal if sample < len(outcomes) else None

    def drawings(self) -> list[str]:
        """Every drawing that was asked for, in order."""
        return [
            drawing_id(proposal, i)
            for proposal in self.proposals()
            if proposal in self.coded
            for i in range(len(self.coded[proposal].outcomes))
        ]

    def proposals(self) -> list[str]:
        outcomes = self.proposed.outcomes if self.proposed else []
        return [proposal_id(self.root, i) for i in range(len(outcomes))]

    def groups_of(self, drawing: str) -> list[tuple[Role, str]]:
        """The three groups that a drawing is part of, whatever became of them."""
        proposal = parent(drawing)
        return [("proposer", root(drawing)), ("coder", proposal), ("solver", drawing)]


def _light(generation: Generation) -> Generation:
    """Without prompt, tokens and log-probabilities, which nobody reads."""
    samples = [
        replace(sample, token_ids=b"", logprobs=b"", text=sample.text[:LONGEST])
        for sample in generation.samples
    ]
    return replace(generation, prompt_token_ids=b"", samples=samples)


def is_drawing(lineage: str) -> bool:
    """`g1.s0.d3`, and nothing shorter or stranger."""
    return prompt_of(lineage) is not None and len(indices(lineage)) == 3


def figures(value: object) -> Any:
    """Events and values as JSON knows them."""
    return msgspec.to_builtins(value)
