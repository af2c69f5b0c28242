"""The processes of a run of overlap.py: the workers' own, and an engine and a learner of fixed
times."""

import asyncio
import runpy
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar

from mmzero_async import telemetry
from mmzero_async.config import from_json
from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.publisher import AdapterPublisher
from mmzero_async.learner.checkpoint import Saved
from mmzero_async.learner.step import StepResult
from mmzero_async.learner.window import Window
from mmzero_async.log.reader import LogReader
from mmzero_async.ops.bench.fixed_latency import serve
from mmzero_async.ops.rundir import weights_digest
from mmzero_async.roles.grading import GRADER
from mmzero_async.schemas.events import Role, RunFinished, RunStarted
from mmzero_async.transport.client import LogClient
from mmzero_async.workers import coder, log_server, proposer, renderer, solver
from mmzero_async.workers.learner import Learner
from mmzero_async.workers.loop import Setting

MODULES = (coder, log_server, proposer, renderer, solver)  # loaded for the forks to come
L = TypeVar("L", bound=Learner)
IMAGE_TOKENS = 9  # of the seedling's 96 pixels


def module(name: str, folder: Path) -> None:
    """A process of a run, as the supervisor starts it."""
    sys.argv = [name, "--run-dir", str(folder)]
    runpy.run_module(f"mmzero_async.workers.{name}", run_name="__main__")


def engine(tokenizer: Path, latency: float, slots: int, port: int) -> None:
    asyncio.run(serve(tokenizer, IMAGE_TOKENS, latency, slots, port))


def learn(folder: Path, base: Path, steps: int, step_seconds: float) -> None:
    asyncio.run(_learn(folder, base, steps, step_seconds))


class FixedLengthLearner(Learner):
    """The learner, whose every step takes `step_seconds`, or longer where the real one does; the
    run ends after `last` steps."""

    step_seconds = 0.0
    last = 1

    async def step(self, role: Role) -> None:
        await super().step(role)
        if self.pipeline.policies.step[role] >= self.last:
            await self.client.append([RunFinished(reason="limit")])

    def _train(self, role: Role, window: Window, version: int) -> tuple[StepResult, Saved]:
        began = time.monotonic()
        done = super()._train(role, window, version)
        time.sleep(max(0.0, self.step_seconds - (time.monotonic() - began)))
        return done


async def _learn(folder: Path, base: Path, steps: int, step_seconds: float) -> None:
    async with learner_in(folder, base, FixedLengthLearner) as learner:
        learner.step_seconds, learner.last = step_seconds, steps
        await learner.start()
        await learner.run()


@asynccontextmanager
async def learner_in(folder: Path, base: Path, kind: type[L]) -> AsyncIterator[L]:
    """As the learner's own process makes it, in a log that it begins itself."""
    config = from_json((folder / "config.json").read_text())
    logger = telemetry.configure(folder, "learner-0", run=folder.name, role="learner")
    url = (folder / "engine.url").read_text()
    setting = Setting(folder, "learner-0", config, url, logger)
    async with AsyncExitStack() as stack:
        reader = LogReader.open(folder / "log")
        stack.callback(reader.close)
        client = await stack.enter_async_context(
            LogClient.connect(
                (folder / "log.url").read_text(),
                worker=setting.worker,
                role="learner",
                config_digest=config.digest(),
            )
        )
        started = RunStarted(
            run=folder.name,
            config=config.to_json(),
            config_digest=config.digest(),
            base_model=str(base),
            base_digest=weights_digest(base),
            seed=config.run.seed,
            code_version="bench",
            grader=GRADER,
        )
        await client.append([started])
        vllm = await stack.enter_async_context(VllmClient(setting.engine_url))
        yield kind(setting, client, AdapterPublisher(vllm), reader, base)
