"""The fonts that every picture is drawn with: shipped, so that machines agree on the glyphs."""

import hashlib
from functools import cache
from importlib import resources
from pathlib import Path


@cache
def font_folder() -> Path:
    return Path(str(resources.files("mmzero_async.rendering").joinpath("fonts")))


@cache
def font_files() -> tuple[Path, ...]:
    return tuple(sorted(font_folder().glob("*.ttf")))


@cache
def fonts_digest() -> str:
    """Sha-256 over names and contents, 12 hex digits."""
    digest = hashlib.sha256()
    for path in font_files():
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]
