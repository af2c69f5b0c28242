"""The engine that is configured. For the child alone."""

from collections.abc import Sequence

from mmzero_async.rendering.engine import Engine
from mmzero_async.rendering.resvg import Resvg


def opened(name: str, fonts: Sequence[str]) -> Engine:
    """The engine of that name (`renderer.engine`), with these font files and no others."""
    if name == "svg2png-py":
        from mmzero_async.rendering.svg2png import Svg2Png  # not loaded where it does not draw

        return Svg2Png(fonts)
    return Resvg(fonts)
