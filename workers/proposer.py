"""Proposer: a topic becomes a group of proposals."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mmzero_async.roles import prompts, proposer
from mmzero_async.roles.topics import topic
from mmzero_async.schemas.events import Proposed
from mmzero_async.transport.client import Lease
from mmzero_async.workers.generation import sampling
from mmzero_async.workers.loop import Job, Result, Setting, main


@asynccontextmanager
async def proposing(setting: Setting) -> AsyncIterator[Job]:
    config = setting.config
    templates = prompts.load_templates(config.templates)
    async with setting.engine() as engine:

        async def propose(lease: Lease) -> Result:
            work = lease.work
            about = topic(config.templates, work.seed)
            generation = await engine.generate(
                prompts.proposer_messages(templates, about),
                role="proposer",
                policy=work.policy,
                version=work.version,
                n=config.proposer.samples,
                sampling=sampling(config.proposer.sampling, work.seed),
                template=templates.digest("proposer"),
                images=[],
            )
            outcomes = [proposer.parse(sample.text) for sample in generation.samples]
            proposed = Proposed(
                group=work.target,
                topic=about,
                seed=work.seed,
                generation=generation,
                outcomes=outcomes,
            )
            return Result([proposed])

        yield propose


if __name__ == "__main__":
    sys.exit(main("proposer", "propose", lambda c: c.workers.proposer_in_flight, proposing))
