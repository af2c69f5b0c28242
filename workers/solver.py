"""Solver: a picture and a question become a group of answers."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mmzero_async.roles import prompts, solver
from mmzero_async.roles.prompts import Templates
from mmzero_async.schemas.events import Answered, Generation, Probed
from mmzero_async.schemas.work import Work
from mmzero_async.transport.client import Lease
from mmzero_async.workers.generation import sampling
from mmzero_async.workers.loop import Job, Result, Setting, main


@asynccontextmanager
async def solving(setting: Setting) -> AsyncIterator[Job]:
    config = setting.config
    templates = prompts.load_templates(config.templates)
    samples = {"easy": config.solver.easy_samples, "hard": config.solver.hard_samples}
    async with setting.engine() as engine:

        async def answer(lease: Lease) -> Result:
            work = lease.work
            assert work.proposal is not None, "see the dispatcher"
            proposal = work.proposal
            question = proposal.easy_question if work.question == "easy" else proposal.hard_question
            generation = await engine.generate(
                messages(templates, question, lease.picture),
                role="solver",
                policy=work.policy,
                version=work.version,
                n=config.probe.samples if work.blind else samples[work.question],
                sampling=sampling(config.solver.sampling, work.seed),
                template=templates.digest("solver"),
                images=[work.picture] if work.picture else [],
            )
            return Result([probed(work, generation) if work.blind else answered(work, generation)])

        yield answer


def messages(templates: Templates, question: str, picture: bytes | None) -> list[prompts.Message]:
    if picture is None:
        return prompts.blind_messages(templates, question)
    return prompts.solver_messages(templates, question, prompts.png_url(picture))


def answered(work: Work, generation: Generation) -> Answered:
    return Answered(
        drawing=work.target,
        question=work.question,
        generation=generation,
        outcomes=[solver.parse(sample.text) for sample in generation.samples],
    )


def probed(work: Work, generation: Generation) -> Probed:
    """The blind answers, held against what was said with the picture."""
    assert work.blind, "only a probe is one"
    outcomes = [solver.parse(sample.text) for sample in generation.samples]
    sighted = solver.tally(work.answers)
    return Probed(
        drawing=work.target,
        question=work.question,
        without=work.blind,
        generation=generation,
        outcomes=outcomes,
        silver=sighted.silver,
        sighted=sighted.consistency,
        agreed=sum(solver.agrees(outcome.answer, sighted.silver) for outcome in outcomes),
        other=work.picture,
    )


if __name__ == "__main__":
    sys.exit(main("solver", "answer", lambda c: c.workers.solver_in_flight, solving))
