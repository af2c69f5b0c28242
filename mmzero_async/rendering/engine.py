"""The engine that draws, behind two members: what it is, and SVG to pixels. For the child alone.

Another engine, or another build of this one, is another class; its id stands in every event.
`svg2png.py` is one.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Protocol

import resvg_py
from PIL import Image

from mmzero_async.rendering.png import decoded

_OPTIONS: dict[str, Any] = {
    "dpi": 96,  # the default of 0 makes cm, in and pt vanish
    "languages": ["en"],
    "skip_system_fonts": True,
    "font_family": "DejaVu Sans",
    "serif_family": "DejaVu Serif",  # also the last resort for an unknown family
    "sans_serif_family": "DejaVu Sans",
    "cursive_family": "DejaVu Sans",
    "fantasy_family": "DejaVu Sans",
    "monospace_family": "DejaVu Sans Mono",
    "log_information": False,
}


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


def opened(name: str, fonts: Sequence[str]) -> Engine:
    """The engine of that name (`renderer.engine`), with these font files and no others."""
    if name == "svg2png-py":
        from mmzero_async.rendering.svg2png import Svg2Png  # not loaded where it does not draw

        return Svg2Png(fonts)
    return Resvg(fonts)


class Resvg:
    """resvg through resvg-py, with the given font files and no others."""

    def __init__(self, fonts: Sequence[str]) -> None:
        self._fonts = list(fonts)
        written = json.dumps(_OPTIONS, sort_keys=True).encode()
        digest = hashlib.sha256(written).hexdigest()[:8]
        version = metadata.version("resvg_py")
        self.id = f"resvg-py {version} / resvg {resvg_py.__resvg_version__} options {digest}"

    def draw(self, svg: str, size: int, background: str) -> Drawn:
        png = self.png(svg, size, background)
        return Drawn(decoded(png), png)

    def png(self, svg: str, size: int, background: str) -> bytes:
        """The bare call."""
        drawn = resvg_py.svg_to_bytes(
            svg_string=svg,
            width=size,
            height=size,
            background=background,
            font_files=self._fonts,
            **_OPTIONS,
        )
        return bytes(drawn)
