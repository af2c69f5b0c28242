"""Drawings that harm a plain call of the engine, or would if they could. Shared by the tests.

`HOSTILE` names the failure that each must come to, `LATE` passes the pre-flight and is stopped by
the child's own limits.
"""

import base64
import struct

from rendering_rig import RECT, XMLNS, svg


def png_bomb() -> str:
    """A tiny file that claims 20,000 x 20,000 pixels."""
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 20000, 20000, 1, 0, 0, 0, 0)
    return "data:image/png;base64," + base64.b64encode(header).decode()


def nested(name: str, levels: int, reference: str) -> str:
    """Each level draws with the one before it, twice."""
    parts = [f'<{name} id="n0" width="1" height="1"><rect width="9" height="9"/></{name}>']
    for i in range(1, levels):
        inner = f'<rect width="9" height="9" {reference}="url(#n{i - 1})"/>' * 2
        parts.append(f'<{name} id="n{i}" width="1" height="1">{inner}</{name}>')
    use = f'<rect width="90" height="90" {reference}="url(#n{levels - 1})"/>'
    return svg(f"<defs>{''.join(parts)}</defs>{use}")


MANY = " ".join(f'a{i}=""' for i in range(300))
TENFOLD = ("".join([f"&e{i - 1};"] * 10) for i in range(1, 9))
ENTITIES = "".join(f'<!ENTITY e{i} "{value}">' for i, value in enumerate(TENFOLD, 1))
HOSTILE = {
    "nothing": ("", "invalid"),
    "prose": ("I cannot draw that.", "invalid"),
    "a cut-off drawing": (svg(RECT)[:-20], "invalid"),
    "tags that cross": (svg("<g><rect></g></rect>"), "invalid"),
    "another vocabulary": ('<svg xmlns="urn:other"><rect/></svg>', "invalid"),
    "a NUL": (svg("<text>\0</text>"), "invalid"),
    "a UTF-16 claim": ('<?xml version="1.0" encoding="UTF-16"?><svg/', "invalid"),
    "half a surrogate": (svg("<text>\ud800</text>"), "invalid"),
    "too many bytes": (svg("<g/>" * 20_000), "too_large"),
    "billion laughs": (
        f'<!DOCTYPE svg [<!ENTITY e0 "ha">{ENTITIES}]>{svg("&e8;")}',
        "limit:entities",
    ),
    "an external entity": (
        f'<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>{svg("<text>&x;</text>")}',
        "limit:entities",
    ),
    "a script": (svg("<script>alert(1)</script>"), "forbidden"),
    "an event handler": (svg('<rect onload="x()" width="9" height="9"/>'), "forbidden"),
    "a foreign object": (svg("<foreignObject><p>hi</p></foreignObject>"), "forbidden"),
    "a file as an image": (svg('<image href="file:///etc/passwd"/>'), "forbidden"),
    "an endless file as an image": (svg('<image href="/dev/zero"/>'), "forbidden"),
    "a FIFO as an image": (svg('<image xlink:href="{fifo}"/>'), "forbidden"),
    "an image bomb": (svg(f'<image href="{png_bomb()}"/>'), "forbidden"),
    "a filter that reads a file": (
        svg('<filter id="f"><feImage href="/etc/passwd"/></filter>'),
        "forbidden",
    ),
    "a use of another file": (svg('<use href="other.svg#x"/>'), "forbidden"),
    "a paint from the network": (svg('<rect fill="url(http://x.example/#a)"/>'), "forbidden"),
    "an import": (svg("<style>@import 'x.css';</style>"), "forbidden"),
    "a style that refers outside": (svg("<style>a{fill:url(x.svg#a)}</style>"), "forbidden"),
    "a prefixed script": (
        f'<svg {XMLNS} xmlns:q="http://www.w3.org/2000/svg"><q:script/></svg>',
        "forbidden",
    ),
    "an import behind a comment": (svg("<style>a{}<!-- -->@import 'x.css';</style>"), "forbidden"),
    "an HTML page": (svg('<div xmlns="http://www.w3.org/1999/xhtml"/><iframe/>'), "forbidden"),
    "another base": (svg('<g xml:base="file:///etc/"/>'), "forbidden"),
    "a style sheet instruction": (svg('<?xml-stylesheet href="x.css"?>'), "forbidden"),
    "deep nesting": (svg("<g>" * 200 + "</g>" * 200), "limit:depth"),
    "many elements": (svg("<g/>" * 4000), "limit:elements"),
    "a huge number": (svg('<rect width="1e30" height="9"/>'), "limit:number"),
    "a huge number in a path": (svg('<path d="M0 0L9999999 5"/>'), "limit:number"),
    "a huge number in a style": (svg("<style>text{font-size:1e9px}</style>"), "limit:number"),
    "numbers in scientific clothes": (svg('<g transform="scale(1e+6)"/>'), "limit:number"),
    "not a number": (svg('<circle cx="NaN" cy="5" r="5"/>'), "limit:number"),
    "infinity": (svg('<circle cx="5" cy="-Infinity" r="5"/>'), "limit:number"),
    "a long attribute": (svg(f'<path d="M0 0{"h1" * 9000}"/>'), "limit:attribute"),
    "many attributes": (
        svg(f"<rect {MANY}/>"),
        "limit:attribute",
    ),
    "a long text": (svg(f"<text>{'x' * 9000}</text>"), "limit:text"),
    "a long text in parts": (
        svg("<text>" + f"<tspan>{'x' * 900}</tspan>" * 10 + "</text>"),
        "limit:text",
    ),
    "a use of itself": (svg('<g id="a"><use href="#a"/></g>'), "limit:references"),
    "two that use each other": (
        svg('<g id="a"><use href="#b"/></g><g id="b"><use href="#a"/></g>'),
        "limit:references",
    ),
    "uses that double": (
        svg(
            '<g id="u0"><rect width="9" height="9"/></g>'
            + "".join(
                f'<g id="u{i}"><use href="#u{i - 1}"/><use href="#u{i - 1}"/></g>'
                for i in range(1, 20)
            )
        ),
        "limit:references",
    ),
    "nested patterns": (nested("pattern", 15, "fill"), "limit:references"),
    "nested masks": (nested("mask", 15, "mask"), "limit:references"),
    "nested clips": (nested("clipPath", 15, "clip-path"), "limit:references"),
    "a huge pattern tile": (
        svg(
            '<pattern id="p" width="90000" height="90000" patternUnits="userSpaceOnUse">'
            '<rect width="1" height="1"/></pattern><rect width="9" height="9" fill="url(#p)"/>'
        ),
        "limit:pattern",
    ),
    "a pattern tile many times what it fills": (
        svg('<pattern id="p" width="50" height="1"/>'),
        "limit:pattern",
    ),
    "memory for a tile that only the engine can size": (
        svg(
            '<pattern id="p" width="4" height="4"><rect width="1" height="1"/></pattern>'
            '<rect width="99999" height="99999" fill="url(#p)"/>'
        ),
        "memory",
    ),
    "endless turbulence": (
        svg('<filter id="f"><feTurbulence numOctaves="90000"/></filter>'),
        "limit:filter",
    ),
    "a wide morphology": (
        svg('<filter id="f"><feMorphology radius="5000"/></filter>'),
        "limit:filter",
    ),
    "a long filter": (svg(f'<filter id="f">{"<feOffset/>" * 50}</filter>'), "limit:filter"),
    "many filtered elements": (svg('<g filter="url(#f)"/>' * 30), "limit:filter"),
    "many filtered elements by style": (svg('<g style="filter:url(#f)"/>' * 30), "limit:filter"),
    "many layers": (svg('<g opacity="0.5"><path/></g>' * 300), "limit:layers"),
    "an empty drawing": (svg(""), "blank"),
    "one flat colour": (svg('<rect width="96" height="96" fill="navy"/>'), "blank"),
    "a drawing off its canvas": (svg('<rect x="500" width="9" height="9"/>'), "blank"),
}


def nested_by_class(name: str, levels: int, prop: str) -> str:
    """As `nested`, with the references in a style, where the pre-flight sees no owner."""
    sheet = "".join(f".c{i}{{{prop}:url(#n{i})}}" for i in range(levels))
    bodies = ['<rect width="9" height="9"/>']
    bodies += [f'<rect width="9" height="9" class="c{i}"/>' * 2 for i in range(levels - 1)]
    parts = "".join(
        f'<{name} id="n{i}" width="1" height="1">{body}</{name}>' for i, body in enumerate(bodies)
    )
    last = f'<rect width="90" height="90" class="c{levels - 1}"/>'
    return svg(f"<style>{sheet}</style><defs>{parts}</defs>{last}")


LATE = {  # only the child's own limits stop these
    "patterns nested by class": nested_by_class("pattern", 20, "fill"),
    "masks nested by class": nested_by_class("mask", 20, "mask"),
    "a marker on every point": svg(
        f'<marker id="m">{RECT * 200}</marker><path d="M0 0{"h1" * 4000}" marker-mid="url(#m)"/>'
    ),
    "a pattern's view box of almost nothing": svg(
        '<pattern id="p" width="4" height="4" viewBox="0 0 0.00001 0.00001"><rect width="1" '
        'height="1"/></pattern><rect width="90000" height="90000" fill="url(#p)"/>'
    ),
}
