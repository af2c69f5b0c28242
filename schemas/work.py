"""A piece of work that a worker leases: all it needs to know, so that no worker reads the log."""

import hashlib
from typing import Literal

from mmzero_async.schemas.events import (
    Answered,
    AnyEvent,
    Coded,
    Probed,
    Proposal,
    Proposed,
    Question,
    Rendered,
    Value,
    WorkAbandoned,
)

Blind = Literal["", "none", "other"]  # a probe: without its picture, or with another
Stage = Literal["propose", "code", "render", "answer"]
STAGES: tuple[Stage, ...] = ("propose", "code", "render", "answer")
STAGE_ROLE: dict[Stage, str] = {
    "propose": "proposer",
    "code": "coder",
    "render": "renderer",
    "answer": "solver",
}


BLIND = "/blind"  # what the key of a probe ends with


class Work(Value, frozen=True, kw_only=True):
    """One unit of one stage. `target` is the id of the group, proposal or drawing."""

    stage: Stage
    target: str
    version: int = 0  # policy version to use; unused by render
    policy: str = ""  # its name at the engine
    topic: str = ""  # propose
    seed: int = 0  # sampling seed, derived from the run's seed and the key
    proposal: Proposal | None = None  # code, render, answer
    svg: str = ""  # render; or
    program: str = ""
    picture: str = ""  # answer: digest of the blob that travels with the lease
    question: Question = "easy"  # answer
    blind: Blind = ""  # answer: a probe, see projections/probes.py
    answers: list[str | None] = []  # answer, blind: what was said with the picture
    attempt: int = 1

    @property
    def key(self) -> str:
        return work_key(self.stage, self.target, self.question, blind=bool(self.blind))


def work_key(stage: Stage, target: str, question: Question = "easy", *, blind: bool = False) -> str:
    """`propose/g1`, `code/g1.s0`, `render/g1.s0.d2`, `answer/g1.s0.d2/hard`, and of a probe
    `answer/g1.s0.d2/hard/blind`."""
    if stage != "answer":
        return f"{stage}/{target}"
    return f"{stage}/{target}/{question}" + (BLIND if blind else "")


def derived_seed(run_seed: int, key: str) -> int:
    """A 31-bit number: a function of the run's seed and a key, e.g. a work's, alone."""
    digest = hashlib.blake2b(f"{run_seed}/{key}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") & 0x7FFFFFFF


def completes(event: AnyEvent) -> str | None:
    """The key of the work that an event settles, or None."""
    match event:
        case Proposed():
            return work_key("propose", event.group)
        case Coded():
            return work_key("code", event.proposal)
        case Rendered():
            return work_key("render", event.drawing)
        case Answered():
            return work_key("answer", event.drawing, event.question)
        case Probed():
            return work_key("answer", event.drawing, event.question, blind=True)
        case WorkAbandoned():
            return event.work
        case _:
            return None
