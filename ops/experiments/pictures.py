"""Five pictures of each kind of finding in some runs, for people to look at: PNGs and a listing.

A kind is a shortcut's detector, or a question that was answered blindly as with its picture.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmzero_async.log.errors import BlobDropped, BlobMissing
from mmzero_async.log.interface import Reader
from mmzero_async.log.reader import LogReader
from mmzero_async.log.where import Where
from mmzero_async.ops.trace import copies
from mmzero_async.schemas.events import Probed, Proposal, Proposed, Rendered
from mmzero_async.schemas.ids import parent, proposal_id

EACH = 5
BLINDLY = 0.5  # share of blind answers that agree with the silver one, at least
_TELLING = Where(kinds=("proposed", "rendered", "probed"))


@dataclass(frozen=True, slots=True)
class Found:
    """One finding in one picture."""

    run: Path
    drawing: str  # lineage id
    picture: str  # digest
    detail: str


def pick(runs: Sequence[Path], out: Path, each: int = EACH) -> Path:
    """Writes `<kind>-<n>.png` and `listing.md` into `out`; returns the listing. Which ones is
    drawn by lot, the same one every time. A picture that compaction dropped is listed without."""
    found: dict[str, list[Found]] = defaultdict(list)
    readers = {run: LogReader.open(run / "log") for run in runs}
    try:
        for run, reader in readers.items():
            _collect(run, reader, found)
        out.mkdir(parents=True, exist_ok=True)
        lines = ["| kind | file | run | lineage id | detail |", "| --- | --- | --- | --- | --- |"]
        for kind, hits in sorted(found.items()):
            chosen = random.Random(kind).sample(hits, min(each, len(hits)))
            for number, hit in enumerate(chosen, start=1):
                name = f"{kind}-{number}.png"
                try:
                    (out / name).write_bytes(readers[hit.run].blob(hit.picture))
                except (BlobDropped, BlobMissing) as error:
                    name = f"none: {error}"
                row = [f"{kind} ({len(hits)})", name, hit.run.name, hit.drawing, hit.detail]
                lines.append(f"| {' | '.join(map(_cell, row))} |")
    finally:
        for reader in readers.values():
            reader.close()
    listing = out / "listing.md"
    listing.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return listing


def _collect(run: Path, reader: Reader, found: dict[str, list[Found]]) -> None:
    proposals: dict[str, Proposal] = {}
    pictures: dict[str, str] = {}
    for record in reader.scan(where=_TELLING):
        match record.event():
            case Proposed() as event:
                for i, outcome in enumerate(event.outcomes):
                    if outcome.proposal is not None:
                        proposals[proposal_id(event.group, i)] = outcome.proposal
            case Rendered(picture=str() as picture) as event:
                pictures[event.drawing] = picture
                for finding in event.findings:
                    found[finding.detector].append(
                        Found(run, event.drawing, picture, finding.detail)
                    )
            case Probed() as event if _answered_blindly(event):
                proposal = proposals[parent(event.drawing)]
                asked = getattr(proposal, f"{event.question}_question")
                shown = "no picture" if event.without == "none" else "another picture"
                detail = (
                    f"{asked} {event.agreed} of {len(event.outcomes)} said {event.silver} with "
                    f"{shown}, {event.sighted:.0%} with this one"
                )
                hit = Found(run, event.drawing, pictures[event.drawing], detail)
                found[f"blind_{event.question}"].append(hit)
            case _:
                pass
    for drawing, earlier in copies(reader).items():
        if earlier:
            found["copy"].append(Found(run, drawing, pictures[drawing], f"looks like {earlier}"))


def _answered_blindly(event: Probed) -> bool:
    said = event.silver is not None and bool(event.outcomes)
    return said and event.agreed / len(event.outcomes) >= BLINDLY


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
