"""Lossless mends: slips of the pen that change nothing of what was meant, each with its name.

Pure text to text. Whatever would need a guess is left alone and fails as not well-formed.
"""

import re
from collections.abc import Callable
from html.entities import name2codepoint

XMLNS = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
ROOT = re.compile(r"<(?:[\w-]+:)?svg(?=[\s/>])")
_DOCTYPE = re.compile(r"<!DOCTYPE", re.IGNORECASE)
_ATTRIBUTES = r"""(?:\s+[^\s=<>"'/]+\s*=\s*(?:"[^"]*"|'[^']*'))*\s*"""
_ROOT_TAG = re.compile(rf"<(?:[\w-]+:)?svg({_ATTRIBUTES})(/?)>")
_ATTRIBUTE = re.compile(r"""\s+([^\s=<>"'/]+)\s*=\s*("[^"]*"|'[^']*')""")
_ENTITY = re.compile(r"&([A-Za-z][A-Za-z0-9]{1,31});")
_AMPERSAND = re.compile(r"&(?!(?:amp|lt|gt|quot|apos|#\d{1,7}|#x[0-9a-fA-F]{1,6});)")
_LESS_THAN = re.compile(r"<(?=[\s\d=<])")
_COMMENT = re.compile(r"<!--(.*?)-->", re.DOTALL)
_LENGTH = re.compile(r"\s*(\d{1,7}(?:\.\d{1,9})?)\s*(px|pt|pc|mm|cm|in)?\s*")
_PIXELS = {"px": 1.0, "pt": 96 / 72, "pc": 16.0, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96.0}


def extract(text: str) -> tuple[str, list[str]] | None:
    """From `<svg` to the last `</svg>`, with the mends that this took; None if there is none.

    An internal DTD subset is not dropped here: preflight looks for it in the text before.
    """
    root = ROOT.search(text)
    if root is None:
        return None
    before = text[: root.start()]
    tail = max(text.rfind("</svg>"), text.rfind(":svg>"))
    closed = text.find(">", tail) + 1 if tail > root.start() else len(text)
    mended = []
    if _DOCTYPE.search(before):
        mended.append("doctype")
    if "```" in before or "```" in text[closed:]:
        mended.append("fence")
    return text[root.start() : closed].rstrip(), mended


def has_internal_subset(text: str) -> bool:
    """Whether what stands before the root declares anything: entities are how XML bombs work."""
    root = ROOT.search(text)
    before = text[: root.start()] if root else text
    doctype = _DOCTYPE.search(before)
    return (doctype is not None and "[" in before[doctype.end() :]) or "<!ENTITY" in before


def name_spaces(svg: str) -> tuple[str, list[str]]:
    """Adds xmlns and xmlns:xlink to a root that lacks them; without, text vanishes silently."""
    head = svg.partition(">")[0]
    mended, added = [], ""
    if svg.startswith("<svg") and not re.search(r"\sxmlns\s*=", head):
        mended.append("xmlns")
        added += f' xmlns="{XMLNS}"'
    if "xlink:" in svg and not re.search(r"\sxmlns:xlink\s*=", svg):
        mended.append("xlink")
        added += f' xmlns:xlink="{XLINK}"'
    if not mended:
        return svg, mended
    stop = svg.index("svg") + len("svg")
    return svg[:stop] + added + svg[stop:], mended


def mend_markup(svg: str) -> tuple[str, list[str]]:
    """Named HTML entities, bare & and <, and comments with `--` in them; for what did not parse.

    Nothing is touched where a CDATA section makes these characters legal.
    """
    if "<![CDATA[" in svg:
        return svg, []
    mended = []
    for name, mend in _MENDS.items():
        changed = mend(svg)
        if changed != svg:
            svg = changed
            mended.append(name)
    return svg, mended


def _numeric(entity: re.Match[str]) -> str:
    name = entity[1]
    if name in ("amp", "lt", "gt", "quot", "apos") or name not in name2codepoint:
        return entity[0]
    return f"&#{name2codepoint[name]};"


_MENDS: dict[str, Callable[[str], str]] = {  # in this order
    "comment": lambda svg: _COMMENT.sub(lambda m: "" if "--" in m[1] else m[0], svg),
    "entity": lambda svg: _ENTITY.sub(_numeric, svg),
    "ampersand": lambda svg: _AMPERSAND.sub("&amp;", svg),
    "less_than": lambda svg: _LESS_THAN.sub("&lt;", svg),
}


def fitted(svg: str, size: int) -> str:
    """The same drawing with its root sized to size x size, so that the engine itself letterboxes.

    Without a viewBox the old width and height become one; without these it stays as it is.
    """
    tag = _ROOT_TAG.match(svg)
    if tag is None:
        return svg
    attributes = {name: value for name, value in _ATTRIBUTE.findall(tag[1])}
    if "viewBox" not in attributes:
        width, height = (_pixels(attributes.get(side, "")) for side in ("width", "height"))
        if not width or not height:
            return svg
        attributes["viewBox"] = f'"0 0 {width:g} {height:g}"'
    attributes["width"] = attributes["height"] = f'"{size}"'
    name = svg[1 : svg.index("svg") + len("svg")]
    written = "".join(f" {key}={value}" for key, value in attributes.items())
    return f"<{name}{written}{tag[2]}>{svg[tag.end() :]}"


def _pixels(length: str) -> float:
    """0 for a length that says nothing by itself (missing, a percentage, nonsense)."""
    match = _LENGTH.fullmatch(length.strip("\"'"))
    return float(match[1]) * _PIXELS[match[2] or "px"] if match else 0.0
