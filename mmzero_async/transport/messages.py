"""What workers and log server say to each other: msgpack in the first frame, blobs behind it."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from mmzero_async import __version__
from mmzero_async.schemas.events import SCHEMA_VERSION
from mmzero_async.schemas.flow import Hand, Held, Refusal, StageFlow
from mmzero_async.schemas.work import Stage, Work
from mmzero_async.transport.errors import BadMessage

PROTOCOL = 1
VERSION = f"{__version__}, schema {SCHEMA_VERSION}"  # a run has one

# What a stranger may say. Names become keys of the log, sequences 64-bit numbers in it.
Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.:@+-]{1,100}\Z")]
Word = Annotated[str, Meta(max_length=256)]
Reason = Annotated[str, Meta(max_length=4096)]
Count = Annotated[int, Meta(ge=0, le=2**53)]


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """Base of both directions."""


# --- worker to server -------------------------------------------------------------------------


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    """First words. `epoch` is 0 for a new incarnation, else the one given before a reconnect.

    `holding` lists the leases that the worker has in hand: any other of its leases was lost on the
    way and falls due again.
    """

    worker: Name
    incarnation: Word  # random, of this process
    role: Word
    host: Word
    pid: Count
    config_digest: Word
    epoch: Count = 0
    holding: list[str] = []
    protocol: int = PROTOCOL
    version: Word = ""  # of package and schema; empty: of a client that does not tell


class Append(Message, frozen=True, kw_only=True, tag="append"):
    """Events of consecutive sequences, all or none. Blobs follow as frames, in `blobs`' order."""

    sequence: Count  # of the first event
    kinds: list[Word]
    bodies: list[bytes]
    blobs: list[str] = []


class Want(Message, frozen=True, kw_only=True, tag="want"):
    """How many more leases of a stage the worker is waiting for: its credit."""

    stage: Stage
    slots: Annotated[int, Meta(ge=1, le=4096)]


class Fail(Message, frozen=True, kw_only=True, tag="fail"):
    """Gives a leased piece of work back. `counts`: whether this was the work's own failure."""

    key: str
    reason: Reason
    counts: bool = True


class Heartbeat(Message, frozen=True, kw_only=True, tag="heartbeat"):
    pass


class Goodbye(Message, frozen=True, kw_only=True, tag="goodbye"):
    pass


class Status(Message, frozen=True, kw_only=True, tag="status"):
    pass


class Why(Message, frozen=True, kw_only=True, tag="why"):
    """What does each stage wait for? Anybody who may come in may ask, without a Hello."""


FromWorker = Hello | Append | Want | Fail | Heartbeat | Goodbye | Status | Why


# --- server to worker -------------------------------------------------------------------------


class Welcome(Message, frozen=True, kw_only=True, tag="welcome"):
    run: str
    epoch: int
    credits: int  # unacknowledged appends allowed
    heartbeat_seconds: float
    dead_seconds: float
    max_message_bytes: int = 0  # of all frames of one message; 0: not told


class Refused(Message, frozen=True, kw_only=True, tag="refused"):
    """Final: the worker should stop. `anew`: another process of its name may come in."""

    reason: str
    anew: bool = False


class Appended(Message, frozen=True, kw_only=True, tag="appended"):
    """Committed. An offset of None: superseded, the log did not wait for the event any more."""

    sequence: int
    offsets: list[int | None]


class AppendRefused(Message, frozen=True, kw_only=True, tag="append_refused"):
    """Not committed. `again`: send it again later (disk full)."""

    sequence: int
    reason: str
    again: bool


class Leased(Message, frozen=True, kw_only=True, tag="leased"):
    """A piece of work; the picture it needs follows as a frame when `picture` is set."""

    work: Work
    seconds: float


class Alive(Message, frozen=True, kw_only=True, tag="alive"):
    """The server's heartbeat."""


class Unknown(Message, frozen=True, kw_only=True, tag="unknown"):
    """The server does not know this worker (it restarted): say Hello again."""


class StatusReply(Message, frozen=True, kw_only=True, tag="status_reply"):
    status: dict[str, Any]


class WhyReply(Message, frozen=True, kw_only=True, tag="why_reply"):
    run: str
    next_offset: int
    stages: list[StageFlow]
    workers: list[Hand]
    held: dict[str, Held]  # key -> who has it in hand
    refused: list[Refusal] = []  # who may not come in


class Malformed(Message, frozen=True, kw_only=True, tag="malformed"):
    reason: str


ToWorker = (
    Welcome
    | Refused
    | Appended
    | AppendRefused
    | Leased
    | Alive
    | Unknown
    | StatusReply
    | WhyReply
    | Malformed
)

_encoder = msgspec.msgpack.Encoder()
_from_worker: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(FromWorker)
_to_worker: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ToWorker)


def encode(message: Message) -> bytes:
    return _encoder.encode(message)


def decode_from_worker(frame: bytes) -> FromWorker:
    """BadMessage when it is none of the worker's messages."""
    message: FromWorker = decode_with(_from_worker, frame)
    return message


def decode_to_worker(frame: bytes) -> ToWorker:
    """BadMessage when it is none of the server's messages."""
    message: ToWorker = decode_with(_to_worker, frame)
    return message


def decode_with(decoder: msgspec.msgpack.Decoder[Any], frame: bytes | memoryview) -> Any:
    """BadMessage when the frame is none of the decoder's messages."""
    try:
        return decoder.decode(frame)
    except (ValueError, RecursionError) as error:  # MsgspecError and UnicodeDecodeError are values
        raise BadMessage(f"not a message of this protocol: {error}") from error
