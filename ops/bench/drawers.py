"""Ways to draw an SVG that the renderer is measured beside. Each is a function of SVG and size."""

import asyncio
import io
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from typing import Any

from mmzero_async.rendering.child import squared
from mmzero_async.rendering.engines import opened
from mmzero_async.rendering.fingerprint import fingerprint
from mmzero_async.rendering.fonts import font_files
from mmzero_async.rendering.mending import fitted
from mmzero_async.rendering.png import encoded
from mmzero_async.rendering.resvg import Resvg
from mmzero_async.rendering.writing import ink

Draw = Callable[[str, int], bytes]


class NotHere(RuntimeError):
    """A rival that this machine lacks; says what to install."""


def call() -> Draw:
    """The default engine's one function and nothing else: neither square nor looked at."""
    engine = Resvg(_fonts())
    return lambda svg, size: engine.png(svg, size, "white")


def bare(engine: str) -> Draw:
    """The same picture as a child gives, square and looked at, drawn in this process: no limits,
    no pre-flight, no isolation, and it may take us with it."""
    drawing = opened(engine, _fonts())

    def draw(svg: str, size: int) -> bytes:
        drawn = squared(drawing.draw(fitted(svg, size), size, "white"), size)
        ink(drawn.picture), fingerprint(drawn.picture)
        return drawn.png or encoded(drawn.picture)

    return draw


class Unguarded:
    """Two processes that draw without guards: what twice a rate comes to on this machine."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(2, mp_context=get_context("spawn"))

    async def draw(self, name: str, svg: str, size: int) -> bytes:
        """By an engine, bare, or by a rival."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, _drawn_there, name, svg, size)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def _drawn_there(name: str, svg: str, size: int) -> bytes:
    return _kept(name)(svg, size)


@cache
def _kept(name: str) -> Draw:
    return RIVALS[name]() if name in RIVALS else bare(name)


def _fonts() -> list[str]:
    return [str(path) for path in font_files()]


def cairosvg() -> Draw:
    try:
        import cairosvg as library  # not where only the package is installed
    except (ImportError, OSError) as error:
        raise NotHere(f"no CairoSVG ({error}): `apt install libcairo2`") from error
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


RIVALS: dict[str, Callable[[], Draw]] = {"CairoSVG": cairosvg, "rsvg-convert": rsvg_convert}


def busy() -> str:
    """What else this machine does, for a figure's note."""
    return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
