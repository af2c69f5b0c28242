"""What stands in the place of a blob that compaction dropped: how large it was, why, when, where.

On disk `crc32c (u32, little-endian) | msgpack [size, reason, time_ns, archive]`; the checksum
covers the blob's digest too, so that no tombstone passes for another's.
"""

import struct
from datetime import UTC, datetime

import crc32c
import msgspec

_CRC = struct.Struct("<I")


class Tombstone(msgspec.Struct, frozen=True, array_like=True):
    """Grows at the end only."""

    size: int  # bytes
    reason: str
    time_ns: int
    archive: str = ""  # the folder that holds the blob; "": it was dropped for good

    def __str__(self) -> str:
        when = datetime.fromtimestamp(self.time_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        where = f"archive {self.archive}" if self.archive else "kept in no archive"
        return f"dropped by compaction at {when}, {where}"


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Tombstone)


def encode_tombstone(key: bytes, tombstone: Tombstone) -> bytes:
    payload = _encoder.encode(tombstone)
    return _CRC.pack(crc32c.crc32c(key + payload)) + payload


def decode_tombstone(key: bytes, data: bytes) -> Tombstone:
    """ValueError when it is damaged."""
    payload = data[_CRC.size :]
    if data[: _CRC.size] != _CRC.pack(crc32c.crc32c(key + payload)):
        raise ValueError(f"the tombstone of blob {key.hex()} is damaged")
    return _decoder.decode(payload)
