"""Solver: a picture and a question become a group of answers."""

import base64
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mmzero_async.engines.client import VllmClient
from mmzero_async.roles import prompts, solver
from mmzero_async.schemas.events import Answered
from mmzero_async.transport.client import Lease
from mmzero_async.workers.generation import sampling
from mmzero_async.workers.loop import Job, Result, Setting, main


@asynccontextmanager
async def solving(setting: Setting) -> AsyncIterator[Job]:
    config = setting.config
    templates = prompts.load_templates(config.templates)
    samples = {"easy": config.solver.easy_samples, "hard": config.solver.hard_samples}
    async with VllmClient(setting.engine_url) as engine:

        async def answer(lease: Lease) -> Result:
            work = lease.work
            assert work.proposal is not None and lease.picture is not None, "see the dispatcher"
            proposal = work.proposal
            question = proposal.easy_question if work.question == "easy" else proposal.hard_question
            picture = "data:image/png;base64," + base64.b64encode(lease.picture).decode()
            generation = await engine.generate(
                prompts.solver_messages(templates, question, picture),
                role="solver",
                policy=work.policy,
                version=work.version,
                n=samples[work.question],
                sampling=sampling(config.solver.sampling, work.seed),
                template=templates.digest("solver"),
                images=[work.picture],
            )
            answered = Answered(
                drawing=work.target,
                question=work.question,
                generation=generation,
                outcomes=[solver.parse(sample.text) for sample in generation.samples],
            )
            return Result([answered])

        yield answer


if __name__ == "__main__":
    sys.exit(main("solver", "answer", lambda c: c.workers.solver_in_flight, solving))
