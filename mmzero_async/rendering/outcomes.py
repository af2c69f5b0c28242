"""What became of one SVG: a picture, or why there is none."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG of exactly width x height pixels, RGB or RGBA without transparency."""

    png: bytes
    width: int
    height: int
    ink: float  # share of pixels that differ from the most common colour
    mended: tuple[str, ...]  # lossless mends, e.g. "xmlns", "ampersand"
    seconds: float


@dataclass(frozen=True, slots=True)
class RenderFailure:
    """Why there is no picture.

    Kinds: "too_large", "invalid" (no SVG, not well-formed, refused by the engine), "forbidden"
    (what no honest picture needs), "limit:<which>" (elements, depth, attribute, text, number,
    references, filter, pattern, layers), "timeout", "memory", "crashed", "blank".
    """

    kind: str
    detail: str
    seconds: float = 0.0


Outcome = Picture | RenderFailure
