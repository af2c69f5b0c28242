"""A dashboard over a log of a test's own, and what a hostile model would write into it."""

import contextlib
import io
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from aiohttp.test_utils import TestClient, TestServer
from builders import PROPOSAL, run_started, step, whole_tree
from log_builders import rewarded
from msgspec.structs import replace
from PIL import Image, ImageDraw

from mmzero_async.config import Config, from_json, load
from mmzero_async.log.reader import LogReader
from mmzero_async.log.writer import LogWriter, Submission
from mmzero_async.ops.ui.live import asking
from mmzero_async.ops.ui.server import Ui
from mmzero_async.ops.ui.shared import Shared
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import (
    Answered,
    Coded,
    Event,
    GroupRejected,
    Proposal,
    Proposed,
    Rendered,
    encode_event,
    kind_of,
)

CONFIG = load("seedling", ["learner.solver.groups=2", "learner.coder.groups=100"])
HOSTILE = (
    '<script>window.hacked = "script"</script>',
    '"><img src=x onerror="window.hacked = 1">',
    "<svg onload=\"window.hacked = 'svg'\"><animate onbegin=alert(1) attributeName=x></svg>",
    "</script></style></textarea><iframe srcdoc='<script>parent.hacked=1</script>'></iframe>",
    "javascript:alert(document.cookie) {{constructor.constructor('alert(1)')()}} ${alert(1)}",
    'data: x\n\nevent: state\ndata: {"run": "forged"}\n\n\u2028\u2029\u202etxt.exe\x00\x1b[31m',
)


def png(number: int, size: int = 96) -> bytes:
    """A picture of its own for every number."""
    rng = random.Random(number)
    image = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(image)
    for i in range(4):
        colour = tuple(rng.randrange(40, 230) for _ in range(3))
        draw.rectangle((8 + 21 * i, rng.randrange(10, 80), 24 + 21 * i, 88), fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def saying(events: Sequence[Event], proposal: Proposal) -> list[Event]:
    """The same events with another proposal, and its words in every text that a model wrote."""
    found: list[Event] = []
    for event in events:
        match event:
            case Proposed():
                outcomes = [replace(outcome, proposal=proposal) for outcome in event.outcomes]
                found.append(replace(event, outcomes=outcomes, topic=proposal.caption))
            case Answered() | Coded():
                samples = [replace(s, text=proposal.caption) for s in event.generation.samples]
                generation = replace(event.generation, samples=samples)
                found.append(replace(event, generation=generation))
            case _:
                found.append(event)
    return found


def captioned(caption: str, **changes: str) -> Proposal:
    return replace(PROPOSAL, caption=caption, **changes)


def hostile_tree(group: str) -> list[Event]:
    """A tree in which everything that a model may write is an attack."""
    text = " ".join(HOSTILE)
    words = dict.fromkeys(["easy_question", "easy_answer", "hard_question", "hard_answer"], text)
    events = saying(
        whole_tree(group, proposals=1, drawings=1, hard=[*HOSTILE[:3], None]),
        captioned(text, content_type=HOSTILE[1], **words),
    )
    return [
        replace(e, outcomes=[replace(o, svg=HOSTILE[2]) for o in e.outcomes])
        if isinstance(e, Coded)
        else e
        for e in events
    ]


def ordinary(trees: int, first: int = 0) -> list[Event]:
    """Trees of which every other one's solver groups are trained on, the others rejected."""
    events: list[Event] = []
    for i in range(first, first + trees):
        caption = f"Bar chart number {i} with {['red', 'blue'][i % 2]} bars."
        kind = ["data_chart", "geometry"][i % 2]
        tree = whole_tree(f"g{i}", proposals=1, drawings=2)
        events += saying(tree, captioned(caption, content_type=kind))
        solver = [f"g{i}.s0.d0", f"g{i}.s0.d1"]
        if i % 2:
            events += [GroupRejected(role="solver", group=g, reason="stale") for g in solver]
        else:
            events += [rewarded(group, [1.0, 1.0, 0.1, 0.1]) for group in solver]
            events.append(step("solver", i // 2 + 1, solver))
    return events


class Feeder:
    """A run's folder and the one who writes its log."""

    def __init__(self, folder: Path, config: Config = CONFIG) -> None:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(config.to_json())
        self.folder, self.config = folder, config
        self.writer = LogWriter(folder / "log", run=folder.name, map_gib=1, sync="nosync")
        self._sequence = 0
        self.pictures: dict[str, bytes] = {}  # by digest
        self.write([run_started(config, folder.name)])

    def write(self, events: Sequence[Event], blob: bytes | None = None) -> None:
        """Every picture's blob is its own, unless one is given for all."""
        messages = []
        for event in events:
            blobs = {}
            if isinstance(event, Rendered) and event.picture is not None:
                data = png(self._sequence) if blob is None else blob
                event = replace(event, picture=blob_digest(data))
                blobs = {str(event.picture): data}
                self.pictures |= blobs
            body = encode_event(event)
            messages.append([Submission("t", 1, self._sequence, kind_of(event), body, blobs)])
            self._sequence += 1
        for at in range(0, len(messages), 100):
            for answer in self.writer.append(messages[at : at + 100]):
                assert not isinstance(answer, Exception), answer


@contextlib.contextmanager
def fed(folder: Path, events: Sequence[Event] = (), config: Config = CONFIG) -> Iterator[Feeder]:
    feeder = Feeder(folder, config)
    feeder.write(events)
    try:
        yield feeder
    finally:
        feeder.writer.close()


@contextlib.asynccontextmanager
async def dashboard(
    run: Path, reader: LogReader | None = None, token: str = ""
) -> AsyncIterator[TestClient]:
    """Over a run's folder; with a reader of one's own, who writes in this process may go on."""
    opened = reader or LogReader.open(run / "log")
    config = from_json((run / "config.json").read_text())
    ui = Ui(Shared(opened), config, asking(run, config), token)
    try:
        async with TestClient(TestServer(ui.app())) as client:
            yield client
    finally:
        if reader is None:
            opened.close()
