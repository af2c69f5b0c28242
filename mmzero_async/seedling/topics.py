"""Seed topics for the proposer: reproducible by seed, spread over family, size and demand."""

import random

from mmzero_async.seedling.scenes import FAMILIES, Bars, Grid, Line, Rectangle

SIZES = {"bars": (3, 5), "line": (4, 5), "grid": (4, 8), "rectangle": (1, 1)}
HARD = {
    "bars": Bars.hard_kinds,
    "line": Line.hard_kinds,
    "grid": Grid.hard_kinds,
    "rectangle": Rectangle.hard_kinds,
}
WORDS = {
    "bars": "a bar chart with {} bars",
    "line": "a line chart with {} points",
    "grid": "{} shapes in a grid",
    "rectangle": "a rectangle",
}


def describe(family: str, size: int, hard_kind: str) -> str:
    return f"{WORDS[family].format(size)}, {hard_kind.split('_')[1]}"


def choose(rng: random.Random) -> tuple[str, int, str]:
    """(family, size, kind of hard question)"""
    family = rng.choices(FAMILIES, (4, 3, 4, 2))[0]
    return family, rng.randint(*SIZES[family]), rng.choice(HARD[family])


def topic(seed: int) -> str:
    """The topic of a seed, e.g. "a bar chart with 4 bars, difference"."""
    return describe(*choose(random.Random(f"topic/{seed}")))
