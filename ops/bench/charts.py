"""Charts such as a coder model writes: about 3 KB, 25 texts, bars or a line, axes and a legend."""

import random

_COLOURS = ("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948")


def chart(number: int) -> str:
    """The same text for the same number, another one for any other."""
    rng = random.Random(number)
    values = [rng.randint(5, 100) for _ in range(8)]
    marks = _bars(values) if number % 2 else _line(values)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 480">'
        '<rect width="640" height="480" fill="white"/>'
        f'<text x="320" y="30" text-anchor="middle" font-size="18">Sales of year {number}</text>'
        '<path d="M60 60V420H600" fill="none" stroke="black" stroke-width="1.5"/>'
        f"{_ticks()}{marks}{_legend(rng)}</svg>"
    )


def _ticks() -> str:
    return "".join(
        f'<path d="M54 {420 - 6 * v * 0.55:g}H600" stroke="#ccc" stroke-width="0.5"/>'
        f'<text x="48" y="{424 - 6 * v * 0.55:g}" text-anchor="end" font-size="12">{v}</text>'
        for v in range(0, 101, 20)
    )


def _bars(values: list[int]) -> str:
    return "".join(
        f'<rect x="{75 + 64 * i}" y="{420 - 3.3 * v:g}" width="40" height="{3.3 * v:g}" '
        f'fill="{_COLOURS[i % 6]}"/><text x="{95 + 64 * i}" y="{414 - 3.3 * v:g}" '
        f'text-anchor="middle" font-size="12">{v}</text>'
        f'<text x="{95 + 64 * i}" y="440" text-anchor="middle" font-size="12">Q{i + 1}</text>'
        for i, v in enumerate(values)
    )


def _line(values: list[int]) -> str:
    at = [(95 + 64 * i, 420 - 3.3 * v) for i, v in enumerate(values)]
    points = " ".join(f"{x},{y:g}" for x, y in at)
    dots = "".join(
        f'<circle cx="{x}" cy="{y:g}" r="4" fill="#4e79a7"/>'
        f'<text x="{x + 6}" y="{y - 6:g}" font-size="12">{v}</text>'
        f'<text x="{x}" y="440" text-anchor="middle" font-size="12">Q{i + 1}</text>'
        for i, ((x, y), v) in enumerate(zip(at, values, strict=True))
    )
    return f'<polyline points="{points}" fill="none" stroke="#4e79a7" stroke-width="2"/>{dots}'


def _legend(rng: random.Random) -> str:
    return "".join(
        f'<rect x="510" y="{60 + 18 * i}" width="12" height="12" fill="{colour}"/>'
        f'<text x="528" y="{71 + 18 * i}" font-size="12">Series {rng.choice("ABCDEFG")}</text>'
        for i, colour in enumerate(_COLOURS[:2])
    )
