"""What became of one drawing: a picture, or why there is none. The vocabulary of this room.

Every kind of failure stands in `KINDS`; no other leaves the pool.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

KINDS: Mapping[str, str] = MappingProxyType(
    {
        # found by the pre-flight, before anything is drawn
        "too_large": "more bytes than renderer.max_svg_kib, a program too",
        "invalid": "no <svg>, not well-formed, no valid text, or refused by the engine",
        "forbidden": "scripts, outside references, elements nothing honest needs",
        "limit:entities": "a DOCTYPE that declares anything: entities are how XML bombs work",
        "limit:elements": "too many elements",
        "limit:depth": "nested too deeply",
        "limit:attribute": "an attribute too long, or too many on one element",
        "limit:text": "a text or style sheet too long: layout is quadratic in it",
        "limit:number": "a number too large, or none at all (NaN, infinity)",
        "limit:references": "references in a circle, or multiplying the drawing",
        "limit:filter": "filters too long, too heavy or too many",
        "limit:pattern": "a pattern's tile many canvases large",
        "limit:layers": "too many translucent, masked, clipped or filtered elements",
        # found in a plotting program before it is run
        "program:syntax": "no Python",
        "program:statement": "a statement that no drawing needs: class, try, with, del, global",
        "program:import": "imports something else than matplotlib.pyplot, numpy and math",
        "program:name": "a name that is neither the program's own nor a builtin that it may use",
        "program:underscore": "names, attributes or texts with Python's double underscores",
        "program:attribute": "an attribute that is not on the list: files, windows, internals",
        "program:assign": "sets an attribute, of which settings and functions are made",
        "program:format": "str.format that reaches into values, or whose text is not written out",
        "program:setting": "usetex, files of fonts or styles, rcParams that do more than look",
        "limit:nodes": "a program of too many parts",
        "limit:literal": "a text or number too large",
        # found while a program runs, in a process of its own
        "program:error": "it raised an error",
        "program:empty": "it made no figure",
        "limit:figure": "a figure too small or too large",
        # found while drawing; the child that drew is replaced, or a program's process is gone
        "timeout": "more CPU time than the child may use, or no reply within renderer.wall_seconds",
        "memory": "more memory than renderer.memory_mib",
        "crashed": "the engine panicked, or its child was lost for another reason",
        # found in the picture
        "blank": "less than 0.2 % of the pixels differ from the commonest colour",
    }
)
# These end or suspect the child, and say as much about the machine as about the SVG.
FLEETING = frozenset({"timeout", "memory", "crashed"})


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG of exactly width x height pixels, without transparency."""

    png: bytes
    width: int
    height: int
    mended: tuple[str, ...]  # names of lossless mends, see mending.py
    ink: float  # share of pixels that differ from the commonest colour
    seconds: float
    fingerprint: bytes = b""  # see fingerprint.py
    structure: bytes = b""  # see structure.py; empty where it is not wanted


@dataclass(frozen=True, slots=True)
class RenderFailure:
    """Why there is no picture."""

    kind: str  # of KINDS
    detail: str
    seconds: float = 0.0
    ink: float = 0.0  # of a picture that is blank


Outcome = Picture | RenderFailure
