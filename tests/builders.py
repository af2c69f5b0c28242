"""Events for tests, built as the workers would build them."""

from mmzero_async.config import Config
from mmzero_async.schemas.events import (
    Answered,
    AnswerOutcome,
    Coded,
    DrawingOutcome,
    Evaluated,
    Event,
    Generation,
    Probed,
    Proposal,
    ProposalOutcome,
    Proposed,
    Rendered,
    Role,
    RunStarted,
    Sample,
    Sampling,
    StepCommitted,
    VersionSpan,
)
from mmzero_async.schemas.ids import drawing_id, proposal_id
from mmzero_async.schemas.packing import pack_logprobs, pack_tokens
from mmzero_async.schemas.record import Record, envelope

PROPOSAL = Proposal(
    content_type="data_chart",
    caption="Bar chart with 2 bars: red 4, blue 7.",
    easy_question="What is the value of the red bar?",
    easy_answer="4",
    hard_question="What is the difference between red and blue?",
    hard_answer="3",
)
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 96"><rect width="9" height="9"/></svg>'
)
SCORED = Evaluated(
    role="solver",
    version=0,
    moment="before",
    mode="greedy",
    by_kind={"bar_value": (9, 10), "bar_sum": (4, 10)},
    hard_kinds=["bar_sum"],
    seed=1,
)


def run_started(
    config: Config, run: str, base_model: str = "x", base_digest: str = "x"
) -> RunStarted:
    return RunStarted(
        run=run,
        config=config.to_json(),
        config_digest=config.digest(),
        base_model=base_model,
        base_digest=base_digest,
        seed=config.run.seed,
        code_version="0",
    )


def generation(role: Role, texts: list[str], version: int = 0) -> Generation:
    samples = [
        Sample(
            token_ids=pack_tokens([1, 2, 3]),
            logprobs=pack_logprobs([-0.1, -0.2, -0.3]),
            versions=[VersionSpan(0, 3, version)],
            text=text,
            finish_reason="stop",
        )
        for text in texts
    ]
    return Generation(
        role=role,
        policy=f"{role}@{version}",
        version=version,
        prompt_token_ids=pack_tokens([5, 6]),
        sampling=Sampling(temperature=1.0),
        template="t",
        samples=samples,
    )


def proposed(group: str, parsed: list[bool], version: int = 0) -> Proposed:
    return Proposed(
        group=group,
        topic="bars",
        seed=1,
        generation=generation("proposer", ["x"] * len(parsed), version),
        outcomes=[
            ProposalOutcome(proposal=PROPOSAL) if ok else ProposalOutcome(failure="missing:caption")
            for ok in parsed
        ],
    )


def coded(proposal: str, drawn: list[bool], version: int = 0) -> Coded:
    return Coded(
        proposal=proposal,
        generation=generation("coder", ["x"] * len(drawn), version),
        outcomes=[
            DrawingOutcome(svg=SVG) if ok else DrawingOutcome(failure="no_code") for ok in drawn
        ],
    )


def rendered(drawing: str, ok: bool = True) -> Rendered:
    if not ok:
        return Rendered(drawing=drawing, renderer="test", failure="invalid")
    return Rendered(drawing=drawing, renderer="test", picture="ab" * 32, width=96, height=96)


def answered(drawing: str, question, answers: list[str | None], version: int = 0) -> Answered:
    return Answered(
        drawing=drawing,
        question=question,
        generation=generation("solver", ["x"] * len(answers), version),
        outcomes=[AnswerOutcome(answer=a, format_ok=a is not None) for a in answers],
    )


def probed(drawing: str, question, answers: list[str | None], version: int = 0) -> Probed:
    return Probed(
        drawing=drawing,
        question=question,
        without="other",
        generation=generation("solver", ["x"] * len(answers), version),
        outcomes=[AnswerOutcome(answer=a, format_ok=a is not None) for a in answers],
        silver="3",
        sighted=0.5,
        agreed=answers.count("3"),
        other="cd" * 32,
    )


def step(
    role: Role,
    number: int,
    groups: list[str],
    version: int | None = None,
    metrics: dict[str, float] | None = None,
) -> StepCommitted:
    return StepCommitted(
        role=role,
        step=number,
        version=version or number,
        groups=groups,
        offsets=[],
        checkpoint="c",
        digest="d",
        batch_digest="b",
        metrics=metrics or {},
    )


def whole_tree(
    group: str,
    *,
    proposals: int = 2,
    drawings: int = 2,
    easy: list[str | None] | None = None,
    hard: list[str | None] | None = None,
) -> list[Event]:
    """All events under one prompt, in an order in which workers could write them."""
    events: list[Event] = [proposed(group, [True] * proposals)]
    for i in range(proposals):
        proposal = proposal_id(group, i)
        events.append(coded(proposal, [True] * drawings))
        for j in range(drawings):
            drawing = drawing_id(proposal, j)
            events.append(rendered(drawing))
            events.append(answered(drawing, "easy", easy or ["4", "4", "5", "4"]))
            events.append(answered(drawing, "hard", hard or ["3", "3", "11", "4"]))
    return events


def records(events: list[Event], producer: str = "test") -> list[Record]:
    return [
        Record(i, envelope(e, producer=producer, epoch=1, sequence=i, time_ns=10**18 + i * 10**9))
        for i, e in enumerate(events)
    ]
