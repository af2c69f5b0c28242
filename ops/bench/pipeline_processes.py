"""The processes of pipeline_run.py: the workers' own, and one that publishes version 0."""

import asyncio
from pathlib import Path

from mmzero_async.ops.bench.overlap_processes import learner_in, module
from mmzero_async.workers.learner import Learner

__all__ = ["module", "publish"]


def publish(folder: Path, base: Path) -> None:
    """A fresh adapter a role, as a learner does at its start; it ends there."""
    asyncio.run(_publish(folder, base))


async def _publish(folder: Path, base: Path) -> None:
    async with learner_in(folder, base, Learner) as learner:
        await learner.start()
