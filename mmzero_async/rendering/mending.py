"""Lossless mends: what surrounds the drawing, missing namespaces, HTML's entities; each named.

Pure text to text, linear in its length. Whatever would need a guess at what was meant (a bare
less-than sign, an unclosed tag) is left alone and fails as not well-formed.

Names: "fence" (Markdown), "prose" (other words around), "doctype", "xmlns", "xlink", "entity",
"ampersand".
"""

import re
from html.entities import html5
from itertools import pairwise

XMLNS = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
_ROOT = re.compile(r"<(?:[\w-]+:)?svg(?=[\s/>])")
_CLOSED = re.compile(r"</(?:[\w-]+:)?svg\s*>")
_DOCTYPE = re.compile(r"<!DOCTYPE[^<>\[]*>", re.IGNORECASE)
_DECLARES = re.compile(r"<!DOCTYPE[^<>]*\[|<!(?:ENTITY|ELEMENT|ATTLIST|NOTATION)", re.IGNORECASE)
_PROLOG = re.compile(r"<\?[^<>]*\?>")
_FENCE = re.compile(r"```[ \t]*[\w+-]*|~~~[ \t]*[\w+-]*")
_ATTRIBUTES = r"""((?:\s+[^\s=<>"'/]+\s*=\s*(?:"[^"]*"|'[^']*'))*\s*)"""
_ROOT_TAG = re.compile(rf"<((?:[\w-]+:)?svg){_ATTRIBUTES}(/?)>")
_ATTRIBUTE = re.compile(r"""\s+([^\s=<>"'/]+)\s*=\s*("[^"]*"|'[^']*')""")
_XLINK_USED = re.compile(r"\sxlink:[a-z]+\s*=")
_XLINK_BOUND = re.compile(r"\sxmlns:xlink\s*=")
_ENTITY = re.compile(r"&([A-Za-z][A-Za-z0-9]{1,31});")
_XML_ENTITIES = frozenset({"amp", "lt", "gt", "quot", "apos"})
# Comments and CDATA sections come first, so that what stands in them is passed over.
_AMPERSAND = re.compile(
    r"(<!--.*?(?:-->|\Z)|<!\[CDATA\[.*?(?:\]\]>|\Z))"
    r"|&(?!#\d+;|#x[0-9a-fA-F]+;|[A-Za-z][\w.-]*;)",
    re.DOTALL,
)
_LENGTH = re.compile(r"\s*\+?(\d{1,7}(?:\.\d{0,9})?|\.\d{1,9})\s*(px|pt|pc|mm|cm|in)?\s*")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_PIXELS = {"px": 1.0, "pt": 96 / 72, "pc": 16.0, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96.0}


def unwrapped(text: str) -> tuple[str, tuple[str, ...]] | None:
    """From the root's `<svg` to the last `</svg>`, with the mends that took; None without one."""
    start = _root(text)
    if start is None:
        return None
    stop = max((tag.end() for tag in _CLOSED.finditer(text, start)), default=len(text))
    around = _without_comments(text[:start]) + "\n" + _without_comments(text[stop:])
    mended = []
    for name, pattern in (("doctype", _DOCTYPE), ("", _PROLOG), ("fence", _FENCE)):
        around, count = pattern.subn(" ", around)
        if name and count:
            mended.append(name)
    if around.strip("\ufeff \t\r\n"):
        mended.append("prose")
    return text[start:stop].rstrip(), tuple(mended)


def declares(text: str) -> bool:
    """Whether what stands before the root declares anything: entities are how XML bombs work."""
    return _DECLARES.search(text, 0, _root(text) or len(text)) is not None


def with_name_spaces(svg: str) -> tuple[str, tuple[str, ...]]:
    """Adds xmlns and xmlns:xlink to a root that lacks them; without, text vanishes silently."""
    tag = _ROOT_TAG.match(svg)
    if tag is None:
        return svg, ()
    bound = {name for name, _ in _ATTRIBUTE.findall(tag[2])}
    added = {}
    if tag[1] == "svg" and "xmlns" not in bound:
        added["xmlns"] = f' xmlns="{XMLNS}"'
    if _XLINK_USED.search(svg) and not _XLINK_BOUND.search(svg):
        added["xlink"] = f' xmlns:xlink="{XLINK}"'
    return svg[: tag.end(1)] + "".join(added.values()) + svg[tag.end(1) :], tuple(added)


def without_entities(svg: str) -> tuple[str, tuple[str, ...]]:
    """HTML's named entities as numbers; for what did not parse.

    Nothing is touched where a CDATA section makes them mere letters.
    """
    if "<![CDATA[" in svg:
        return svg, ()
    changed = _ENTITY.sub(_numeric, svg)
    return changed, ("entity",) if changed != svg else ()


def without_ampersands(svg: str) -> tuple[str, tuple[str, ...]]:
    """Ampersands that begin no reference as `&amp;`, as HTML reads them; for what did not parse."""
    changed = _AMPERSAND.sub(lambda found: found[1] or "&amp;", svg)
    return changed, ("ampersand",) if changed != svg else ()


def fitted(svg: str, size: int, extent: tuple[float, float] | None = None) -> str:
    """The same drawing with a root that fits into size x size pixels and touches two sides.

    Its aspect is that of its width and height, else of its viewBox, else of `extent`; a root that
    says neither is left as it is without that. The rest of the square is for the caller to pad: a
    square root would show there what the drawing's own edge cuts off.
    """
    tag = _ROOT_TAG.match(svg)
    if tag is None:
        return svg
    attributes = dict(_ATTRIBUTE.findall(tag[2]))  # with their quotes
    box = _view_box(attributes.get("viewBox", ""))
    width, height = (_pixels(attributes.get(side, "")[1:-1]) for side in ("width", "height"))
    if not width or not height:
        if box is None and extent is None:
            return svg
        width, height = box or extent or (0.0, 0.0)
    if box is None:
        attributes["viewBox"] = f'"0 0 {width:.9g} {height:.9g}"'
    scale = size / max(width, height)
    for side, length in (("width", width), ("height", height)):
        attributes[side] = f'"{max(1.0, length * scale):.9g}"'
    written = "".join(f" {name}={value}" for name, value in attributes.items())
    return f"<{tag[1]}{written}{tag[3]}>{svg[tag.end() :]}"


def sized(svg: str) -> bool:
    """Whether the root says how large it is in lengths; `fitted` makes it so where it can."""
    tag = _ROOT_TAG.match(svg)
    attributes = dict(_ATTRIBUTE.findall(tag[2])) if tag else {}
    return all(_pixels(attributes.get(side, "")[1:-1]) for side in ("width", "height"))


def _root(text: str) -> int | None:
    """Where the first `<svg` outside a comment stands."""
    at = 0
    root = _ROOT.search(text)
    while root is not None:
        comment = text.find("<!--", at, root.start())
        if comment < 0:
            return root.start()
        stop = text.find("-->", comment + 4)
        if stop < 0:
            return root.start()
        at = stop + 3
        if at > root.start():
            root = _ROOT.search(text, at)
    return None


def _without_comments(text: str) -> str:
    starts = [0]
    while (start := text.find("<!--", starts[-1])) >= 0 and (
        stop := text.find("-->", start + 4)
    ) >= 0:
        starts += [start, stop + 3]
    kept = [*starts, len(text)]
    return " ".join(text[a:b] for a, b in list(pairwise(kept))[::2])


def _numeric(entity: re.Match[str]) -> str:
    characters = "" if entity[1] in _XML_ENTITIES else html5.get(entity[1] + ";", "")
    return "".join(f"&#{ord(character)};" for character in characters) or entity[0]


def _view_box(value: str) -> tuple[float, float] | None:
    """Its width and height; None for one that the engine would ignore."""
    numbers = [float(number) for number in _NUMBER.findall(value)]
    return (numbers[2], numbers[3]) if len(numbers) == 4 and min(numbers[2:]) > 0 else None


def _pixels(length: str) -> float:
    """0 for a length that says nothing by itself (missing, a percentage, nonsense)."""
    match = _LENGTH.fullmatch(length)
    return float(match[1]) * _PIXELS[match[2] or "px"] if match else 0.0
