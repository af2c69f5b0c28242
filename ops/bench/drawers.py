"""Ways to draw an SVG that the renderer is measured beside. Each is a function of SVG and size."""

import io
import os
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

from mmzero_async.rendering.engine import Resvg
from mmzero_async.rendering.fonts import font_files

Draw = Callable[[str, int], bytes]


class NotHere(RuntimeError):
    """A rival that this machine lacks; says what to install."""


def bare() -> Draw:
    """The same engine called in this process: no limits, no checks, and it may take us with it."""
    engine = Resvg([str(path) for path in font_files()])
    return lambda svg, size: engine.png(svg, size, "white")


def cairosvg() -> Draw:
    try:
        import cairosvg as library  # a rival is no dependency of whoever installs the package
    except (ImportError, OSError) as error:
        raise NotHere(f"no CairoSVG ({error}): `pip install cairosvg`, libcairo2") from error
    convert: Any = library.svg2png

    def draw(svg: str, size: int) -> bytes:
        out = io.BytesIO()
        convert(bytestring=svg.encode(), write_to=out, output_width=size, background_color="white")
        return out.getvalue()

    return draw


def rsvg_convert() -> Draw:
    binary = shutil.which("rsvg-convert")
    if binary is None:
        raise NotHere("no rsvg-convert: `apt install librsvg2-bin`")
    command = [binary, "--keep-aspect-ratio", "--background-color", "white", "--width"]

    def draw(svg: str, size: int) -> bytes:
        done = subprocess.run(
            [*command, str(size)], input=svg.encode(), stdout=subprocess.PIPE, check=True
        )
        return done.stdout

    return draw


def busy() -> str:
    """What else this machine does, for a figure's note."""
    return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
