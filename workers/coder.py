"""Coder: a proposal becomes a group of drawings (SVG, or plotting programs)."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mmzero_async.roles import coder, prompts
from mmzero_async.schemas.events import Coded
from mmzero_async.transport.client import Lease
from mmzero_async.workers.generation import sampling
from mmzero_async.workers.loop import Job, Result, Setting, main


@asynccontextmanager
async def coding(setting: Setting) -> AsyncIterator[Job]:
    config = setting.config
    templates = prompts.load_templates(config.templates, config.coder.drawing)
    async with setting.engine() as engine:

        async def code(lease: Lease) -> Result:
            work = lease.work
            assert work.proposal is not None, "a code lease carries its proposal"
            generation = await engine.generate(
                prompts.coder_messages(templates, work.proposal),
                role="coder",
                policy=work.policy,
                version=work.version,
                n=config.coder.samples,
                sampling=sampling(config.coder.sampling, work.seed),
                template=templates.digest("coder"),
                images=[],
            )
            outcomes = [
                coder.parse(sample.text, config.coder.drawing) for sample in generation.samples
            ]
            return Result([Coded(proposal=work.target, generation=generation, outcomes=outcomes)])

        yield code


if __name__ == "__main__":
    sys.exit(main("coder", "code", lambda c: c.workers.coder_in_flight, coding))
