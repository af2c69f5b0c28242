"""How much each part of `just bench learner` measures; light, for whoever starts them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Of the window that a step is measured on."""

    groups: int
    samples: int
    picture: int = 448  # pixels; the seedling's are 96
    question: int = 48  # tokens
    longest: int = 512  # tokens a reply


@dataclass(frozen=True)
class Extent:
    """How long the bench takes."""

    window: Size
    repeats: int  # counted steps of the learner and of TRL
    steps: int  # of each run
    latency: float  # seconds that the engine of these runs takes for a request
    beside: bool  # whether two runs, or two measurements of memory, go on at once


FULL = Extent(Size(groups=16, samples=8), repeats=7, steps=6, latency=0.75, beside=False)
QUICK = Extent(Size(groups=4, samples=4), repeats=3, steps=3, latency=0.06, beside=True)
MODELS = ("seedling", "qwen3-vl-2b", "qwen3-vl-4b", "qwen3-vl-8b")
