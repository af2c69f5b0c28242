"""The structure of a drawing in 64 numbers: the more two drawings have in common, the more agree.

Weisfeiler-Lehman labels (Shervashidze et al. 2011) of the element tree: an element's type, place
and colours, coarsely; then with its children's labels, twice. Their multiset is told by MinHash
with one permutation (Li, Owen and Zhang 2012; empty bins densified after Shrivastava and Li 2014).
No pixels, no words, no model: blanks, comments, metadata, the order of attributes and siblings,
the names of ids and classes and what texts say make no difference. Linear in the drawing.
"""

import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from xml.etree import ElementTree

from PIL import ImageColor

from mmzero_async.rendering.mending import XLINK, XMLNS

BINS = 64
BYTES = 2 * BINS
ROUNDS = 2
GRID = 16  # places are told in sixteenths of the canvas
_MAX_NUMBERS = 64  # of one attribute that count
_PLACES = """x y width height cx cy r rx ry x1 y1 x2 y2 dx dy points d transform font-size
stroke-width viewBox offset fx fy"""
_PLACED = tuple(sorted(_PLACES.split()))
_PAINTS = ("fill", "stroke", "stop-color", "color", "flood-color")
_SAID = frozenset({"title", "desc", "metadata"})
_NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(%?)")
_WORD = re.compile(r"[A-DF-Za-df-z]+")  # no exponents
_EMPTY = -1

Element = ElementTree.Element


def structure(svg: str) -> bytes:
    """uint16 [BINS], little-endian, of a drawing that passed the pre-flight.

    Raises ElementTree.ParseError for what is not well-formed.
    """
    root = ElementTree.fromstring(svg)
    elements = [element for element in root.iter() if _name(element)]
    ids = {element.get("id", ""): _name(element) for element in elements}
    sides = [_first(root.get(side, "")) for side in ("width", "height")]
    box = [float(number) for number, _ in _NUMBER.findall(root.get("viewBox", ""))]
    extent = max(box[2:4] if len(box) == 4 else sides) or 1.0
    labels = {id(e): _hash(_label(e, extent, ids)) for e in elements}
    parents = {id(child): element for element in elements for child in element}
    features = [f"{_name(e)}<{_name(parents[id(e)])}" for e in elements if id(e) in parents]
    found = Counter(map(_hash, features))
    found.update(labels.values())
    for _ in range(ROUNDS):
        labels = {
            id(e): _hash(f"{labels[id(e)]}{sorted(labels[id(c)] for c in e if id(c) in labels)}")
            for e in elements
        }
        found.update(labels.values())
    again = (_hash(f"{label}*{i}") for label, n in found.items() for i in range(1, n))
    return _minima([*found, *again])


def _minima(features: Iterable[int]) -> bytes:
    """The least of each bin; an empty one takes the next one's, told apart by the distance."""
    least = [_EMPTY] * BINS
    for feature in features:
        place, value = feature % BINS, feature // BINS
        if least[place] == _EMPTY or value < least[place]:
            least[place] = value
    dense = []
    for place in range(BINS):
        steps = 0
        while steps < BINS and least[(place + steps) % BINS] == _EMPTY:
            steps += 1
        dense.append((least[(place + steps) % BINS] + 0x9E37 * steps) & 0xFFFF)
    return struct.pack(f"<{BINS}H", *dense)


def _label(element: Element, extent: float, ids: dict[str, str]) -> str:
    style = dict(_declarations(element.get("style", "")))
    told = [_name(element)]
    for key in _PLACED:
        if value := style.get(key) or element.get(key, ""):
            told.append(f"{key}{_place(value, extent)}")
    for key in _PAINTS:
        if value := style.get(key) or element.get(key, ""):
            told.append(f"{key}={_paint(value.strip())}")
    href = element.get("href") or element.get(f"{{{XLINK}}}href") or ""
    if href:
        told.append(f"->{ids.get(href.removeprefix('#'), '')}")
    return " ".join(told)


def _place(value: str, extent: float) -> str:
    """Its letters (a path's commands, a transform's names) and how far its numbers reach."""
    numbers = [
        float(number) / (100.0 if per_cent else extent)
        for number, per_cent in _NUMBER.findall(value)[:_MAX_NUMBERS]
    ]
    if len(numbers) > 1:
        numbers = [len(numbers) / GRID, *numbers[:2], min(numbers), max(numbers)]
    words = "".join(_WORD.findall(value))[:_MAX_NUMBERS]
    return words + ",".join(str(round(GRID * number)) for number in numbers)


@lru_cache(maxsize=256)
def _paint(value: str) -> str:
    """Two bits a channel; all references to gradients and patterns are one."""
    if value.startswith("url("):
        return "url"
    try:
        return ".".join(str(level >> 6) for level in ImageColor.getrgb(value)[:3])
    except ValueError:
        return value[:16].lower()


def _declarations(style: str) -> Iterator[tuple[str, str]]:
    for declaration in style.split(";"):
        key, _, value = declaration.partition(":")
        yield key.strip(), value.strip()


def _first(length: str) -> float:
    found = _NUMBER.search(length)
    return float(found[1]) if found and not found[2] else 0.0


def _name(element: Element) -> str:
    """Its type; "" for a comment, metadata and what is of another vocabulary."""
    tag = element.tag
    name = tag.removeprefix(f"{{{XMLNS}}}") if isinstance(tag, str) else ""
    return "" if name in _SAID or name.startswith("{") else name


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
