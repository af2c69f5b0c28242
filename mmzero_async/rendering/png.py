"""RGB pixels to PNG, fast: unfiltered rows through igzip, some ten times faster than Pillow's own.

Flat drawings gain nothing from PNG's row filters, which cost most of the time. The same pixels give
the same bytes on one machine; another family of processors may pack them otherwise. Also the way
back, of what an engine packed.
"""

import struct
import zlib
from importlib import metadata
from types import ModuleType

from PIL import Image

_packer: ModuleType = zlib
try:
    from isal import isal_zlib as _packer

    ENCODER = f"isal-{metadata.version('isal')}"  # what bytes depend on besides the pixels
except ImportError:  # no wheel for this machine: slower, and other bytes
    ENCODER = f"zlib-{zlib.ZLIB_RUNTIME_VERSION}"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGB, _RGBA = 2, 6  # colour types
_HEADER = struct.Struct(">2I5B")
_CHUNK = struct.Struct(">I4s")
_LEVEL = 1  # igzip's higher ones pack drawings no better


def encoded(picture: Image.Image) -> bytes:
    """A PNG of an RGB picture, 8 bits a channel, without any other chunk."""
    # A stride of one byte more leaves a zero behind each row: the filter byte of the next.
    rows = picture.tobytes("raw", "RGB", 3 * picture.width + 1, 1)
    header = _HEADER.pack(picture.width, picture.height, 8, _RGB, 0, 0, 0)
    packer = _packer.compressobj(_LEVEL)
    data = packer.compress(b"\0") + packer.compress(memoryview(rows)[:-1]) + packer.flush()
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def decoded(png: bytes) -> Image.Image:
    """RGB pixels of a PNG of opaque RGBA ones, 8 bits a channel. ValueError for any other.

    Unpacked straight into three channels: through a picture of four it takes a fifth longer.
    """
    width, height, *form = _HEADER.unpack_from(png, len(_SIGNATURE) + _CHUNK.size)
    if not png.startswith(_SIGNATURE) or form != [8, _RGBA, 0, 0, 0]:
        raise ValueError("no PNG of RGBA pixels, 8 bits a channel, without interlacing")
    packed, at = [], len(_SIGNATURE)
    while at < len(png):
        length, kind = _CHUNK.unpack_from(png, at)
        start = at + _CHUNK.size
        if kind == b"IDAT":
            packed.append(png[start : start + length])
        at = start + length + 4  # its checksum: these bytes come from a call in this process
    return Image.frombytes("RGB", (width, height), b"".join(packed), "zip", "RGBX")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
