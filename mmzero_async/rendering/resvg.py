"""The default engine: resvg through resvg-py. For the child alone."""

import hashlib
import json
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import resvg_py

from mmzero_async.rendering.engine import Drawn
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
