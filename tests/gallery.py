"""Drawings that use what resvg draws: engines are compared on them."""

import random

from honest_drawings import HONEST, MENDED
from rendering_rig import RECT, svg

from mmzero_async.ops.bench.charts import chart
from mmzero_async.seedling.scenes import random_scene

_FAMILIES = ["serif", "sans-serif", "cursive", "fantasy", "monospace", "No Such Font"]
_FAMILIES += ["DejaVu Sans Mono", "Arial", "Helvetica, Arial, sans-serif", "'Courier New'"]
_FAMILIES += ["Times  New Roman", "Impact, monospace", "Comic Sans MS"]
_STYLED = ['font-weight="bold"', 'font-style="italic"', 'font-weight="300" font-style="oblique"']
_STYLED += ['letter-spacing="2"', 'text-decoration="underline"', 'text-anchor="end"']
_STYLED += ['textLength="60"', 'rotate="20"', 'writing-mode="tb"', 'font-variant="small-caps"']
_STYLED += ['stroke="red" fill="none"', 'dominant-baseline="middle"', 'baseline-shift="super"']
_STYLED += ['style="font: italic bold 20px Arial, serif"', 'style="font-family:&quot;Arial&quot;"']
_PAINT = {
    "a radial gradient": '<radialGradient id="g"><stop offset="0" stop-color="red"/><stop '
    'offset="1" stop-color="#00f8"/></radialGradient><circle cx="48" cy="48" r="40" '
    'fill="url(#g)"/>',
    "a pattern": '<pattern id="p" width="9" height="9" patternUnits="userSpaceOnUse"><circle '
    'cx="4" cy="4" r="3"/></pattern><rect width="96" height="80" fill="url(#p)"/>',
    "a mask": '<mask id="m"><circle cx="48" cy="48" r="30" fill="white"/></mask>'
    '<rect width="96" height="96" fill="teal" mask="url(#m)"/>',
    "markers": '<marker id="m" markerWidth="9" markerHeight="9" refX="4" refY="4" orient="auto">'
    '<path d="M0 0L8 4L0 8z"/></marker><path d="M9 9L50 80L90 20" fill="none" stroke="green" '
    'marker-start="url(#m)" marker-mid="url(#m)" marker-end="url(#m)"/>',
    "dashes": '<path d="M5 5C40 90 60 -20 90 90" fill="none" stroke="navy" stroke-width="3" '
    'stroke-dasharray="7 3" stroke-linecap="round"/>',
    "arcs": '<path d="M10 50A30 20 15 1 1 80 50Z" fill="orange" fill-rule="evenodd"/>',
    "groups that shine through": f'<g opacity="0.4">{RECT}<circle cx="50" cy="50" r="30"/></g>',
    "blending": f'{RECT}<circle cx="50" cy="50" r="30" fill="lime" '
    'style="mix-blend-mode:multiply"/>',
    "a shadow": '<filter id="f"><feDropShadow dx="4" dy="4" stdDeviation="2"/></filter>'
    '<rect x="9" y="9" width="60" height="60" fill="gold" filter="url(#f)"/>',
    "turbulence": '<filter id="f"><feTurbulence baseFrequency="0.1"/></filter>'
    '<rect width="96" height="96" filter="url(#f)"/>',
    "light": '<filter id="f"><feDiffuseLighting><fePointLight x="9" y="9" z="20"/>'
    '</feDiffuseLighting></filter><rect width="96" height="96" filter="url(#f)"/>',
    "text on a path": '<path id="t" d="M5 60Q48 5 90 60" fill="none"/><text><textPath href="#t">'
    "round and round</textPath></text>",
    "text in parts": '<text x="5" y="30">one <tspan fill="red" dy="9">two</tspan> <tspan x="5" '
    'y="60" font-weight="bold">three</tspan></text>',
    "letters of other scripts": '<text x="5" y="40">αβγ Жя שלום ½ ± √ 汉字</text>',
    "a nested drawing": '<svg x="9" y="9" width="40" height="60" viewBox="0 0 10 10">'
    '<rect width="30" height="5" fill="purple"/></svg>',
    "a style sheet": "<style>.a{fill:#123;stroke:red} text{font-family:Arial;font-size:20px}"
    '</style><rect class="a" x="9" y="9" width="30" height="30"/><text x="9" y="80">Arial</text>',
    "a switch": '<switch><rect systemLanguage="de" width="9" height="9"/><rect '
    'systemLanguage="en" width="40" height="40"/></switch>',
    "skewed and turned": f'<g transform="rotate(20 48 48) skewX(10) scale(0.8)">{RECT}</g>',
    "crisp edges": '<rect x="9.4" y="9.4" width="33.3" height="20.7" shape-rendering="crispEdges"/>'
    '<line x1="3" y1="70.5" x2="90" y2="80" stroke="black"/>',
    "lengths in per cent": '<rect x="10%" y="5%" width="50%" height="30%"/><text x="50%" y="80%" '
    'font-size="1.5em">%</text>',
    "no size of the font": '<text x="3" y="50">Default</text>',
}


def gallery() -> dict[str, str]:
    """Name to SVG, some 250 of them; the same every time."""
    rng = random.Random(11)
    texts = {f"family {name}": f'font-family="{name}"' for name in _FAMILIES}
    texts |= {f"text with {style}": style for style in _STYLED}
    found = {
        name: svg(f'<text x="60" y="50" font-size="22" {style}>Mag 7% fi</text>')
        for name, style in texts.items()
    }
    found |= {name: svg(body) for name, body in _PAINT.items()}
    found |= {f"honest: {name}": text for name, text in HONEST.items()}
    found |= {f"mended: {name}": text for name, (text, _) in MENDED.items()}
    found |= {f"chart {i}": chart(i) for i in range(40)}
    return found | {f"scene {i}": random_scene(rng).svg() for i in range(120)}
