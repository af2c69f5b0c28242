"""What a worker wants appended, checked before it comes near the log: trust nobody.

Knows no sockets and keeps nothing. What passes here can be stored, replayed and projected.
"""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mmzero_async.log.writer import Submission
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import AnyEvent, Rendered, UnknownEvent, decode_event, kind_of
from mmzero_async.schemas.ids import indices
from mmzero_async.schemas.work import BLIND, STAGES, completes
from mmzero_async.transport.errors import BadMessage
from mmzero_async.transport.messages import Append

_DEPTH = dict(zip(STAGES, (1, 2, 3, 3), strict=True))  # numbers in the ids of a stage's targets


@dataclass(slots=True)
class Received:
    """One worker's message, decoded, on its way into the next commit."""

    identity: bytes | None  # None: the server's own
    sequence: int
    events: list[AnyEvent]
    submissions: list[Submission]

    @property
    def producer(self) -> str:
        return self.submissions[0].producer

    def told(self) -> dict[str, Any]:
        """Whose it is, for a log line."""
        return {
            "worker": self.producer,
            "epoch": self.submissions[0].epoch,
            "sequence": self.sequence,
            "events": len(self.submissions),
        }

    def drop(self, superseded: list[bool]) -> None:
        """Drops the events marked so; the blobs go with the first event that stays."""
        if superseded == [submission.drop for submission in self.submissions]:
            return
        blobs = self.submissions[0].blobs
        self.submissions = [
            dataclasses.replace(submission, drop=drop, blobs={})
            for submission, drop in zip(self.submissions, superseded, strict=True)
        ]
        if not all(superseded):
            first = superseded.index(False)
            self.submissions[first] = dataclasses.replace(self.submissions[first], blobs=blobs)


def read_append(
    message: Append,
    frames: list[bytes],
    *,
    identity: bytes,
    producer: str,
    epoch: int,
    has_blob: Callable[[str], bool],
) -> Received:
    """The events of a message and their submissions. BadMessage says what is wrong with it."""
    if not message.bodies or len(message.bodies) != len(message.kinds):
        raise BadMessage("an append needs as many kinds as bodies, and at least one")
    blobs = _blobs(message.blobs, frames)
    events = [_event(*pair) for pair in zip(message.kinds, message.bodies, strict=True)]
    for event in events:
        picture = event.picture if isinstance(event, Rendered) else None
        if picture is not None and picture not in blobs and not has_blob(picture):
            raise BadMessage(f"the picture {picture[:80]} that the event names is missing")
    submissions = [
        Submission(producer, epoch, message.sequence + i, kind, body, {} if i else blobs)
        for i, (kind, body) in enumerate(zip(message.kinds, message.bodies, strict=True))
    ]
    return Received(identity, message.sequence, events, submissions)


def mark_superseded(
    batch: Iterable[Received],
    position: Callable[[str], tuple[int, int]],
    admits: Callable[[AnyEvent], bool],
) -> None:
    """Drops events whose work is settled, in the log or earlier in this batch.

    Only a message that is next in its producer's sequence counts: one sent again gets its earlier
    answer and one out of sequence is refused, so neither settles anything.

    Args:
        position: a producer's epoch and the sequence that the log has next from it.
        admits: whether an event's work is open as far as the log says.
    """
    settling: set[str] = set()
    following: dict[str, tuple[int, int]] = {}
    for received in batch:
        first = received.submissions[0]
        if (first.epoch, first.sequence) != (
            following.get(first.producer) or position(first.producer)
        ):
            continue
        following[first.producer] = (first.epoch, first.sequence + len(received.submissions))
        superseded = []
        for event in received.events:
            key = completes(event)
            superseded.append(key in settling or not admits(event))
            if key is not None:
                settling.add(key)
        received.drop(superseded)


def _blobs(digests: list[str], frames: list[bytes]) -> dict[str, bytes]:
    if len(frames) != len(digests):
        raise BadMessage(f"{len(digests)} blobs named, {len(frames)} sent")
    for digest, data in zip(digests, frames, strict=True):
        if blob_digest(data) != digest:
            raise BadMessage(f"blob {digest[:80]} does not match its digest")
    return dict(zip(digests, frames, strict=True))


def _event(kind: str, body: bytes) -> AnyEvent:
    try:
        event = decode_event(kind, body)
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"not a valid {kind} event: {error}") from error
    if not isinstance(event, UnknownEvent) and kind_of(event) != kind:
        raise BadMessage(f"an event of kind {kind_of(event)} was sent as {kind}")
    key = completes(event)
    if key is not None:
        _check_key(key)
    return event


def _check_key(key: str) -> None:
    """A key like `code/g1.s0`, whose target is an id of the stage's depth."""
    stage, _, rest = key.partition("/")
    target, _, question = rest.removesuffix(BLIND if stage == "answer" else "").partition("/")
    try:
        fits = len(indices(target)) == _DEPTH[stage]  # type: ignore[index]
        fits = fits and question in (("easy", "hard") if stage == "answer" else ("",))
    except (KeyError, ValueError):
        fits = False
    if not fits:
        raise BadMessage(f"{key[:80]!r} names no piece of work")
