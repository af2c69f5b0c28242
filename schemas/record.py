"""A record: an event in its envelope with a checksum, byte for byte as it lies on disk.

`crc32c (u32, little-endian) | msgpack [schema, time_ns, producer, epoch, sequence, kind, body]`.
The checksum covers all that follows it. The body stays encoded until somebody wants it.
"""

import struct

import crc32c
import msgspec

from mmzero_async.schemas.events import (
    SCHEMA_VERSION,
    AnyEvent,
    Event,
    decode_event,
    encode_event,
    kind_of,
)

_CRC = struct.Struct("<I")


class RecordDamaged(ValueError):
    """A record whose checksum or envelope is wrong."""


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """Who wrote an event, as which of its writings, when. Grows at the end only."""

    schema: int
    time_ns: int  # log server's wall clock, for people; order is the offset
    producer: str
    epoch: int
    sequence: int
    kind: str
    body: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)


class Record(msgspec.Struct, frozen=True):
    """A committed record: its offset and envelope; `event()` decodes the body."""

    offset: int
    envelope: Envelope

    @property
    def kind(self) -> str:
        return self.envelope.kind

    def event(self) -> AnyEvent:
        return decode_event(self.envelope.kind, self.envelope.body)


def envelope(event: Event, *, producer: str, epoch: int, sequence: int, time_ns: int) -> Envelope:
    return Envelope(
        SCHEMA_VERSION, time_ns, producer, epoch, sequence, kind_of(event), encode_event(event)
    )


def encode_record(value: Envelope) -> bytes:
    payload = _encoder.encode(value)
    return _CRC.pack(crc32c.crc32c(payload)) + payload


def decode_record(offset: int, data: bytes | memoryview) -> Record:
    """Raises RecordDamaged, naming the offset, when checksum or envelope is wrong."""
    view = memoryview(data)
    if len(view) < _CRC.size:
        raise RecordDamaged(f"record at offset {offset} is damaged: only {len(view)} bytes")
    (expected,) = _CRC.unpack_from(view)
    actual = crc32c.crc32c(view[_CRC.size :])
    if actual != expected:
        raise RecordDamaged(
            f"record at offset {offset} is damaged: checksum {actual:08x}, stored {expected:08x}"
        )
    try:
        return Record(offset, _decoder.decode(view[_CRC.size :]))
    except msgspec.MsgspecError as error:
        raise RecordDamaged(f"record at offset {offset} is damaged: {error}") from error
