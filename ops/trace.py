"""One lineage from proposal to gradient step, told from the log alone."""

import re
from collections.abc import Iterator
from pathlib import Path

from mmzero_async.log.errors import BlobDropped, BlobMissing, LogError
from mmzero_async.log.interface import View
from mmzero_async.log.where import Where
from mmzero_async.projections.copies import Copies
from mmzero_async.projections.settings import settings_of
from mmzero_async.projections.spans import Span, spans
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import (
    Answered,
    AnyEvent,
    Coded,
    Generation,
    GroupRejected,
    Probed,
    Proposed,
    Rendered,
    Rewarded,
    RunStarted,
    StepCommitted,
    WorkAbandoned,
)
from mmzero_async.schemas.ids import indices, related, root
from mmzero_async.schemas.record import Record


def concerns(event: AnyEvent, lineage: str) -> bool:
    """Whether an event is about the id itself, what it came from, or what came of it."""
    match event:
        case Proposed():
            about = event.group
        case Coded():
            about = event.proposal
        case Rendered() | Answered() | Probed():
            about = event.drawing
        case Rewarded() | GroupRejected():
            about = event.group
        case WorkAbandoned():
            about = event.work.split("/")[1]
        case StepCommitted():
            return any(related(group, lineage) for group in event.groups)
        case _:
            return False
    return related(about, lineage)


def copies(reader: View) -> dict[str, str]:
    """drawing -> the earlier one that it looks like, of the whole run: whose it is, only the other
    pictures can say."""
    seen, found = Copies(), {}
    for record in reader.scan(where=Where(kinds=("run_started", "rendered"))):
        event = record.event()
        match event:
            case RunStarted():
                seen = Copies.of(settings_of(event).shortcuts)
            case Rendered():
                found[event.drawing] = seen.see(event)
            case _:
                pass
    return found


def picture_named(text: str) -> str | None:
    """The digest that a PNG file has, or a digest's beginning as it stands; None for an id."""
    if text.lower().endswith(".png"):
        return blob_digest(Path(text).read_bytes())
    return text if re.fullmatch(r"[0-9a-f]{8,64}", text) else None


def drawing_of(reader: View, picture: str) -> str:
    """The first drawing that became a picture whose digest begins so. LogError for none."""
    for record in reader.scan(where=Where(kinds=("rendered",))):
        event = record.event()
        if isinstance(event, Rendered) and (event.picture or "").startswith(picture):
            return event.drawing
    raise LogError(f"no picture of run {reader.run} has digest {picture}")


def records(reader: View, lineage: str) -> Iterator[Record]:
    """What concerns a lineage, in the log's order. ValueError for something that is no id."""
    indices(lineage)
    # What it came from lies under the same root, and that is what the log's index knows.
    for record in reader.scan(where=Where(lineages=(root(lineage),))):
        if concerns(record.event(), lineage):
            yield record


def trace(reader: View, lineage: str) -> Iterator[str]:
    """Lines for people. ValueError for something that is no lineage id."""
    indices(lineage)
    looks_like = copies(reader)
    for record in records(reader, lineage):
        event = record.event()
        earlier = looks_like.get(event.drawing) if isinstance(event, Rendered) else None
        copied = [f"  shortcut copy: looks like {earlier}"] if earlier else []
        for i, line in enumerate([*_tell(event, lineage), *copied]):
            yield f"{record.offset:8} {line}" if i == 0 else f"{'':8} {line}"
        if isinstance(event, Rendered) and event.picture is not None:
            yield from (f"{'':8}   {line}" for line in _absence(reader, event.picture))


def spans_of(reader: View, lineage: str) -> list[Span]:
    """The same as a trace's spans. ValueError for something that is no lineage id."""
    indices(lineage)
    records = reader.scan(where=Where(lineages=(root(lineage),)))
    return spans((r for r in records if concerns(r.event(), lineage)), lineage)


def _absence(reader: View, picture: str) -> Iterator[str]:
    """What became of a picture that the log does not hold any more."""
    if reader.has_blob(picture):
        return
    try:
        reader.blob(picture)
    except (BlobDropped, BlobMissing) as error:
        yield str(error.args[0])


def _tell(event: AnyEvent, lineage: str) -> Iterator[str]:
    match event:
        case Proposed():
            yield f"proposed {event.group} about {event.topic!r} {_by(event.generation)}"
            for i, outcome in enumerate(event.outcomes):
                if not related(f"{event.group}.s{i}", lineage):
                    continue
                p = outcome.proposal
                if p is None:
                    yield f"  s{i} not parsed: {outcome.failure}"
                else:
                    yield f"  s{i} [{p.content_type}] {p.caption}"
                    yield f"     easy: {p.easy_question} -> {p.easy_answer}"
                    yield f"     hard: {p.hard_question} -> {p.hard_answer}"
        case Coded():
            drawn = sum(outcome.found for outcome in event.outcomes)
            yield (
                f"coded    {event.proposal}: {drawn} of {len(event.outcomes)} drawings "
                f"{_by(event.generation)}"
            )
        case Rendered():
            what = f"picture {event.picture[:12]}" if event.picture else f"failed: {event.failure}"
            yield f"rendered {event.drawing}: {what} {event.detail}".rstrip()
            for finding in event.findings:
                yield f"  shortcut {finding.detector}: {finding.detail}"
            if event.not_applicable:
                yield f"  shortcuts not looked for: {', '.join(event.not_applicable)}"
        case Answered():
            answers = [outcome.answer or "-" for outcome in event.outcomes]
            yield (
                f"answered {event.drawing} {event.question}: {', '.join(answers)} "
                f"{_by(event.generation)}"
            )
        case Probed():
            answers = [outcome.answer or "-" for outcome in event.outcomes]
            shown = "no picture" if event.without == "none" else f"picture {event.other[:12]}"
            yield (
                f"probed   {event.drawing} {event.question} with {shown}: {', '.join(answers)}; "
                f"{event.agreed} of {len(answers)} agree with {event.silver!r} "
                f"({event.sighted:.0%} with the picture) {_by(event.generation)}"
            )
        case Rewarded():
            rewards = ", ".join(f"{reward:.3f}" for reward in event.rewards)
            yield f"rewarded {event.role} group {event.group}: {rewards} in step {event.step}"
        case GroupRejected():
            yield f"rejected {event.role} group {event.group}: {event.reason}, {event.detail}"
        case WorkAbandoned():
            yield f"abandoned {event.work} after {event.attempts}: {event.reason}"
        case StepCommitted():
            yield (
                f"trained  {event.role} step {event.step} -> version {event.version}, "
                f"loss {event.metrics.get('loss', 0.0):.5f}, {event.checkpoint}"
            )
        case _:
            return


def _by(generation: Generation) -> str:
    return f"by {generation.policy}"
