"""One warm pool for a file of rendering tests, and drawings that more than one of them needs."""

import asyncio
import io
import os
from collections.abc import Iterator, Sequence
from typing import Literal

from PIL import Image

from mmzero_async.config import DrawingKind, RendererConfig
from mmzero_async.rendering.outcomes import Picture, RenderFailure
from mmzero_async.rendering.pool import RenderPool

Engine = Literal["resvg-py", "svg2png-py"]
ENGINES: tuple[Engine, ...] = ("resvg-py", "svg2png-py")
CONFIG = RendererConfig(size=64, children=1, wall_seconds=3.0)
XMLNS = 'xmlns="http://www.w3.org/2000/svg"'
WHITE, RED, BLUE = (255, 255, 255), (255, 0, 0), (0, 0, 255)
RECT = '<rect x="10" y="10" width="50" height="40" fill="red"/>'

Rig = tuple[asyncio.Runner, RenderPool]


def svg(body: str, attributes: str = 'viewBox="0 0 96 96"') -> str:
    return f"<svg {XMLNS} {attributes}>{body}</svg>"


CHART = svg(
    '<defs><linearGradient id="a"><stop offset="0" stop-color="#123456"/></linearGradient>'
    '<linearGradient id="b" href="#a"/><g id="tick"><path d="M0 0h4" stroke="black"/></g>'
    '<clipPath id="c"><rect width="90" height="90"/></clipPath>'
    '<filter id="f"><feGaussianBlur stdDeviation="1"/></filter></defs>'
    "<style>.bar123456 { fill: #999999; opacity: 0.9 }</style>"
    '<g clip-path="url(#c)"><rect x="6" y="30" width="14" height="60" fill="url(#b)"/>'
    '<rect class="bar123456" x="30" y="10" width="14" height="80" filter="url(#f)"/></g>'
    '<use href="#tick" x="4" y="20"/><use href="#tick" x="4" y="40"/>'
    '<text x="50" y="20" font-family="Comic Sans MS" font-size="12">42 &amp; <tspan>7</tspan>'
    '</text><path d="M4 90H92" stroke="black"/>'
)
SLOW = svg(
    '<filter id="f" x="0" y="0" width="1" height="1">'
    + '<feTurbulence numOctaves="8" baseFrequency="0.9"/>' * 8
    + "</filter>"
    + '<rect width="96" height="96" filter="url(#f)"/>' * 20
)


def opened(
    config: RendererConfig,
    drawing: DrawingKind = "svg",
    *,
    cached_mib: int = 32,
    command: Sequence[str] = (),
) -> Iterator[Rig]:
    with asyncio.Runner() as runner:
        pool = RenderPool(config, drawing=drawing, cached_mib=cached_mib, command=command)
        runner.run(pool.__aenter__())
        yield runner, pool
        runner.run(pool.__aexit__(None, None, None))


def draw(rig: Rig, text: str) -> Picture | RenderFailure:
    runner, pool = rig
    return runner.run(asyncio.wait_for(pool.render(text), 30))


def drawn(rig: Rig, text: str) -> Image.Image:
    outcome = draw(rig, text)
    assert isinstance(outcome, Picture), outcome
    return Image.open(io.BytesIO(outcome.png)).convert("RGB")


def unseen() -> str:
    """A good drawing that no cache knows."""
    return svg(RECT + f"<!--{os.urandom(8).hex()}-->")


def assert_alive(rig: Rig) -> None:
    assert isinstance(draw(rig, unseen()), Picture)
