"""A run's folder with a log of lineages, each with a picture and words of its own, for benches.

A lineage is one prompt with one proposal, one drawing and two questions of four answers each: five
events and a PNG of 256 x 256 pixels with bars, lines and a textured ground, some 11 kB.
"""

import io
import random
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from msgspec.structs import replace
from PIL import Image, ImageDraw

from mmzero_async.config import load
from mmzero_async.log.writer import LogWriter, Submission
from mmzero_async.roles.prompts import load_templates
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import (
    Answered,
    AnswerOutcome,
    Coded,
    DrawingOutcome,
    Event,
    Generation,
    Proposal,
    ProposalOutcome,
    Proposed,
    Rendered,
    Role,
    RunStarted,
    Sample,
    Sampling,
    VersionSpan,
    encode_event,
    kind_of,
)
from mmzero_async.schemas.packing import pack_logprobs, pack_tokens

PIXELS, DRAWN = 256, 64  # different pictures that are drawn; a chunk in each makes it unlike others
ANSWERS, TOKENS = 4, 64
BATCH = 512
END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
SVG = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 256 256'>" + "<rect/>" * 40 + "</svg>"
_TEMPLATES = load_templates("mmzero")


def write_log(run: Path, lineages: int) -> None:
    """The same log for the same number of lineages, but for its times."""
    run.mkdir(parents=True)
    config = load("seedling", ["templates=mmzero"])
    (run / "config.json").write_text(config.to_json())
    started = RunStarted(
        run=run.name,
        config=config.to_json(),
        config_digest=config.digest(),
        base_model="none",
        base_digest="none",
        seed=1,
        code_version="bench",
    )
    writer = LogWriter(run / "log", run=run.name, map_gib=256, sync="nosync")
    sequence = 0
    events = _events(started, lineages)
    while some := list(islice(events, BATCH)):
        sent = []
        for event, blobs in some:
            sent.append(
                Submission("bench", 1, sequence, kind_of(event), encode_event(event), blobs)
            )
            sequence += 1
        for answer in writer.append([sent]):
            if isinstance(answer, Exception):
                raise answer
    writer.close()


def _events(started: RunStarted, lineages: int) -> Iterator[tuple[Event, dict[str, bytes]]]:
    rng = random.Random(7)
    pictures = [_picture(rng) for _ in range(DRAWN)]
    said = {role: _generation(role, rng) for role in ("proposer", "coder", "solver")}
    yield started, {}
    for number in range(lineages):
        group = f"g{number}"
        proposal = Proposal(
            content_type="data_chart",
            caption=f"Chart {number}: " + "bars of several colours with labels and a legend, " * 6,
            easy_question=f"What is the value of bar {number % 9} in chart {number}?",
            easy_answer="4",
            hard_question=f"By how much does the tallest bar of chart {number} exceed the mean?",
            hard_answer="3",
        )
        yield (
            Proposed(
                group=group,
                topic="charts",
                seed=number,
                generation=said["proposer"],
                outcomes=[ProposalOutcome(proposal=proposal)],
            ),
            {},
        )
        coded = Coded(
            proposal=f"{group}.s0",
            generation=said["coder"],
            outcomes=[DrawingOutcome(svg=SVG)],
        )
        yield coded, {}
        png = _own(pictures[number % DRAWN], number)
        digest, drawing = blob_digest(png), f"{group}.s0.d0"
        rendered = Rendered(
            drawing=drawing,
            renderer="bench",
            picture=digest,
            width=PIXELS,
            height=PIXELS,
            fingerprint=rng.randbytes(288),
            structure=rng.randbytes(128),
        )
        yield rendered, {digest: png}
        solver = replace(said["solver"], images=[digest])
        for question, answers in (("easy", "4454"), ("hard", "3317")):
            outcomes = [AnswerOutcome(answer=a, format_ok=True) for a in answers]
            answered = Answered(
                drawing=drawing,
                question="easy" if question == "easy" else "hard",
                generation=solver,
                outcomes=outcomes,
            )
            yield answered, {}


def _generation(role: str, rng: random.Random) -> Generation:
    found: dict[str, Role] = {"proposer": "proposer", "coder": "coder", "solver": "solver"}
    samples = [
        Sample(
            token_ids=pack_tokens([rng.randrange(30_000) for _ in range(TOKENS)]),
            logprobs=pack_logprobs([-rng.random() for _ in range(TOKENS)]),
            versions=[VersionSpan(0, TOKENS, 3)],
            text="<think>" + "The bars are read one by one. " * 8 + "</think>\\boxed{3}",
            finish_reason="stop",
        )
        for _ in range(ANSWERS if role == "solver" else 1)
    ]
    return Generation(
        role=found[role],
        policy=f"{role}@3",
        version=3,
        prompt_token_ids=pack_tokens([rng.randrange(30_000) for _ in range(2 * TOKENS)]),
        sampling=Sampling(temperature=1.0, max_tokens=256),
        template=_TEMPLATES.digest(found[role]),
        samples=samples,
    )


def _picture(rng: random.Random) -> bytes:
    ground = Image.frombytes(
        "L", (PIXELS, PIXELS), bytes(rng.choices(range(236, 244), k=PIXELS**2))
    )
    image = Image.merge("RGB", (ground, ground, ground))
    draw = ImageDraw.Draw(image)
    for bar in range(12):
        top = rng.randrange(20, 230)
        colour = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
        draw.rectangle((10 + 20 * bar, top, 22 + 20 * bar, 245), fill=colour, outline=(0, 0, 0))
    draw.rectangle((0, 0, PIXELS, 140), fill=(255, 255, 255))
    draw.line([(x, rng.randrange(20, 130)) for x in range(8, 250, 10)], fill=(200, 30, 30), width=2)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _own(png: bytes, number: int) -> bytes:
    """The picture with a text chunk of its own: a PNG still, and another digest."""
    body = b"tEXt" + f"number\0{number}".encode()
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png.removesuffix(END) + chunk + END
