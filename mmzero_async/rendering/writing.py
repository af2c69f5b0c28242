"""What is written in a drawing and how much of it shows, found by drawing it again.

The picture against one without its text tells where text shows; the text alone, each piece in a
flat colour of its own, without anti-aliasing and with all that could hide it taken off, tells
which pixels it covers. So colours, style sheets, opacity and covers need no reading: the engine
says what they do. Runs in the guarded child, on what passed the pre-flight. A drawing without
text is drawn once, one with text three times, and again only for what seems hidden.
"""

from collections.abc import Callable, Container, Iterator
from functools import partial
from xml.etree import ElementTree

from PIL import Image, ImageChops

from mmzero_async.rendering.mending import XLINK, XMLNS
from mmzero_async.schemas.writing import (
    MAX_CHARACTERS,
    MAX_INSCRIPTIONS,
    Inscription,
    Writing,
)

Element = ElementTree.Element
Draw = Callable[[str, str], Image.Image]  # SVG and background to the picture's RGB pixels

VISIBLE_STEP = 24  # levels of 255 in any channel; a smaller difference is not to be seen
FEW_PIXELS = 3  # a character; a text of fewer is drawn by itself: others may lie upon it
MAX_APART = 8  # texts that are
SHOWN = 0.5  # a text of which less shows is looked at without all else
_SAMPLED = 32  # pixels a side that are looked at for the commonest colour
_GROUND = "#7f3fbf"  # under text without all else; hardly ever a text's own colour
_SHAPES = frozenset(["rect", "circle", "ellipse", "line", "polyline", "polygon", "path", "use"])
_GROUPS = frozenset(["svg", "g", "a", "switch", "use", "symbol"])
_UNDRAWN = frozenset(["defs", "symbol", "clipPath", "mask", "pattern", "marker"])
_BARE = "opacity:1;display:inline;visibility:visible;filter:none;mask:none;clip-path:none"
_FLAT = "fill-opacity:1;stroke:none;text-rendering:optimizeSpeed;fill:"
_LARGE = ";font-size:8px"
_UNPAINTED = "fill:none;stroke:none;marker:none;filter:none"

ElementTree.register_namespace("", XMLNS)
ElementTree.register_namespace("xlink", XLINK)


def writing(svg: str, draw: Draw) -> Writing:
    """Raises what `draw` raises, and ElementTree.ParseError for what is not well-formed."""
    root = ElementTree.fromstring(svg)
    hidden = {id(e) for outer in root.iter() if _name(outer) in _UNDRAWN for e in outer.iter()}
    shapes = sum(_name(e) in _SHAPES and id(e) not in hidden for e in root.iter())
    told, texts = list(_metadata(root)), _texts(root)
    picture = draw(svg, "white")
    if not texts:
        return _bounded(told, shapes, picture)
    without = draw(_changed(svg, _vanish), "white")
    flat = draw(_changed(svg, partial(_flatten, chosen=range(len(texts)))), "white")
    visible = _difference(picture, without)
    own, seen = _areas(flat), _areas(flat, visible)
    marks: dict[int, int] | None = None
    apart = 0
    for i, element in enumerate(texts):
        words = _words(element)
        pixels, shown, placed = own.get(i, 0), seen.get(i, 0), True
        if pixels < FEW_PIXELS * _characters(words) and apart < MAX_APART:
            apart += 1
            single = draw(_changed(svg, partial(_flatten, chosen=(i,))), "white")
            pixels, shown = _areas(single).get(i, 0), _areas(single, visible).get(i, 0)
            if not pixels:
                large = _changed(svg, partial(_flatten, chosen=(i,), size=_LARGE))
                placed = i in _areas(draw(large, "white"))
        painted = bool(pixels) or id(element) not in hidden
        if pixels and shown < SHOWN * pixels:
            if marks is None:
                alone = draw(_changed(svg, _text_alone), _GROUND)
                ground = Image.new("RGB", alone.size, _GROUND)
                marks = _areas(flat, _difference(alone, ground))
            painted = i in marks
        share = round(shown / pixels, 4) if pixels else 0.0
        told.append(
            Inscription(text=words, pixels=pixels, shown=share, painted=painted, placed=placed)
        )
    return _bounded(told, shapes, without)


def ink(picture: Image.Image) -> float:
    """Share of the pixels that are not of the commonest colour."""
    size = picture.width * picture.height
    sample = picture.resize((_SAMPLED, _SAMPLED), Image.Resampling.NEAREST)
    _, likely = max(sample.getcolors(_SAMPLED * _SAMPLED) or [(0, None)])
    if isinstance(likely, tuple) and 2 * (count := _of_colour(picture, likely)) > size:
        return 1.0 - count / size  # more than half: no other can be commoner
    colours = picture.getcolors(size) or []
    return 1.0 - max((int(count) for count, _ in colours), default=size) / size


def _of_colour(picture: Image.Image, colour: tuple[int, ...]) -> int:
    """How many pixels have exactly this colour; sooner told than the counts of all colours."""
    # One channel at 255 is enough for a level above 0.
    other = [0 if level == wanted else 255 for wanted in colour for level in range(256)]
    return picture.point(other).convert("L").tobytes().count(0)


def _bounded(told: list[Inscription], shapes: int, without: Image.Image) -> Writing:
    kept = [
        Inscription(
            text=it.text[:MAX_CHARACTERS],
            metadata=it.metadata,
            pixels=it.pixels,
            shown=it.shown,
            painted=it.painted,
            placed=it.placed,
        )
        for it in told[:MAX_INSCRIPTIONS]
    ]
    cut = len(told) > len(kept) or any(len(it.text) > MAX_CHARACTERS for it in told)
    return Writing(kept, shapes, ink(without), cut)


# --- reading the drawing ------------------------------------------------------------------------


def _name(element: Element) -> str:
    """Its local name; "" for a comment or what is of another vocabulary."""
    tag = element.tag
    return tag.removeprefix(f"{{{XMLNS}}}") if isinstance(tag, str) else ""


def _texts(root: Element) -> list[Element]:
    """The <text> elements that say something, in the order of the document."""
    return [e for e in root.iter() if _name(e) == "text" and _words(e)]


def _words(element: Element) -> str:
    """All its letters; parts that are placed apart are set apart."""
    return " ".join(_letters(element).split())


def _letters(element: Element) -> str:
    found = element.text or ""
    for part in element:
        if isinstance(part.tag, str):
            apart = " " if {"x", "y", "dy"} & part.attrib.keys() else ""
            found += apart + _letters(part)
        found += part.tail or ""
    return found


def _characters(words: str) -> int:
    return len(words.replace(" ", ""))


def _metadata(root: Element) -> Iterator[Inscription]:
    for element in root.iter():
        if (name := _name(element)) in ("title", "desc") and (words := _words(element)):
            yield Inscription(text=words, metadata=name)
        if words := " ".join(element.get("aria-label", "").split()):
            yield Inscription(text=words, metadata="aria-label")


# --- drawing it again ---------------------------------------------------------------------------


def _changed(svg: str, change: Callable[[Element], None]) -> str:
    """The drawing with another style; nothing is more important than what `change` adds."""
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        if _name(element) == "style" and element.text:
            element.text = element.text.replace("!important", "")
        if style := element.get("style"):
            element.set("style", style.replace("!important", ""))
    change(root)
    return ElementTree.tostring(root, encoding="unicode")


def _add(element: Element, style: str) -> None:
    before = element.get("style", "").strip().rstrip(";")
    element.set("style", f"{before};{style}" if before else style)  # ";x" is no style to resvg


def _vanish(root: Element) -> None:
    for element in root.iter():
        if _name(element) == "text":
            _add(element, "display:none")


def _text_alone(root: Element) -> None:
    for element in root.iter():
        if _name(element) in _SHAPES - {"use"}:
            _add(element, _UNPAINTED)


def _flatten(root: Element, chosen: Container[int], size: str = "") -> None:
    """Only the chosen texts, each in the colour of its number, whatever hid them."""
    _text_alone(root)
    texts = {id(element): i for i, element in enumerate(_texts(root))}
    for element in root.iter():
        name = _name(element)
        if name in _GROUPS:
            _add(element, _BARE)
        elif name == "text" and texts.get(id(element), -1) in chosen:
            for part in element.iter():
                _add(part, f"{_BARE};{_FLAT}#{texts[id(element)]:06x}{size}")
        elif name == "text":
            _add(element, "display:none")


def _difference(one: Image.Image, two: Image.Image) -> Image.Image:
    """A mask: 255 where the pictures visibly differ."""
    red, green, blue = ImageChops.difference(one, two).split()
    largest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    return largest.point([255 if level > VISIBLE_STEP else 0 for level in range(256)])


def _areas(flat: Image.Image, mask: Image.Image | None = None) -> dict[int, int]:
    """Pixels of each flattened text, by number; those under the mask alone, if one is given."""
    if mask is not None:
        flat = Image.composite(flat, Image.new("RGB", flat.size, "white"), mask)
    counts = {}
    for count, colour in flat.getcolors(flat.width * flat.height) or []:
        assert isinstance(colour, tuple)
        counts[colour[0] << 16 | colour[1] << 8 | colour[2]] = int(count)
    return counts
