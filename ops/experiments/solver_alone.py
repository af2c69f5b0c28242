"""The solver alone on fresh scenes: real engine, real steps, staleness as the caller orders it.

Questions come from the seedling's generator, whose answers are not looked at: the label is the
majority, as in a run. One process and one loop, so that every window is exactly as old as asked.
"""

import asyncio
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from mmzero_async.config import Config
from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.launch import BASE_POLICY
from mmzero_async.learner import model
from mmzero_async.learner.step import StepResult, Trainer
from mmzero_async.learner.window import GroupBatch, Window
from mmzero_async.ops.evaluate import evaluate
from mmzero_async.rendering.pool import Picture, RenderPool
from mmzero_async.roles import filters, prompts, solver
from mmzero_async.roles.advantages import rewards_of, window_advantages
from mmzero_async.schemas.events import Answered, Evaluated, Generation
from mmzero_async.schemas.work import derived_seed
from mmzero_async.seedling.scenes import random_scene
from mmzero_async.workers.generation import sampling

AT_ONCE = 32  # questions asked together
MOST_ASKED = 4096  # for one window; a policy that always agrees with itself fills none


@dataclass(frozen=True, slots=True)
class Asked:
    """A window and what it cost: the version that answered, and the questions asked for it."""

    window: Window
    pictures: dict[str, bytes]
    version: int
    questions: int


@dataclass
class SolverAlone:
    """One solver from the base on. `name` keeps its adapters apart from others' at the engine."""

    name: str
    config: Config
    base: Path
    folder: Path
    engine: VllmClient
    pool: RenderPool
    seed: int
    version: int = 0
    policy: str = BASE_POLICY
    _trainer: Trainer = field(init=False)
    _numbers: Iterator[int] = field(init=False, default_factory=count)

    def __post_init__(self) -> None:
        learner = self.config.learner
        policy = model.load(
            self.base,
            rank=learner.lora_rank,
            alpha=learner.lora_alpha,
            seed=self.seed,
            dtype=learner.dtype,
        )
        self._trainer = Trainer(policy, "solver", learner)
        self._scenes = random.Random(f"solver alone/{self.seed}")
        self._templates = prompts.load_templates(self.config.templates)

    async def ask(self) -> Asked:
        """The next window, answered by the policy as it is now.

        RuntimeError when too few groups of so many questions pass the filters.
        """
        learner, wanted = self.config.learner, self.config.learner.solver.groups
        groups: list[tuple[str, Generation, list[float]]] = []
        pictures: dict[str, bytes] = {}
        asked = 0
        while len(groups) < wanted:
            if asked >= MOST_ASKED:
                raise RuntimeError(
                    f"{self.name}: {len(groups)} of {asked} groups passed the filters at version "
                    f"{self.version}, {wanted} are wanted: widen filters.solver_hard_consistency"
                )
            numbers = [next(self._numbers) for _ in range(AT_ONCE)]
            made = await asyncio.gather(*(self._question(number) for number in numbers))
            asked += len(made)
            for png, answered in made:
                rewards = self._rewards(answered)
                if rewards is not None and len(groups) < wanted:
                    pictures[answered.drawing] = png
                    groups.append((answered.drawing, answered.generation, rewards))
        advantages = window_advantages(
            [rewards for *_, rewards in groups], learner.scale_rewards, learner.baseline
        )
        window = Window(
            "solver",
            tuple(
                GroupBatch(drawing, generation, rewards, one.tolist(), ())
                for (drawing, generation, rewards), one in zip(groups, advantages, strict=True)
            ),
        )
        return Asked(window, pictures, self.version, asked)

    async def train(self, asked: Asked) -> StepResult:
        """One step; the new version is served when this returns."""
        result = await asyncio.to_thread(
            self._trainer.train, asked.window, asked.pictures.__getitem__
        )
        self.version += 1
        saved = self._trainer.save(self.folder, self.version)
        before, self.policy = self.policy, f"{self.name}@{self.version}"
        await self.engine.load_policy(self.policy, str((self.folder / saved.checkpoint).absolute()))
        if before != BASE_POLICY:
            await self.engine.unload_policy(before)
            shutil.rmtree(self.folder / f"checkpoints/solver/{self.version - 1:06d}")
        return result

    async def score(self, mode: str, scenes: int) -> Evaluated:
        return await evaluate(
            self.engine,
            self.config,
            policy=self.policy,
            version=self.version,
            moment="manual",
            mode=mode,
            scenes=scenes,
        )

    async def leave(self) -> None:
        """Takes the last adapter out of the engine."""
        if self.policy != BASE_POLICY:
            await self.engine.unload_policy(self.policy)

    async def _question(self, number: int) -> tuple[bytes, Answered]:
        drawing, scene = f"scene{number}", random_scene(self._scenes)
        question = scene.hard(self._scenes).question
        picture = await self.pool.render(scene.svg())
        if not isinstance(picture, Picture):
            raise RuntimeError(f"a generated scene did not render: {picture}")
        generation = await self.engine.generate(
            prompts.solver_messages(self._templates, question, prompts.png_url(picture.png)),
            role="solver",
            policy=self.policy,
            version=self.version,
            n=self.config.solver.hard_samples,
            sampling=sampling(self.config.solver.sampling, derived_seed(self.seed, drawing)),
            template=self._templates.digest("solver"),
            images=[drawing],
        )
        outcomes = [solver.parse(sample.text) for sample in generation.samples]
        answered = Answered(
            drawing=drawing, question="hard", generation=generation, outcomes=outcomes
        )
        return picture.png, answered

    def _rewards(self, answered: Answered) -> list[float] | None:
        """None for a group that the run's own filters would reject."""
        votes = solver.tally([outcome.answer for outcome in answered.outcomes])
        low, high = self.config.filters.solver_hard_consistency
        rewards = rewards_of(solver.solver_terms(answered, self.config.solver))
        if not low <= votes.consistency <= high or filters.zero_variance(rewards) is not None:
            return None
        return rewards
