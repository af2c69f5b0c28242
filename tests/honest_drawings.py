"""Drawings that a model could well have meant, and slips in them that can or cannot be mended."""

from rendering_rig import CHART, RECT, svg

HONEST = {
    "a chart with gradients, clips, a filter, uses, a style and text": CHART,
    "a wide drawing": svg(RECT, 'viewBox="0 0 800 100"'),
    "a tall drawing": svg(RECT, 'viewBox="0 0 100 800"'),
    "sizes in pixels without a viewBox": svg(RECT, 'width="80" height="60"'),
    "sizes in centimetres": svg(RECT, 'width="4cm" height="2cm"'),
    "no size at all": svg(RECT, ""),
    "a size of 100 %": svg(RECT, 'width="100%" height="100%" viewBox="0 0 96 96"'),
    "a very large nominal size": svg(RECT, 'width="90000" height="90000" viewBox="0 0 96 96"'),
    "a prolog and a plain doctype": '<?xml version="1.0"?>\n<!DOCTYPE svg>\n' + svg(RECT),
    "a prefix for the namespace": (
        '<s:svg xmlns:s="http://www.w3.org/2000/svg" viewBox="0 0 9 9">'
        '<s:rect width="5" height="5"/></s:svg>'
    ),
    "what an editor leaves behind": svg(
        '<metadata><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/></metadata>'
        "<title>t</title><desc>d</desc>" + RECT
    ),
    "animation, drawn as its first frame": svg(
        '<rect width="40" height="40"><animate attributeName="x" to="9" dur="1s"/></rect>'
    ),
    "small numbers with many digits": svg('<rect width="20.123456789" height="3.3e1"/>'),
}

MENDED: dict[str, tuple[str, tuple[str, ...]]] = {
    "nothing amiss": (svg(RECT), ()),
    "no xmlns": (f'<svg viewBox="0 0 96 96">{RECT}<text x="9" y="90">abc</text></svg>', ("xmlns",)),
    "no xmlns:xlink": (svg(f'<g id="r">{RECT}</g><use xlink:href="#r" x="9"/>'), ("xlink",)),
    "a Markdown fence": (f"```svg\n{svg(RECT)}\n```", ("fence",)),
    "words around it": (f"Here it is: {svg(RECT)} I hope you like it.", ("prose",)),
    "a doctype": (
        '<?xml version="1.0"?><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" '
        f'"http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">{svg(RECT)}',
        ("doctype",),
    ),
    "an HTML entity": (svg(RECT + '<text y="20">a&nbsp;b&deg; &amp; c</text>'), ("entity",)),
    "bare ampersands": (
        svg(RECT + "<text y='20'>R & D, A&B, &#; &amp; &#65;</text><!-- a & b -->"),
        ("ampersand",),
    ),
    "a bare ampersand beside a CDATA section": (
        svg(RECT + "<text y='20'>R & D <![CDATA[R & D]]></text>"),
        ("ampersand",),
    ),
    "an HTML entity and a bare ampersand": (
        svg(RECT + "<text y='20'>5&deg; & more</text>"),
        ("entity", "ampersand"),
    ),
    "all of them": (
        "Sure!\n```xml\n<!DOCTYPE svg>\n<svg viewBox='0 0 96 96'><g id='r'>"
        f"{RECT}</g><use xlink:href='#r'/><text y='9'>&frac12;</text></svg>\n```",
        ("doctype", "fence", "prose", "xmlns", "xlink", "entity"),
    ),
    "a comment before, with another root in it": (f"<!-- <svg> --> {svg(RECT)}", ()),
}
NOT_MENDED = {  # each would need a guess at what was meant
    "a bare less-than sign": svg(RECT + "<text>x < 5</text>"),
    "dashes in a comment": svg(RECT + "<!-- a -- b -->"),
    "an entity nobody knows": svg(RECT + "<text>&nosuch;</text>"),
    "an entity in a CDATA section beside a real one": svg("<text>&deg;<![CDATA[&deg;]]></text>"),
    "an attribute without quotes": svg("<rect width=9 height=9/>"),
    "a wrong xmlns": '<svg xmlns="https://www.w3.org/2000/svg"><rect/></svg>',
    "two drawings": svg(RECT) + svg(RECT),
}
