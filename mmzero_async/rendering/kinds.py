"""The kinds of drawing that a pool can draw: which child does it, and what pictures depend on."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from mmzero_async.config import DrawingKind
from mmzero_async.rendering import preflight
from mmzero_async.rendering.fonts import font_folder, matplotlib_font_folder
from mmzero_async.rendering.programs import vocabulary


@dataclass(frozen=True, slots=True)
class Kind:
    module: str  # that the child runs
    rules: int  # version of what is refused, mended and set
    fonts: Callable[[], Path]  # folder; all that a child can read
    tells_writing: bool  # whether what is written in a drawing can be found out

    @property
    def command(self) -> tuple[str, ...]:
        return (sys.executable, "-m", self.module)


KINDS: Mapping[DrawingKind, Kind] = MappingProxyType(
    {
        "svg": Kind("mmzero_async.rendering.child", preflight.RULES, font_folder, True),
        "matplotlib": Kind(
            "mmzero_async.rendering.programs.server",
            vocabulary.RULES,
            matplotlib_font_folder,
            False,
        ),
    }
)
