"""A fingerprint of a picture: alike pictures differ in few of its 2304 bits, and colours count.

A 16 x 16 thumbnail, each of its 768 values as three bits, one a level that it exceeds: the number
of differing bits is then the sum of the differences in level. A grey difference hash of 256 bits
takes a red bar for a green one, and bars of another width or height for the same.
"""

from PIL import Image

BYTES = 288
_SIDE = 16
_LEVELS = (96, 176, 240)  # the last tells pastels from white


def fingerprint(picture: Image.Image) -> bytes:
    """288 bytes of an RGB picture, a plane of 96 bytes a level."""
    values = picture.resize((_SIDE, _SIDE), Image.Resampling.BOX).tobytes()
    return b"".join(_packed(values.translate(table)) for table in _TABLES)


_TABLES = [
    bytes(b"1"[0] if value > level else b"0"[0] for value in range(256)) for level in _LEVELS
]


def _packed(digits: bytes) -> bytes:
    return int(digits, 2).to_bytes(len(digits) // 8, "big")
