"""Held-out scenes with known answers, for evaluation alone: no worker, no learner imports them."""

import random
from dataclasses import dataclass

from mmzero_async.seedling.scenes import HARD_KINDS, Asked, random_scene


@dataclass(frozen=True)
class HeldoutScene:
    svg: str
    easy: Asked
    hard: Asked


def heldout(count: int, seed: int) -> list[HeldoutScene]:
    """Scenes by seed. The generator is seeded with a string that training never uses."""
    rng = random.Random(f"heldout/{seed}")
    scenes = []
    for _ in range(count):
        scene = random_scene(rng)
        scenes.append(HeldoutScene(scene.svg(), scene.easy(rng), scene.hard(rng)))
    return scenes


__all__ = ["HARD_KINDS", "HeldoutScene", "heldout"]
