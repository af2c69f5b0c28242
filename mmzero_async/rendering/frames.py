"""What the pool and its children say to each other: length-prefixed msgpack over two pipes.

The parent sends Options, then Requests; the child answers Ready, then one Reply a Request. Knows
neither side. The parent trusts nothing that a child says beyond these types.
"""

import os
import struct
from typing import BinaryIO

import msgspec

from mmzero_async.schemas.writing import Writing

LENGTH = struct.Struct("<I")


class Options(msgspec.Struct, frozen=True):
    """What a child is started with; its first frame."""

    size: int  # pixels, square
    memory_mib: int
    cpu_seconds: float  # a render
    wall_seconds: float  # the same; kept by a child that draws apart, by the pool for another
    max_svg_bytes: int
    fonts: list[str]
    font_folder: str
    engine: str = "resvg-py"  # see engine.py
    structure: bool = True  # whether replies tell it


class Ready(msgspec.Struct, frozen=True):
    """The child's first frame: what confines it, and the ids of engine and PNG encoder."""

    isolation: list[str]
    engine: str
    apart: bool = False  # each answer is made in a process of its own: none can harm the child


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    text: str  # of the drawing
    writing: bool = False  # asks for what is written in it instead of for the picture


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """A picture or what is written in it, or a failure of outcomes.KINDS."""

    png: bytes = b""
    ink: float = 0.0
    mended: tuple[str, ...] = ()
    fingerprint: bytes = b""
    structure: bytes = b""
    writing: Writing | None = None
    failure: str = ""
    detail: str = ""
    seconds: float = 0.0


def own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """A child's two ends. The reply pipe moves away from descriptor 1, so that nobody's print can
    garble it."""
    pipes = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return pipes


def framed(message: msgspec.Struct) -> bytes:
    data = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(data)) + data


def read_frame(pipe: BinaryIO) -> bytes | None:
    """The next frame's contents; None at the end of the pipe."""
    header = pipe.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(header)
    data = pipe.read(length)
    return data if len(data) == length else None


def write_frame(pipe: BinaryIO, message: msgspec.Struct) -> None:
    pipe.write(framed(message))
    pipe.flush()
