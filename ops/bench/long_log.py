"""A run's folder with a log of very many small events: whole lineages, trained on or rejected."""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace
from PIL import Image

from mmzero_async.config import Config
from mmzero_async.log.writer import LogWriter, Submission
from mmzero_async.ops.bench.traffic import BRANCHES, Lineage, Lineages
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import (
    Event,
    Generation,
    GroupRejected,
    PolicyPublished,
    Rewarded,
    RunStarted,
    StepCommitted,
    encode_event,
    kind_of,
)

PICTURES = 256  # different ones
AT_ONCE = 2048  # events a transaction
REWARDS = [1.0, 0.1, 1.0, 0.1][:BRANCHES]


def write_long_log(run: Path, events: int) -> int:
    """At least so many events, of whole lineages; how many they became."""
    run.mkdir()
    config = Config()
    (run / "config.json").write_text(config.to_json())
    writer = LogWriter(run / "log", run=run.name, sync="nosync")
    pictures = {blob_digest(picture): picture for picture in map(_png, range(PICTURES))}
    sequence = itertools.count()
    held: list[Submission] = []
    for event, blob in _events(run.name, config, list(pictures)):
        number = next(sequence)
        # A blob is stored once; its other events name it.
        blobs = {blob: pictures.pop(blob)} if blob in pictures else {}
        held.append(Submission("bench", 1, number, kind_of(event), encode_event(event), blobs))
        if len(held) == AT_ONCE:
            _append(writer, held)
            held = []
        if number + 1 >= events and isinstance(event, GroupRejected) and event.role == "proposer":
            break
    _append(writer, held)
    found = writer.next_offset
    writer.close()
    return found


def _append(writer: LogWriter, held: list[Submission]) -> None:
    if not held:
        return
    [answer] = writer.append([held])
    if isinstance(answer, Exception):
        raise answer


def _events(run: str, config: Config, digests: list[str]) -> Iterator[tuple[Event, str]]:
    """Each with the digest of the picture that it brings, or nothing."""
    yield _started(run, config), ""
    make = Lineages()
    for step in itertools.count(1):
        lineage = _small(make.make(step - 1))
        yield from _made(lineage, digests, step)
        groups = [rendered.drawing for rendered, _ in lineage.rendered]
        for group in groups:
            yield _rewarded(group, step), ""
        yield _committed(step, groups), ""
        yield (
            PolicyPublished(
                role="solver", version=step, policy=f"solver@{step}", checkpoint="c", digest="d"
            ),
            "",
        )
        for coded in lineage.coded:
            yield GroupRejected(role="coder", group=coded.proposal, reason="stale"), ""
        yield GroupRejected(role="proposer", group=lineage.proposed.group, reason="stale"), ""


def _made(lineage: Lineage, digests: list[str], prompt: int) -> Iterator[tuple[Event, str]]:
    yield lineage.proposed, ""
    for coded in lineage.coded:
        yield coded, ""
    for i, (rendered, _) in enumerate(lineage.rendered):
        digest = digests[(prompt * len(lineage.rendered) + i) % len(digests)]
        yield replace(rendered, picture=digest), digest
    for answered in lineage.answered:
        yield answered, ""


def _small(lineage: Lineage) -> Lineage:
    """With generations of a few tokens."""
    return Lineage(
        replace(lineage.proposed, generation=_cut(lineage.proposed.generation)),
        [replace(coded, generation=_cut(coded.generation)) for coded in lineage.coded],
        lineage.rendered,
        [replace(answered, generation=_cut(answered.generation)) for answered in lineage.answered],
    )


def _cut(generation: Generation) -> Generation:
    samples = [
        replace(s, token_ids=s.token_ids[:32], logprobs=s.logprobs[:32], text=s.text[:40])
        for s in generation.samples
    ]
    return replace(generation, samples=samples, prompt_token_ids=b"")


def _started(run: str, config: Config) -> RunStarted:
    return RunStarted(
        run=run,
        config=config.to_json(),
        config_digest=config.digest(),
        base_model="x",
        base_digest="x",
        seed=1,
        code_version="0",
    )


def _rewarded(group: str, step: int) -> Rewarded:
    return Rewarded(
        role="solver",
        group=group,
        rewards=REWARDS,
        terms=[{"answer": reward} for reward in REWARDS],
        advantages=REWARDS,
        step=step,
    )


def _committed(step: int, groups: list[str]) -> StepCommitted:
    return StepCommitted(
        role="solver",
        step=step,
        version=step,
        groups=groups,
        offsets=[],
        checkpoint="c",
        digest="d",
        batch_digest="b",
        metrics={"loss": 1 / step, "ess_share": 0.9},
    )


def _png(number: int) -> bytes:
    buffer = io.BytesIO()
    colour = (number % 256, number * 7 % 256, number * 31 % 256)
    Image.new("RGB", (64, 64), colour).save(buffer, "PNG")
    return buffer.getvalue()
