"""The engine that draws, behind two members: what it is, and SVG to PNG. For the child alone.

Another engine, or another build of this one, is another class here; its id stands in every event.
"""

import hashlib
import json
from collections.abc import Sequence
from importlib import metadata
from typing import Any, Protocol

import resvg_py

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


class Engine(Protocol):
    @property
    def id(self) -> str:
        """Name, versions and a digest of the options: what a picture depends on but its fonts."""

    def png(self, svg: str, size: int, background: str) -> bytes:
        """A PNG that fits into size x size pixels. ValueError for a bad SVG; may also panic,
        abort, hang or take all memory: the child's limits are for that."""


class Resvg:
    """resvg through resvg-py, with the given font files and no others."""

    def __init__(self, fonts: Sequence[str]) -> None:
        self._fonts = list(fonts)
        written = json.dumps(_OPTIONS, sort_keys=True).encode()
        digest = hashlib.sha256(written).hexdigest()[:8]
        version = metadata.version("resvg_py")
        self.id = f"resvg-py {version} / resvg {resvg_py.__resvg_version__} options {digest}"

    def png(self, svg: str, size: int, background: str) -> bytes:
        drawn = resvg_py.svg_to_bytes(
            svg_string=svg,
            width=size,
            height=size,
            background=background,
            font_files=self._fonts,
            **_OPTIONS,
        )
        return bytes(drawn)
