"""Runs with pictures and words of their own in every lineage: what datasets are tested on."""

import io
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from builders import answered, coded, proposed, rendered, run_started
from msgspec.structs import replace
from PIL import Image

from mmzero_async.config import Config, load
from mmzero_async.log.writer import LogWriter, Submission
from mmzero_async.roles.advantages import group_advantages
from mmzero_async.roles.prompts import load_templates
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import (
    Answered,
    Coded,
    Event,
    GroupRejected,
    Proposed,
    Rendered,
    Rewarded,
    Role,
    StepCommitted,
    VersionSpan,
    encode_event,
    kind_of,
)
from mmzero_async.schemas.ids import drawing_id, indices, proposal_id
from mmzero_async.schemas.packing import pack_logprobs, pack_tokens

CONFIG = load("seedling")
TEMPLATES = load_templates(CONFIG.templates)
E = TypeVar("E", Proposed, Coded, Answered)
HARD: tuple[str | None, ...] = ("3", "3", "11", None)


def png_of(drawing: str) -> bytes:
    """One that no other drawing has."""
    seed = int.from_bytes(drawing.encode(), "big")
    image = Image.new("RGB", (24, 24), tuple(random.Random(seed).randbytes(3)))  # type: ignore[arg-type]
    image.putpixel((seed % 24, seed // 24 % 24), (0, 0, 0))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def fingerprint_of(drawing: str) -> bytes:
    return random.Random(drawing).randbytes(288)


def lineage(group: str, *, proposals: int = 2, drawings: int = 2, version: int = 0) -> list[Event]:
    """All under one prompt; the last drawing of each proposal fails when there are several."""
    events: list[Event] = [_proposed(group, proposals, version)]
    for i in range(proposals):
        proposal = proposal_id(group, i)
        events.append(_with_texts(coded(proposal, [True] * drawings, version), proposal))
        for j in range(drawings):
            drawing = drawing_id(proposal, j)
            if j and j == drawings - 1:
                events.append(rendered(drawing, ok=False))
                continue
            picture = blob_digest(png_of(drawing))
            events.append(
                replace(rendered(drawing), picture=picture, fingerprint=fingerprint_of(drawing))
            )
            for question, answers in (("easy", ["4", "4", "5", "4"]), ("hard", list(HARD))):
                said = _with_texts(answered(drawing, question, answers, version), drawing)
                generation = replace(said.generation, images=[picture])
                events.append(replace(said, generation=generation))
    return events


def _proposed(group: str, proposals: int, version: int) -> Proposed:
    event = _with_texts(proposed(group, [True] * proposals, version), group)
    outcomes = [
        replace(
            outcome,
            proposal=replace(
                outcome.proposal, caption=f"Bars of {group}, number {i}.", hard_question=f"{group}?"
            ),
        )
        for i, outcome in enumerate(event.outcomes)
    ]
    return replace(event, outcomes=outcomes, topic=f"topic of {group}")


def _with_texts(event: E, name: str) -> E:
    """Texts, tokens and log-probabilities that tell whose they are."""
    generation = event.generation
    seed = sum(indices(name)) + len(name)
    samples = [
        replace(
            sample,
            text=f"{kind_of(event)} {name} number {i}",
            token_ids=pack_tokens([seed, i, 7]),
            logprobs=pack_logprobs([-0.5, -0.25 * i, -seed / 8]),
            versions=[VersionSpan(0, 3, generation.version)],
        )
        for i, sample in enumerate(generation.samples)
    ]
    template = TEMPLATES.digest(generation.role)
    return replace(event, generation=replace(generation, samples=samples, template=template))


def trained(role: Role, groups: Sequence[str], rewards: Sequence[float], step: int) -> list[Event]:
    terms = [{"first": r / 4, "second": r - r / 4} for r in rewards]
    rewards = [sum(term.values()) for term in terms]
    return [
        *(
            Rewarded(
                role=role,
                group=group,
                rewards=rewards,
                terms=terms,
                advantages=list(map(float, group_advantages(rewards))),
                step=step,
                facts={"agreement": 1.0},
            )
            for group in groups
        ),
        StepCommitted(
            role=role,
            step=step,
            version=step,
            groups=list(groups),
            offsets=[],
            checkpoint=f"checkpoints/{role}/{step}",
            digest="d",
            batch_digest="b",
            metrics={"loss": 0.5, "reward_mean": 0.4},
        ),
    ]


def rejected(role: Role, group: str, reason: str = "stale") -> GroupRejected:
    return GroupRejected(role=role, group=group, reason=reason, detail="3 versions behind")


def story(lineages: int = 6) -> list[Event]:
    """Lineages of two versions; of the first three something was trained on, one was rejected."""
    events = [e for n in range(3) for e in lineage(f"g{n}")]
    events += trained("solver", ["g0.s0.d0", "g1.s1.d0"], [1.0, 1.0, 0.1, 0.0], 1)
    events += trained("coder", ["g0.s1"], [1.5, -0.1], 1)
    events += trained("proposer", ["g1"], [0.25, 0.75], 1)
    events.append(rejected("solver", "g2.s0.d0"))
    return events + [e for n in range(3, lineages) for e in lineage(f"g{n}", version=1)]


def write_run(folder: Path, events: Iterable[Event], config: Config = CONFIG) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json())
    (folder / "base_model").write_text("seedling")
    append(folder, [run_started(config, folder.name), *events])
    return folder


def append(run: Path, events: Iterable[Event]) -> None:
    writer = LogWriter(run / "log", run=run.name, map_gib=1, sync="nosync")
    epoch, following = writer.position("test")
    sent = []
    for sequence, event in enumerate(events, following):
        blobs = {}
        if isinstance(event, Rendered) and event.picture:
            blobs = {event.picture: png_of(event.drawing)}
            blobs = blobs if blob_digest(blobs[event.picture]) == event.picture else {}
        sent.append(
            Submission("test", epoch or 1, sequence, kind_of(event), encode_event(event), blobs)
        )
    answers = writer.append([[one] for one in sent])
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    writer.close()


def everything(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
