"""One prompt's tree as a trace: a span for each thing that was done, from the log's events alone.

    lineage g3 -> propose -> code g3.s0 -> render g3.s0.d1 -> answer g3.s0.d1/hard -> train solver

An event is written when its work is done and says how long that took: a span ends at the event's
time. A step is a span below the group that it was trained on, once for each such group.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mmzero_async.schemas.events import (
    Answered,
    Coded,
    Generation,
    GroupRejected,
    Probed,
    Proposed,
    Rendered,
    StepCommitted,
    WorkAbandoned,
)
from mmzero_async.schemas.ids import parent, related, root
from mmzero_async.schemas.record import Record

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Span:
    """`id` names it within its run, the same whenever it is made; `parent` is empty at the root."""

    id: str
    parent: str
    name: str
    start_ns: int  # unix time, of the log server's clock
    end_ns: int
    attributes: dict[str, Value] = field(default_factory=dict)
    error: str = ""  # what went wrong, if anything did


def spans(records: Iterable[Record], lineage: str) -> list[Span]:
    """Of the events that concern a lineage, in the order of the log; its root first, spanning all.

    Empty when there are none.
    """
    tree = root(lineage)
    found = [span for record in records for span in _spans(record, lineage)]
    if not found:
        return []
    known = {span.id for span in found}
    below = [_under(span, known, tree) for span in found]
    start, end = min(s.start_ns for s in below), max(s.end_ns for s in below)
    return [Span(tree, "", f"lineage {tree}", start, end, {"mmzero.lineage": tree}), *below]


def trace_id(run: str, lineage: str) -> int:
    """128 bits, the same for all of a prompt's tree."""
    return _number(16, run, root(lineage))


def span_id(run: str, span: Span) -> int:
    """64 bits."""
    return _number(8, run, span.id)


def _number(size: int, *parts: str) -> int:
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return int.from_bytes(digest[:size]) or 1  # all zeros is no id


def _under(span: Span, known: set[str], tree: str) -> Span:
    """Below its parent, or below the root when that is not told of."""
    if span.parent in known:
        return span
    return Span(span.id, tree, span.name, span.start_ns, span.end_ns, span.attributes, span.error)


def _spans(record: Record, lineage: str) -> Iterator[Span]:
    event, end = record.event(), record.envelope.time_ns
    common: dict[str, Value] = {
        "mmzero.offset": record.offset,
        "mmzero.worker": record.envelope.producer,
    }
    match event:
        case Proposed():
            failed = sum(outcome.proposal is None for outcome in event.outcomes)
            more: dict[str, Value] = {"mmzero.topic": event.topic, "mmzero.not_parsed": failed}
            yield _generated("propose", event.group, "", event.generation, end, common | more)
        case Coded():
            above = f"propose/{root(event.proposal)}"
            yield _generated("code", event.proposal, above, event.generation, end, common)
        case Rendered():
            yield Span(
                f"render/{event.drawing}",
                f"code/{parent(event.drawing)}",
                f"render {event.drawing}",
                end - _ns(event.seconds),
                end,
                common | {"mmzero.renderer": event.renderer, "mmzero.picture": event.picture or ""},
                error=event.failure and f"{event.failure} {event.detail}".strip(),
            )
        case Answered() | Probed():
            stage = "answer" if isinstance(event, Answered) else "probe"
            target = f"{event.drawing}/{event.question}"
            above = f"render/{event.drawing}"
            yield _generated(stage, target, above, event.generation, end, common)
        case StepCommitted():
            for group in event.groups:
                if related(group, lineage):
                    yield _step(event, group, end, common)
        case GroupRejected():
            why = f"{event.reason} {event.detail}".strip()
            yield Span(
                f"reject/{event.role}/{event.group}",
                _maker(event.role, event.group),
                f"reject {event.role} {event.group}",
                end,
                end,
                common,
                error=why,
            )
        case WorkAbandoned():
            yield Span(
                f"abandon/{event.work}",
                event.work,
                f"abandon {event.work}",
                end,
                end,
                common | {"mmzero.attempts": event.attempts},
                error=event.reason,
            )
        case _:
            pass


def _generated(
    stage: str,
    target: str,
    above: str,
    generation: Generation,
    end: int,
    common: dict[str, Value],
) -> Span:
    attributes: dict[str, Value] = common | {
        "mmzero.policy": generation.policy,
        "mmzero.version": generation.version,
        "mmzero.samples": len(generation.samples),
        "mmzero.tokens": sum(len(sample.token_ids) // 4 for sample in generation.samples),
        "mmzero.engine": generation.engine,
    }
    start = end - _ns(generation.seconds)
    return Span(f"{stage}/{target}", above, f"{stage} {target}", start, end, attributes)


def _step(event: StepCommitted, group: str, end: int, common: dict[str, Value]) -> Span:
    return Span(
        f"train/{event.role}/{event.step}/{group}",
        _maker(event.role, group),
        f"train {event.role} step {event.step}",
        end - _ns(event.metrics.get("seconds", 0.0)),
        end,
        common
        | {
            "mmzero.group": group,
            "mmzero.version": event.version,
            "mmzero.groups": len(event.groups),
            "mmzero.loss": event.metrics.get("loss", 0.0),
        },
    )


def _maker(role: str, group: str) -> str:
    """The span whose samples the group is."""
    stage = {"proposer": "propose", "coder": "code"}.get(role)
    return f"{stage}/{group}" if stage else f"answer/{group}/hard"


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
