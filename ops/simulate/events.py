"""What simulated workers write: real events of a real size, with no sense in them."""

import random
from collections.abc import Mapping

from mmzero_async.ops.simulate.times import Times
from mmzero_async.projections.flow import STAGE_POLICY
from mmzero_async.schemas.blobs import blob_digest
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
    Sample,
    Sampling,
    VersionSpan,
)
from mmzero_async.schemas.work import Work

PICTURE_BYTES = 4000
_PROPOSAL = Proposal(
    content_type="data_chart",
    caption="A bar chart with four bars and a legend. " * 3,
    easy_question="What is the value of the red bar?",
    easy_answer="4",
    hard_question="What is the difference between the red and the blue bar?",
    hard_answer="3",
)
_SVG = "<svg>" + "x" * 1200 + "</svg>"


class Author:
    """Writes the result of any work; one for all workers, so that a seed gives one story."""

    def __init__(self, times: Times, rng: random.Random) -> None:
        self._times, self._rng = times, rng
        most = max(stage.tokens for stage in times.stages.values())
        self._bytes = rng.randbytes(4 * most)
        self._pixels = rng.randbytes(PICTURE_BYTES)
        self._pictures = 0

    def result(self, work: Work, seconds: float) -> tuple[Event, Mapping[str, bytes]]:
        """`seconds`: how long it took."""
        stage = self._times.stages[work.stage]
        goes_on = [self._rng.random() < stage.success for _ in range(stage.samples)]
        match work.stage:
            case "propose":
                proposals = [
                    ProposalOutcome(proposal=_PROPOSAL if ok else None, failure="" if ok else "x")
                    for ok in goes_on
                ]
                return Proposed(
                    group=work.target,
                    topic="simulated",
                    seed=work.seed,
                    generation=self._generation(work, seconds),
                    outcomes=proposals,
                ), {}
            case "code":
                drawings = [
                    DrawingOutcome(svg=_SVG if ok else None, failure="" if ok else "no_svg")
                    for ok in goes_on
                ]
                generation = self._generation(work, seconds)
                return Coded(proposal=work.target, generation=generation, outcomes=drawings), {}
            case "render":
                return self._rendered(work, goes_on[0], seconds)
            case "answer":
                return Answered(
                    drawing=work.target,
                    question=work.question,
                    generation=self._generation(work, seconds),
                    outcomes=[AnswerOutcome(answer="4", format_ok=True) for _ in goes_on],
                ), {}

    def _rendered(self, work: Work, ok: bool, seconds: float) -> tuple[Event, Mapping[str, bytes]]:
        if not ok:
            return Rendered(
                drawing=work.target, renderer="simulated", failure="invalid", seconds=seconds
            ), {}
        self._pictures += 1
        picture = self._pictures.to_bytes(8, "little") + self._pixels
        digest = blob_digest(picture)
        rendered = Rendered(
            drawing=work.target, renderer="simulated", picture=digest, seconds=seconds
        )
        return rendered, {digest: picture}

    def _generation(self, work: Work, seconds: float) -> Generation:
        stage = self._times.stages[work.stage]
        packed = self._bytes[: 4 * stage.tokens]
        sample = Sample(
            token_ids=packed,
            logprobs=packed,
            versions=[VersionSpan(0, stage.tokens, work.version)],
            text="",
            finish_reason="stop",
        )
        return Generation(
            role=STAGE_POLICY[work.stage],
            policy=work.policy,
            version=work.version,
            prompt_token_ids=packed,
            sampling=Sampling(temperature=1.0),
            template="simulated",
            samples=[sample] * stage.samples,
            seconds=seconds,
        )
