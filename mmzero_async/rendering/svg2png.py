"""The faster build of the same engine: svg2png-py, whose resvg is one minor version older.

Pixels come raw, not through a PNG. Same fonts, families and options as resvg-py; what differs, and
why, is listed in docs/RENDERING.md and in tests/test_rendering_engines.py.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import svg2png_py
from PIL import Image, ImageColor

from mmzero_async.rendering.engine import Drawn
from mmzero_async.rendering.family_names import GENERIC, SANS, in_memory, without_generic_names
from mmzero_async.rendering.mending import fitted, sized

RESVG = "0.47"  # inside svg2png-py 1.1.0, which does not say so itself
_OPTIONS = {"dpi": 96.0, "font_family": SANS, "font_size": 16.0}


class Svg2Png:
    """resvg through svg2png-py, with the given font files and no others.

    Files named in a drawing are read as by resvg-py: the pre-flight and the child's limits are
    against that.
    """

    def __init__(self, fonts: Sequence[str]) -> None:
        self._fonts = svg2png_py.FontDatabase()
        self._descriptors = [in_memory(Path(path)) for path in fonts]
        for descriptor in self._descriptors:
            self._fonts.load_font_file(f"/proc/self/fd/{descriptor}")
        self._options = svg2png_py.RenderOptions(**_OPTIONS)
        written = json.dumps([_OPTIONS, GENERIC], sort_keys=True).encode()
        digest = hashlib.sha256(written).hexdigest()[:8]
        version = metadata.version("svg2png-py")
        self.id = f"svg2png-py {version} / resvg {RESVG} options {digest}"

    def __del__(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)

    def draw(self, svg: str, size: int, background: str) -> Drawn:
        svg = without_generic_names(svg)
        colour = (*ImageColor.getrgb(background)[:3], 255)
        try:
            if not sized(svg):
                extent = svg2png_py.svg_intrinsic_size(svg, self._fonts, self._options)
                svg = fitted(svg, size, extent)
            pixels, width, height = svg2png_py.svg_to_rgba(
                svg, self._fonts, bg_color=colour, options=self._options
            )
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        # On an opaque ground every pixel is opaque: premultiplied or not is the same.
        opaque = Image.frombuffer("RGBA", (width, height), pixels, "raw", "RGBA", 0, 1)
        return Drawn(opaque.convert("RGB"))
