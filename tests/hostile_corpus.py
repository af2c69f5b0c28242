"""More hostile drawings, a family at a time, for which any outcome will do but harm.

Placeholders stand for things outside that a child must never reach: `{file}` a picture in one flat
colour that no drawing uses, `{fifo}` a pipe on which a reader would hang, `{url}` a server that
counts its visitors.
"""

import base64

from hostile_drawings import nested, nested_by_class, png_bomb
from rendering_rig import RECT, XMLNS, svg

FORBIDDEN_COLOUR = (250, 5, 245)  # of {file}
_FILL = '<rect width="96" height="96" {}/>'
_OUTSIDE = {  # an attribute or an element that refers to TARGET
    "image": '<image width="96" height="96" href="TARGET"/>',
    "image by xlink": '<image width="96" height="96" xlink:href="TARGET"/>',
    "image with blanks": '<image width="96" height="96" href=" \n TARGET"/>',
    "image by a prefix": f'<q:image xmlns:q="{XMLNS[7:-1]}" width="96" height="96" href="TARGET"/>',
    "image in a pattern": (
        '<pattern id="p" width="1" height="1"><image width="96" height="96" href="TARGET"/>'
        "</pattern>" + _FILL.format('fill="url(#p)"')
    ),
    "image in a mask": '<mask id="m"><image href="TARGET"/></mask>'
    + _FILL.format('mask="url(#m)"'),
    "filter image": '<filter id="f"><feImage href="TARGET"/></filter>'
    + _FILL.format('filter="url(#f)"'),
    "use": '<use href="TARGET#x"/>',
    "gradient": '<linearGradient id="g" href="TARGET#x"/>' + _FILL.format('fill="url(#g)"'),
    "paint": _FILL.format('fill="url(TARGET#x)"'),
    "paint in quotes": _FILL.format("fill=\"url( 'TARGET#x' )\""),
    "paint in capitals": _FILL.format('style="fill:URL(TARGET#x)"'),
    "paint with an escape": _FILL.format(r'style="fill:u\72l(TARGET#x)"'),
    "paint around a comment": _FILL.format('style="fill:u/**/rl(TARGET#x)"'),
    "mask": _FILL.format('mask="url(TARGET#x)"'),
    "clip": _FILL.format('style="clip-path:url(TARGET#x)"'),
    "marker": '<path d="M0 0L9 9" marker-end="url(TARGET#x)"/>',
    "cursor": _FILL.format('cursor="url(TARGET)"'),
    "text on a path": '<text><textPath href="TARGET#x">abc</textPath></text>',
    "import": "<style>@import url(TARGET);</style>" + RECT,
    "import with an escape": r"<style>@im\70ort 'TARGET';</style>" + RECT,
    "font": (
        "<style>@font-face{font-family:a;src:url(TARGET)}</style><text font-family='a'>a</text>"
    ),
    "link": '<a href="TARGET">' + RECT + "</a>",
    "foreign object": '<foreignObject><img src="TARGET"/></foreignObject>',
    "included": '<x:include xmlns:x="http://www.w3.org/2001/XInclude" href="TARGET"/>' + RECT,
    "script": '<script href="TARGET"/>',
    "animated reference": '<use href="#a"><set attributeName="href" to="TARGET#x"/></use>' + RECT,
    "base": '<g xml:base="TARGET"><use href="#x"/></g>' + RECT,
}
_DECLARED = {
    "quadratic blow-up": '<!ENTITY a "' + "x" * 20_000 + '">',
    "parameter entity": '<!ENTITY % p SYSTEM "{url}"> %p;',
    "file entity": '<!ENTITY a SYSTEM "{file}">',
    "pipe entity": '<!ENTITY a SYSTEM "file://{fifo}">',
    "network entity": '<!ENTITY a SYSTEM "{url}">',
    "unparsed entity": '<!NOTATION n SYSTEM "{url}"><!ENTITY a SYSTEM "{file}" NDATA n>',
    "entity of itself": '<!ENTITY a "&a;">',
    "default attribute": '<!ATTLIST rect onload CDATA "x()">',
}
_DOCTYPES = {
    "doctype over the network": '<!DOCTYPE svg SYSTEM "{url}">',
    "doctype in small letters": '<!doctype svg [<!entity a "x">]>',
    "doctype after the root": "",
    "doctype of two": '<!DOCTYPE svg><!DOCTYPE svg [<!ENTITY a "b">]>',
    "doctype that never ends": "<!DOCTYPE svg [",
}
_NUMBERS = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "-1e38",
    "1e-400",
    "0x10",
    "1e",
    "--5",
    "",
    "9" * 400,
]
_PLACES = {
    "coordinate": '<rect x="N" y="N" width="9" height="9"/>',
    "path": '<path d="M N N L N 5 A N N N 1 1 N N Z"/>',
    "points": '<polygon points="N,N 5,N N,9"/>',
    "transform": '<g transform="matrix(N N N N N N)"><rect width="9" height="9"/></g>',
    "size of a font": '<text y="20" font-size="N">abc</text>',
    "dash": '<path d="M0 0H90" stroke="red" stroke-dasharray="N N"/>',
    "gradient": '<linearGradient id="g"><stop offset="N"/><stop offset="N"/></linearGradient>'
    + _FILL.format('fill="url(#g)"'),
    "view box": "VIEWBOX",
}
_DEEP = {
    "groups": ("<g>", "</g>"),
    "drawings": ("<svg>", "</svg>"),
    "switches": ("<switch>", "</switch>"),
    "spans": ("<tspan>", "</tspan>"),
    "translucent groups": ('<g opacity="0.9">', "</g>"),
    "scaled groups": ('<g transform="scale(9)">', "</g>"),
    "foreign things": ('<x:y xmlns:x="urn:x">', "</x:y>"),
}
_TEXTS = {
    "one word of 8000 letters": "x" * 8000,
    "8000 blanks and letters": "a " * 4000,
    "combining marks": "a" + "\u0301" * 4000,
    "right to left": "\u05d0\u0628" * 2000,
    "switches of direction": "\u202e\u202da" * 1300,
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 700,
    "no such characters": "\ufffe\U0010ffff" * 10,
    "unassigned planes": "\U000e0100" * 2000,
    "ligatures": "fi\u200dfl" * 1500,
    "vertical": "\u6f22" * 4000,
}
_FILTERS = {
    "blur": '<feGaussianBlur stdDeviation="90000"/>',
    "shadow": '<feDropShadow dx="90000" dy="-90000" stdDeviation="9000"/>',
    "displacement": '<feDisplacementMap in="SourceGraphic" in2="SourceGraphic" scale="90000"/>',
    "convolution": '<feConvolveMatrix order="7" kernelMatrix="' + "1 " * 49 + '"/>',
    "morphology": '<feMorphology operator="dilate" radius="20"/>' * 8,
    "turbulence": '<feTurbulence baseFrequency="99999" numOctaves="8"/>',
    "light": '<feSpecularLighting><fePointLight x="1" y="1" z="1"/></feSpecularLighting>',
    "tile": '<feFlood x="0" y="0" width="0.001" height="0.001"/><feTile/>',
    "table": '<feComponentTransfer><feFuncR type="table" tableValues="'
    + "0 1 " * 4000
    + '"/></feComponentTransfer>',
    "colours": '<feColorMatrix values="' + "99999 " * 20 + '"/>',
    "merge": "<feMerge>" + "<feMergeNode/>" * 500 + "</feMerge>",
}


def _outside() -> dict[str, str]:
    found = {}
    for name, body in _OUTSIDE.items():
        for kind in ("file", "fifo", "url"):
            found[f"{name} from a {kind}"] = svg(body.replace("TARGET", f"{{{kind}}}"))
    return found


def _declared() -> dict[str, str]:
    found = {
        name: f"<!DOCTYPE svg [{declared}]>{svg('<text>' + '&a;' * 500 + '</text>')}"
        for name, declared in _DECLARED.items()
    }
    found |= {name: doctype + svg(RECT) for name, doctype in _DOCTYPES.items()}
    found["doctype after the root"] = svg(RECT) + '<!DOCTYPE svg [<!ENTITY a "b">]>'
    return found


def _numbers() -> dict[str, str]:
    found = {}
    for place, body in _PLACES.items():
        for number in _NUMBERS:
            written = body.replace("N", number)
            if place == "view box":
                written = svg(RECT, f'viewBox="0 0 {number} {number}"')
            else:
                written = svg(written)
            found[f"{number[:9] or 'nothing'} in a {place}"] = written
    return found


def _deep() -> dict[str, str]:
    return {
        f"{levels} {name}": svg(opening * levels + RECT + closing * levels)
        for name, (opening, closing) in _DEEP.items()
        for levels in (60, 2500)
    }


def _texts() -> dict[str, str]:
    styled = 'y="40" font-size="20" textLength="9" letter-spacing="9000" writing-mode="tb"'
    places = " ".join(map(str, range(3000)))
    found = {name: svg(f"<text {styled}>{text}</text>") for name, text in _TEXTS.items()}
    found["a place for each letter"] = svg(
        f'<text x="{places}" rotate="{places}">{"a" * 3000}</text>'
    )
    found["many texts"] = svg('<text y="9">abc</text>' * 1800)
    return found


def _filters() -> dict[str, str]:
    region = 'id="f" x="-900" y="-900" width="90000" height="90000" filterUnits="userSpaceOnUse"'
    return {
        f"filter: {name}": svg(
            f"<filter {region}>{body}</filter>" + _FILL.format('filter="url(#f)"') * 3
        )
        for name, body in _FILTERS.items()
    }


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(content).decode()


def _images() -> dict[str, str]:
    inner = svg('<image width="96" height="96" href="{file}"/>').encode()
    image = '<image width="96" height="96" href="{}"/>'
    return {
        "image of a drawing": svg(image.format(_data("svg+xml", inner))),
        "image of a bomb": svg(image.format(png_bomb())),
        "image of nothing": svg(image.format("")),
        "image of itself": svg('<g id="a">' + image.format("#a") + "</g>"),
        "image of garbage": svg(image.format(_data("jpeg", b"\xff\xd8" + b"\0" * 500))),
        "image in capitals": svg('<IMAGE href="{file}"/>' + RECT),
    }


def _broken() -> dict[str, str]:
    whole = svg(RECT + "<text>abc</text>")
    found = {f"cut at {cut}": whole[:cut] for cut in range(5, len(whole), 23)}
    for name, part in {
        "twice the same attribute": '<rect x="1" x="2"/>',
        "undeclared prefix": "<a:b/>",
        "a number of no character": "<text>&#0;&#xFFFFFFFF;</text>",
        "open CDATA": "<text><![CDATA[",
        "open comment": "<!-- ",
        "end of CDATA": "<text>]]></text>",
        "another declaration": '<?xml version="1.0"?>',
        "control characters": "<text>\x01\x08\x1f</text>",
        "bad name": "<1rect/>",
        "newer XML": '<?xml version="1.1"?>',
    }.items():
        found[name] = svg(part + RECT)
    return found


def _work() -> dict[str, str]:
    arcs = "A9 9 0 1 1 9 9 " * 1000
    stops = "".join(f'<stop offset="{i / 2900}"/>' for i in range(2900))
    rules = "".join(f"g>g:nth-child({i % 9}),*{{fill:red}}" for i in range(250))
    return {
        "a path of arcs": svg(f'<path d="M0 0{arcs}" fill="none" stroke="red"/>'),
        "short dashes on a long line": svg(
            '<path d="M0 0H99999V99999H0z" stroke="red" stroke-dasharray="0.001"/>'
        ),
        "a wide stroke": svg('<path d="M0 0H9" stroke="red" stroke-width="99999"/>'),
        "many stops": svg(
            f'<linearGradient id="g">{stops}</linearGradient>' + _FILL.format('fill="url(#g)"')
        ),
        "many rules": svg(f"<style>{rules}</style>" + "<g><g/></g>" * 500 + RECT),
        "many uses": svg('<g id="a"><path d="M0 0h9"/></g>' + '<use href="#a"/>' * 1900),
        "patterns in patterns": nested("pattern", 7, "fill"),
        "masks in masks": nested("mask", 7, "mask"),
        "clips in clips": nested("clipPath", 7, "clip-path"),
        "clips nested by class": nested_by_class("clipPath", 20, "clip-path"),
        "a filter nested by class": nested_by_class("filter", 9, "filter"),
        "blended layers": svg('<g style="mix-blend-mode:screen"><path d="M0 0h90v90z"/></g>' * 199),
        "a marker on itself": svg(
            '<marker id="m"><path d="M0 0L9 9" marker-end="url(#m)"/></marker>'
            '<path d="M0 0L9 9" marker-end="url(#m)"/>'
        ),
        "a gradient of itself": svg(
            '<linearGradient id="g" href="#g"/>' + _FILL.format('fill="url(#g)"')
        ),
        "a drawing of a huge size": svg(RECT, 'width="99999999" height="99999999"'),
        "a drawing of no size": svg(RECT, 'width="0" height="0"'),
        "a drawing of a negative size": svg(RECT, 'viewBox="0 0 -9 -9"'),
        "a very thin drawing": svg(RECT, 'viewBox="0 0 99999 0.0001"'),
        "an inner drawing of a huge size": svg(f'<svg width="99999" height="99999">{RECT}</svg>'),
        "a drawing that uses its root": svg('<use href="#r"/>' + RECT, 'id="r" viewBox="0 0 9 9"'),
    }


CORPUS: dict[str, str] = {
    **_outside(),
    **_declared(),
    **_numbers(),
    **_deep(),
    **_texts(),
    **_filters(),
    **_images(),
    **_broken(),
    **_work(),
}
