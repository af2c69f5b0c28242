"""matplotlib as every program finds it: fixed settings, shipped fonts, one seed for chance.

For the child alone. Everything that drawing may need is imported here: once the child is confined
no module can be read any more.
"""

import ast
import builtins
import gc
import hashlib
import importlib
import json
import logging
import os
import random
import tempfile
import types
import warnings
from pathlib import Path
from typing import Any

from PIL import Image

from mmzero_async.rendering.programs.vocabulary import BUILTINS, IMPORTABLE

FIGURE_INCHES = (0.5, 100.0)  # a side; a smaller figure would need letters larger than the picture
SEED = 0
SOURCE = "<program>"
_SETTINGS: dict[str, Any] = {
    "backend": "agg",
    "font.family": ["DejaVu Sans"],
    "font.enable_last_resort": False,  # halves the files that a picture opens
    "mathtext.fontset": "dejavusans",
    "text.usetex": False,
    "timezone": "UTC",
    "figure.max_open_warning": 0,
}
# Imported by matplotlib and numpy when first needed; afterwards it could not be.
_NEEDED_LATER = """matplotlib.backends.backend_agg matplotlib.mathtext matplotlib.tri
matplotlib.quiver matplotlib.sankey matplotlib.table matplotlib.colorbar matplotlib.dates
matplotlib.category matplotlib.layout_engine matplotlib._constrained_layout
matplotlib._tight_layout matplotlib.projections.polar matplotlib.projections.geo
matplotlib.streamplot matplotlib.style mpl_toolkits.mplot3d contourpy numpy.random numpy.linalg
numpy.fft numpy.ma numpy.polynomial numpy.lib.recfunctions unicodedata fractions decimal
encodings.idna zoneinfo colorsys textwrap"""


class NoFigure(Exception):
    """What the program left cannot be a picture: kind and detail of its failure."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class Studio:
    """Opened once a child, before it is confined; each program has it as it is then."""

    def __init__(self, fonts: list[str]) -> None:
        self._matplotlib = _imported(fonts)
        import matplotlib.pyplot as plt
        import numpy as np

        self._plt, self._np = plt, np
        written = json.dumps(_SETTINGS, sort_keys=True).encode()
        digest = hashlib.sha256(written).hexdigest()[:8]
        self.id = f"matplotlib {self._matplotlib.__version__} / numpy {np.__version__} / freetype "
        self.id += f"{self._matplotlib.ft2font.__freetype_version__} options {digest}"
        self._warm()

    def picture(self, tree: ast.Module, size: int) -> Image.Image:
        """Runs a program and draws the figure that is current at its end, into size x size pixels.

        Raises whatever the program raises, and NoFigure.
        """
        self._np.random.seed(SEED)
        random.seed(SEED)
        given = {name: getattr(builtins, name) for name in BUILTINS}
        given |= {"print": _silent, "__import__": _import}
        exec(compile(tree, SOURCE, "exec"), {"__builtins__": given, "__name__": "__main__"})
        if not self._plt.get_fignums():
            raise NoFigure("program:empty", "no figure was made")
        return self._drawn(self._plt.gcf(), size)

    def _drawn(self, figure: Any, size: int) -> Image.Image:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        width, height = (float(side) for side in figure.get_size_inches())
        least, most = FIGURE_INCHES
        if not (least <= width <= most and least <= height <= most):
            detail = f"a figure of {width:g} x {height:g} inches; {least:g} to {most:g} a side"
            raise NoFigure("limit:figure", detail)
        figure.set_dpi(size / max(width, height))
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
        columns, rows = canvas.get_width_height()
        picture = Image.frombuffer(
            "RGBA", (columns, rows), canvas.buffer_rgba(), "raw", "RGBA", 0, 1
        )
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")

    def _warm(self) -> None:
        """Draws once what calls for most, so that programs find it done, and tidies up."""
        figure = self._plt.figure()
        axes = figure.add_subplot(1, 2, 1)
        axes.bar(["a", "b"], [1, 2], label="$x$")
        axes.legend()
        axes.set_title(r"$\frac{\alpha}{2}\sum x_i$")
        figure.add_subplot(1, 2, 2, projection="3d")
        figure.tight_layout()
        self._drawn(figure, 64)
        self._plt.close("all")
        gc.collect()
        gc.freeze()  # what is shared with the processes to come is not written to by a collection


def _imported(fonts: list[str]) -> Any:
    """matplotlib, imported where neither the user's settings nor the machine's fonts reach it."""
    kept = {name: os.environ.get(name) for name in ("HOME", "PATH", "MPLCONFIGDIR")}
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"HOME": folder, "PATH": "", "MPLCONFIGDIR": folder}
        warnings.simplefilter("ignore")
        logging.disable()
        matplotlib = importlib.import_module("matplotlib")
        matplotlib.rcdefaults()  # a matplotlibrc in the current folder has been read by now
        matplotlib.rcParams.update(_SETTINGS)
        for name in _NEEDED_LATER.split():
            importlib.import_module(name)
        manager = importlib.import_module("matplotlib.font_manager").fontManager
        wanted = {Path(font).resolve() for font in fonts}
        manager.ttflist = [it for it in manager.ttflist if Path(it.fname).resolve() in wanted]
        manager.afmlist = []
        _seed(importlib.import_module("numpy.random"))
    for name, value in kept.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    return matplotlib


def _seed(lots: Any) -> None:
    """A generator that is asked for without a seed gets the same one everywhere."""
    fresh = lots.default_rng
    lots.default_rng = lambda seed=None: fresh(SEED if seed is None else seed)


def _silent(*values: object, **options: object) -> None:
    """A program's print says nothing to nobody."""


def _import(
    name: str,
    space: object = None,
    local: object = None,
    wanted: tuple[str, ...] = (),
    level: int = 0,
) -> types.ModuleType:
    if name not in (*IMPORTABLE, "matplotlib") or level:
        raise ImportError(f"no {name} here")
    return __import__(name, None, None, wanted, level)


def line_of(error: BaseException) -> int:
    """The line of the program that an error came from; 0 where it is none of its own."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == SOURCE:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
