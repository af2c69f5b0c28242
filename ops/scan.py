"""`mmzero log scan`: events that a filter wants, a line each, for people or for programs."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from mmzero_async.schemas.about import (
    lineages_of,
    outcomes_of,
    rewards_of,
    role_of,
    versions_of,
)
from mmzero_async.schemas.events import UnknownEvent
from mmzero_async.schemas.record import Record

_MOST = 4  # of a list in a line for people


def line(record: Record) -> str:
    """`     123 2026-11-24 10:00:00 answered         solver v3 g1.s0.d2: ok no_answer`."""
    event = record.event()
    words = [f"{record.offset:8} {_time(record):%Y-%m-%d %H:%M:%S} {record.kind:16}"]
    if role := role_of(event):
        words.append(role)
    if versions := versions_of(event):
        oldest, newest = versions
        words.append(f"v{oldest}" if oldest == newest else f"v{oldest}-{newest}")
    if lineages := lineages_of(event):
        words.append(_few(lineages))
    told = [f"{reward:.3f}" for reward in rewards_of(event)] or outcomes_of(event)
    return " ".join(words) + (f": {_few(told, len(told))}" if told else "")


def figures(record: Record) -> bytes:
    """One JSON object: the envelope, and the event with its bytes in base64."""
    event = record.event()
    envelope = record.envelope
    found: dict[str, Any] = {
        "offset": record.offset,
        "time": _time(record).isoformat(),
        "time_ns": envelope.time_ns,
        "producer": envelope.producer,
        "epoch": envelope.epoch,
        "sequence": envelope.sequence,
        "kind": record.kind,
        "event": {"body": event.body} if isinstance(event, UnknownEvent) else event,
    }
    return msgspec.json.encode(found)


def _time(record: Record) -> datetime:
    return datetime.fromtimestamp(record.envelope.time_ns / 1e9, UTC)


def _few(words: list[str], most: int = _MOST) -> str:
    text = " ".join(" ".join(word.split()) for word in words[:most])[:200]
    return text if len(words) <= most else f"{text} and {len(words) - most} more"
