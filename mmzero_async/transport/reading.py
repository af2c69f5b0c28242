"""What a remote reader and the read server say to each other: msgpack first, bytes in one frame.

A request is a credit for one reply of bounded size. It may be sent again: reading changes nothing.
Every reply bears its request's number and the log's run.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from mmzero_async.log.query import Limits
from mmzero_async.log.where import LONGEST
from mmzero_async.transport.messages import Count, Message, Word, decode_with

MOST = Limits(records=4096, bytes=4 << 20, looked=4096)  # of one page, whatever is asked for
MOST_WAIT = 10.0  # seconds
HostName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")]  # a file's, too


class ReadEnd(Message, frozen=True, kw_only=True, tag="read_end"):
    """How many events are committed."""

    id: Count


class ReadPage(Message, frozen=True, kw_only=True, tag="read_page"):
    """Wanted events of [start, stop). `wait`: seconds, if there is nothing at `start` yet."""

    id: Count
    start: Count
    stop: Count | None = None
    where: Annotated[str, Meta(max_length=LONGEST)] = ""
    limits: Limits = MOST
    wait: Annotated[float, Meta(ge=0.0, le=MOST_WAIT)] = 0.0


class ReadBlob(Message, frozen=True, kw_only=True, tag="read_blob"):
    """The blob's bytes; `look`: only whether it is there."""

    id: Count
    digest: Word
    look: bool = False


class Lines(Message, frozen=True, kw_only=True, tag="lines"):
    """Log lines of a host, to be kept beside the log. `id` is the batch's number, growing: the same
    batch said again by the same `sender` is written once. The reply is the credit for the next."""

    id: Count
    host: HostName
    sender: Word
    lines: list[bytes]


Request = ReadEnd | ReadPage | ReadBlob | Lines


class ReadReply(Message, frozen=True, kw_only=True, tag="read"):
    """What was asked for. `offsets` and `sizes` cut the frame behind it into records."""

    id: int
    run: str
    end: int
    next: int = 0
    offsets: list[int] = []
    sizes: list[int] = []
    there: bool = False  # a blob; it is the frame behind


class ReadFailed(Message, frozen=True, kw_only=True, tag="read_failed"):
    """Why it cannot be read: the error's name and its words. `id` is -1 for a malformed request."""

    id: int
    sort: str
    reason: str


Reply = ReadReply | ReadFailed

_requests: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Reply)


def decode_request(frame: bytes) -> Request:
    """BadMessage when it is none."""
    request: Request = decode_with(_requests, frame)
    return request


def decode_reply(frame: bytes | memoryview) -> Reply:
    """BadMessage when it is none."""
    reply: Reply = decode_with(_replies, frame)
    return reply
