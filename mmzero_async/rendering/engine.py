"""What an engine is that draws, behind two members: what it is, and SVG to pixels.

Another engine, or another build of one, is another class (`resvg.py`, `svg2png.py`); its id stands
in every event. `engines.py` opens the one that is configured.
"""

from dataclasses import dataclass
from typing import Protocol

from PIL import Image


@dataclass(frozen=True, slots=True)
class Drawn:
    """What an engine made of an SVG."""

    picture: Image.Image  # RGB
    png: bytes = b""  # of the same pixels, where the engine gave one


class Engine(Protocol):
    @property
    def id(self) -> str:
        """Name, versions and a digest of the options: what a picture depends on but its fonts."""

    def draw(self, svg: str, size: int, background: str) -> Drawn:
        """A picture that fits into size x size pixels. ValueError for a bad SVG; may also panic,
        abort, hang or take all memory: the child's limits are for that."""
