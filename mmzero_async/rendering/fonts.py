"""The fonts that every picture is drawn with: shipped, so that machines agree on the glyphs."""

import hashlib
from functools import cache
from importlib import resources, util
from pathlib import Path

from mmzero_async.rendering.errors import RenderingError


@cache
def font_folder() -> Path:
    return Path(str(resources.files("mmzero_async.rendering").joinpath("fonts")))


@cache
def matplotlib_font_folder() -> Path:
    """Of matplotlib's own fonts (DejaVu, and STIX and Computer Modern for formulas); does not
    import it. RenderingError where it is not installed."""
    found = util.find_spec("matplotlib")
    if found is None or found.origin is None:
        raise RenderingError(
            'coder.drawing = "matplotlib" needs matplotlib, which is not installed here: '
            "pip install 'mmzero-async[programs]'"
        )
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"


@cache
def font_files(folder: Path | None = None) -> tuple[Path, ...]:
    return tuple(sorted((folder or font_folder()).glob("*.ttf")))


@cache
def fonts_digest(folder: Path | None = None) -> str:
    """Sha-256 over names and contents, 12 hex digits."""
    digest = hashlib.sha256()
    for path in font_files(folder):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]
