"""What is written in a drawing and how much of it can be seen: told by the renderer, read by the
detectors of roles/shortcuts/. Sizes are in pixels of the picture."""

import msgspec

MAX_CHARACTERS = 300  # of one inscription; what is longer is cut
MAX_INSCRIPTIONS = 200


class Inscription(msgspec.Struct, frozen=True, omit_defaults=True):
    """One <text> element with all that it contains, or one piece of metadata."""

    text: str  # blanks collapsed
    metadata: str = ""  # "title" | "desc" | "aria-label"; such are never drawn, "" is a <text>
    pixels: int = 0  # that it covers on the canvas, were it painted black and on top
    shown: float = 0.0  # share of these in which the picture differs from one without it
    painted: bool = True  # whether it leaves a mark where nothing else is drawn
    placed: bool = True  # whether it begins on the canvas


class Writing(msgspec.Struct, frozen=True, omit_defaults=True):
    inscriptions: list[Inscription] = []
    shapes: int = 0  # drawn elements besides text
    ink: float = 0.0  # share of pixels that differ from the commonest colour, without all text
    cut: bool = False  # there was more than could be told
