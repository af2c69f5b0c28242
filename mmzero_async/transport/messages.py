"""What workers and log server say to each other: msgpack in the first frame, blobs behind it."""

from typing import Any

import msgspec

from mmzero_async.schemas.work import Stage, Work

PROTOCOL = 1


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """Base of both directions."""


# --- worker to server -------------------------------------------------------------------------


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    """First words. `epoch` is 0 for a new incarnation, else the one given before a reconnect.

    `holding` lists the leases that the worker has in hand: any other of its leases was lost on the
    way and falls due again.
    """

    worker: str
    incarnation: str  # random, of this process
    role: str
    host: str
    pid: int
    config_digest: str
    epoch: int = 0
    holding: list[str] = []
    protocol: int = PROTOCOL


class Append(Message, frozen=True, kw_only=True, tag="append"):
    """Events of consecutive sequences, all or none. Blobs follow as frames, in `blobs`' order."""

    sequence: int  # of the first event
    kinds: list[str]
    bodies: list[bytes]
    blobs: list[str] = []


class Want(Message, frozen=True, kw_only=True, tag="want"):
    """How many more leases of a stage the worker is waiting for: its credit."""

    stage: Stage
    slots: int


class Fail(Message, frozen=True, kw_only=True, tag="fail"):
    """Gives a leased piece of work back. `counts`: whether this was the work's own failure."""

    key: str
    reason: str
    counts: bool = True


class Heartbeat(Message, frozen=True, kw_only=True, tag="heartbeat"):
    pass


class Goodbye(Message, frozen=True, kw_only=True, tag="goodbye"):
    pass


class Status(Message, frozen=True, kw_only=True, tag="status"):
    pass


FromWorker = Hello | Append | Want | Fail | Heartbeat | Goodbye | Status


# --- server to worker -------------------------------------------------------------------------


class Welcome(Message, frozen=True, kw_only=True, tag="welcome"):
    run: str
    epoch: int
    credits: int  # unacknowledged appends allowed
    heartbeat_seconds: float
    dead_seconds: float


class Refused(Message, frozen=True, kw_only=True, tag="refused"):
    """Final: the worker should stop."""

    reason: str


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
    | Malformed
)

_encoder = msgspec.msgpack.Encoder()
_from_worker: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(FromWorker)
_to_worker: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ToWorker)


def encode(message: Message) -> bytes:
    return _encoder.encode(message)


def decode_from_worker(frame: bytes) -> FromWorker:
    """msgspec.MsgspecError when it is none of the worker's messages."""
    message: FromWorker = _from_worker.decode(frame)
    return message


def decode_to_worker(frame: bytes) -> ToWorker:
    message: ToWorker = _to_worker.decode(frame)
    return message
