"""Looks at an SVG before anything renders it: refuses what is known to harm, mends what is safe.

Pure: text in, verdict out; never raises. Bounded by the limit on size; declarations of entities
are refused before a parser sees them. What passes may still hang or crash the engine (styles can
hide what attributes show): the child's own limits are for that. The limits let about 1,500 honest
files through.
"""

import re
from dataclasses import dataclass, field
from xml.parsers import expat

from mmzero_async.rendering.mending import (
    XLINK,
    XMLNS,
    declares,
    unwrapped,
    with_name_spaces,
    without_ampersands,
    without_entities,
)
from mmzero_async.rendering.outcomes import RenderFailure
from mmzero_async.rendering.references import too_entangled

RULES = 3  # part of the renderer's id: to be raised with any change of verdicts, mends or fitting

MAX_ELEMENTS = 3000
MAX_DEPTH = 64
MAX_ATTRIBUTES = 256  # of one element
MAX_ATTRIBUTE = 16_384  # characters
MAX_TEXT = 8_192  # characters in one <text> or <style>; layout is quadratic in them
MAX_NUMBER = 1e5  # larger numbers cause most of the engine's panics
MAX_PRIMITIVES = 8  # a filter
MAX_FILTERED = 20  # elements that use a filter
MAX_TILE = 4.0  # sides of a pattern's tile, in canvases
MAX_BOX_TILE = 20.0  # the same in boxes of what is filled: models often forget patternUnits
MAX_LAYERS = 200  # translucent, masked, clipped, blended or filtered elements: 7-9 ms each
# Of one primitive: the work grows with the square of the first two.
HEAVY = {"radius": 20.0, "order": 7.0, "numOctaves": 8.0}

_SHAPES = """svg g defs symbol use a switch view path rect circle ellipse line polyline polygon
text tspan textPath tref title desc metadata style linearGradient radialGradient stop pattern
clipPath mask marker filter"""
# The engine draws the first frame and ignores these.
_ANIMATION = "animate animateTransform animateMotion animateColor set mpath discard"
_PRIMITIVES = """feBlend feColorMatrix feComponentTransfer feComposite feConvolveMatrix
feDiffuseLighting feDisplacementMap feDropShadow feFlood feGaussianBlur feMerge feMorphology
feOffset feSpecularLighting feTile feTurbulence"""
_PARTS = "feFuncA feFuncR feFuncG feFuncB feMergeNode feDistantLight fePointLight feSpotLight"
PRIMITIVES = frozenset(_PRIMITIVES.split())
ALLOWED = frozenset(_SHAPES.split() + _ANIMATION.split() + _PARTS.split()) | PRIMITIVES

_READ = frozenset({"", XMLNS, XLINK, "http://www.w3.org/XML/1998/namespace"})
_WORDS = frozenset({"id", "class", "href", "font-family", "lang", "role", "space"})
_URL = re.compile(r"url\(\s*['\"]?\s*([^)'\"]*)", re.IGNORECASE)
_IMPORT = re.compile(r"@import", re.IGNORECASE)
_COLOUR = re.compile(r"#[0-9a-fA-F]{3,8}\b|url\([^)]*\)")
_SUSPECT = re.compile(r"\d{6}|\d[eE][-+]?\d|nan|inf", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_NOT_A_NUMBER = re.compile(r"(?<![a-z])[-+]?(?:nan|inf(?:inity)?)(?![a-z])", re.IGNORECASE)
_VALUE = re.compile(r":([^;{}]*)")
_LAYER = re.compile(
    r"(?:^|[;\s])(?:opacity\s*:\s*0?\.|mix-blend-mode|isolation|(?:mask|filter|clip-path)\s*:)"
)
_FILTER = re.compile(r"(?:^|[;\s])filter\s*:")
_CANVASES = frozenset({"mask", "filter", "clip-path", "mix-blend-mode"})


@dataclass(frozen=True, slots=True)
class Checked:
    """What the engine may see, and the lossless mends that it took."""

    svg: str
    mended: tuple[str, ...] = ()


class _Refusal(Exception):
    """Carries the verdict out of expat's handlers."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind)
        self.verdict = RenderFailure(kind, detail)


def preflight(text: str, max_bytes: int) -> Checked | RenderFailure:
    """The SVG as it may be rendered, or why not."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        return RenderFailure("invalid", f"no valid text: {error.reason}")
    if size > max_bytes:
        return RenderFailure("too_large", f"{size} bytes, at most {max_bytes}")
    if declares(text):
        return RenderFailure("limit:entities", "a DOCTYPE with declarations")
    found = unwrapped(text)
    if found is None:
        return RenderFailure("invalid", "no <svg> element")
    svg, mended = found
    svg, added = with_name_spaces(svg)
    verdict = inspect(svg)
    if verdict is None:
        return Checked(svg, mended + added)
    for mend in (without_entities, without_ampersands):
        if verdict is None or verdict.kind != "invalid":
            break
        svg, marks = mend(svg)
        if marks:
            added += marks
            verdict = inspect(svg)
    return Checked(svg, mended + added) if verdict is None else verdict


def inspect(svg: str) -> RenderFailure | None:
    """None for an SVG within all limits."""
    inspector = _Inspector()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = inspector.start
    parser.EndElementHandler = inspector.end
    parser.CharacterDataHandler = inspector.text
    parser.StartDoctypeDeclHandler = inspector.doctype
    parser.ProcessingInstructionHandler = inspector.instruction
    try:
        parser.Parse(svg.encode(), True)
        inspector.finish()
    except _Refusal as refusal:
        return refusal.verdict
    except expat.ExpatError as error:
        return RenderFailure("invalid", f"not well-formed: {error}")
    return None


@dataclass(slots=True)
class _Inspector:
    """Expat's handlers; each raises _Refusal at the first thing that is out of bounds."""

    open: list[tuple[str, str | None]] = field(default_factory=list)  # (element, id)
    elements: int = 0
    layers: int = 0
    filtered: int = 0
    primitives: int = 0  # in the filter that is open
    characters: int = 0  # in the text or style that is open
    style: str = ""  # of the <style> that is open
    canvas: tuple[float, float] = (0.0, 0.0)
    # Which ids each id's subtree refers to; "" stands for the whole drawing.
    references: dict[str, list[str]] = field(default_factory=dict)

    def start(self, name: str, attributes: dict[str, str]) -> None:
        space, _, local = name.rpartition(" ")
        self.elements += 1
        if self.elements > MAX_ELEMENTS:
            raise _Refusal("limit:elements", f"more than {MAX_ELEMENTS} elements")
        if len(self.open) >= MAX_DEPTH:
            raise _Refusal("limit:depth", f"nested deeper than {MAX_DEPTH}")
        if len(attributes) > MAX_ATTRIBUTES:
            raise _Refusal("limit:attribute", f"more than {MAX_ATTRIBUTES} on <{local[:40]}>")
        if not self.open:
            self._root(space, local, attributes)
        elif space in ("", XMLNS) and local not in ALLOWED:  # foreign ones are never drawn
            raise _Refusal("forbidden", f"element <{local[:40]}>")
        self.open.append((local, attributes.get("id")))
        if local in ("text", "style"):
            self.characters = 0
        for key, value in attributes.items():
            owner, _, plain = key.rpartition(" ")
            if owner in _READ:
                self._attribute(plain, value)
        self._layer(attributes)
        if local in PRIMITIVES:
            self._primitive(local, attributes)
        elif local == "filter":
            self.primitives = 0
        elif local == "pattern":
            self._pattern(attributes)

    def end(self, name: str) -> None:
        self.open.pop()
        if name.rpartition(" ")[2] == "style":
            self._style(self.style)
            self.style = ""

    def text(self, data: str) -> None:
        self.characters += len(data)
        if self.open[-1][0] == "style":
            self.style += data
        if self.characters > MAX_TEXT and any(name in ("text", "style") for name, _ in self.open):
            raise _Refusal("limit:text", f"more than {MAX_TEXT} characters in one text or style")

    def doctype(self, *_: object) -> None:
        raise _Refusal("forbidden", "a DOCTYPE inside the drawing")

    def instruction(self, target: str, _: str) -> None:
        raise _Refusal("forbidden", f"processing instruction {target[:40]}")

    def finish(self) -> None:
        """The verdict on the references as a whole."""
        if (problem := too_entangled(self.references)) is not None:
            raise _Refusal("limit:references", problem)

    def _root(self, space: str, local: str, attributes: dict[str, str]) -> None:
        if local != "svg" or space != XMLNS:
            raise _Refusal("invalid", f"the root is <{local[:40]}> of {space[:80] or 'no'} xmlns")
        box = [abs(number) for number in _numbers(attributes.get("viewBox", ""))]
        if len(box) != 4:
            sides = (_numbers(attributes.get(side, "")) for side in ("width", "height"))
            box = [0.0, 0.0, *(abs(side[0]) if side else 0.0 for side in sides)]
        self.canvas = (box[2], box[3])

    def _attribute(self, key: str, value: str) -> None:
        if len(value) > MAX_ATTRIBUTE:
            raise _Refusal("limit:attribute", f"{key[:40]} has {len(value)} characters")
        if key[:2].lower() == "on":
            raise _Refusal("forbidden", f"attribute {key[:40]}")
        if key == "base":
            raise _Refusal("forbidden", "attribute xml:base")
        if key == "href":
            target = value.strip()
            if target and not target.startswith("#"):
                raise _Refusal("forbidden", f"a reference to the outside: {target[:60]}")
            self._refer(target[1:])
        if "(" in value:
            self._urls(value)
        if key not in _WORDS and not key.startswith(("data-", "aria-")):
            _check_numbers(key, value)

    def _urls(self, value: str) -> None:
        for target in _URL.findall(value):
            if not target.strip().startswith("#"):
                raise _Refusal("forbidden", f"a reference to the outside: url({target[:60]})")
            self._refer(target.strip()[1:])

    def _refer(self, target: str) -> None:
        owners = {name for _, name in self.open if name}
        for owner in ("", *owners):
            self.references.setdefault(owner, []).append(target)

    def _style(self, sheet: str) -> None:
        if _IMPORT.search(sheet):
            raise _Refusal("forbidden", "@import in a style")
        self._urls(sheet)
        # Only what stands after a colon is a value; class names may hold any digits.
        for value in _VALUE.findall(sheet):
            _check_numbers("style", value)

    def _layer(self, attributes: dict[str, str]) -> None:
        """Counts an element that needs a canvas of its own."""
        style = attributes.get("style", "")
        if attributes.get("filter", "none") != "none" or _FILTER.search(style):
            self.filtered += 1
            if self.filtered > MAX_FILTERED:
                raise _Refusal("limit:filter", f"more than {MAX_FILTERED} filtered elements")
        apart = any(attributes.get(key, "none") != "none" for key in _CANVASES)
        opaque = attributes.get("opacity", "1").strip() in ("1", "1.0", "100%")
        if apart or not opaque or _LAYER.search(style):
            self.layers += 1
            if self.layers > MAX_LAYERS:
                raise _Refusal("limit:layers", f"more than {MAX_LAYERS} translucent or masked")

    def _primitive(self, local: str, attributes: dict[str, str]) -> None:
        self.primitives += 1
        if self.primitives > MAX_PRIMITIVES:
            raise _Refusal("limit:filter", f"a filter of more than {MAX_PRIMITIVES} primitives")
        for key, limit in HEAVY.items():
            if any(abs(number) > limit for number in _numbers(attributes.get(key, ""))):
                raise _Refusal("limit:filter", f"<{local}> {key} over {limit:g}")

    def _pattern(self, attributes: dict[str, str]) -> None:
        absolute = attributes.get("patternUnits") == "userSpaceOnUse"
        for key, side in zip(("width", "height"), self.canvas, strict=True):
            for number in _numbers(attributes.get(key, ""))[:1]:
                if "%" in attributes[key]:
                    tile = number / 100
                else:
                    tile = number / (side or 1000.0) if absolute else number
                if tile > (MAX_TILE if absolute else MAX_BOX_TILE):
                    what = "canvases" if absolute else "times what it fills"
                    raise _Refusal("limit:pattern", f"a tile of {tile:.3g} {what}")


def _numbers(value: str) -> list[float]:
    return [float(number) for number in _NUMBER.findall(value)]


def _check_numbers(key: str, value: str) -> None:
    if not _SUSPECT.search(value):  # nearly always: no number of six digits, no exponent
        return
    if _NOT_A_NUMBER.search(value):
        raise _Refusal("limit:number", f"{key[:40]} holds {value[:40]!r}")
    for number in _NUMBER.findall(_COLOUR.sub(" ", value)):
        if abs(float(number)) > MAX_NUMBER:
            raise _Refusal("limit:number", f"{key[:40]} holds {number[:30]}")
