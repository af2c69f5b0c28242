"""The held-out score: scenes with known answers, asked of the served solver, graded, counted."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from mmzero_async.config import Config
from mmzero_async.engines.pool import Engine
from mmzero_async.rendering.pool import Picture, RenderPool
from mmzero_async.roles import prompts, solver
from mmzero_async.schemas.events import Evaluated, Sampling
from mmzero_async.seedling.heldout import HARD_KINDS, HeldoutScene, heldout
from mmzero_async.seedling.scenes import Asked

CONCURRENT = 48


async def evaluate(
    engine: Engine,
    config: Config,
    *,
    policy: str,
    version: int,
    moment: str,
    mode: str = "greedy",
    scenes: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluated:
    """Asks an easy and a hard question about each scene. `mode`: "greedy" or "sampled"."""
    started = time.monotonic()
    templates = prompts.load_templates(config.templates)
    temperature = 0.0 if mode == "greedy" else config.solver.sampling.temperature
    chosen = heldout(scenes or config.eval.scenes, config.eval.seed)
    asked: Counter[str] = Counter()
    correct: Counter[str] = Counter()
    async with RenderPool(config.renderer) as pool:

        async def ask(picture: str, question: Asked, number: int) -> None:
            generation = await engine.generate(
                prompts.solver_messages(templates, question.question, picture),
                role="solver",
                policy=policy,
                version=version,
                n=1,
                sampling=Sampling(
                    temperature=temperature,
                    max_tokens=config.solver.sampling.max_tokens,
                    seed=config.eval.seed + number,
                ),
                template=templates.digest("solver"),
                images=[],
            )
            answer = solver.parse(generation.samples[0].text).answer
            asked[question.kind] += 1
            correct[question.kind] += solver.agrees(answer, question.answer)
            progress(asked.total(), 2 * len(chosen))

        async def both(scene: HeldoutScene, number: int) -> None:
            outcome = await pool.render(scene.svg)
            if not isinstance(outcome, Picture):
                raise RuntimeError(f"a held-out scene did not render: {outcome}")
            picture = prompts.png_url(outcome.png)
            await ask(picture, scene.easy, 2 * number)
            await ask(picture, scene.hard, 2 * number + 1)

        pending = iter(enumerate(chosen))

        async def hand() -> None:
            for number, scene in pending:
                await both(scene, number)

        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENT):
                group.create_task(hand())
    return Evaluated(
        role="solver",
        version=version,
        moment=moment,
        mode=mode,
        by_kind={kind: (correct[kind], asked[kind]) for kind in sorted(asked)},
        hard_kinds=[kind for kind in HARD_KINDS if kind in asked],
        seed=config.eval.seed,
        seconds=time.monotonic() - started,
    )
