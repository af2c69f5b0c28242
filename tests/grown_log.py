"""A log in memory with the pipeline over it, and trees of many fates to fill it with."""

import random

from builders import answered, coded, proposed, rendered, run_started

from mmzero_async.config import Config, load
from mmzero_async.learner.scoring import Scored, score
from mmzero_async.projections.lineage import CompleteGroup
from mmzero_async.projections.pipeline import Pipeline
from mmzero_async.roles.filters import Rejection
from mmzero_async.schemas.events import Event, Role

OPEN = ["filters.coder_render_rate=[0.0, 1.0]"]
SMALL = [*OPEN, *(f"learner.{role}.groups=2" for role in ("proposer", "coder", "solver"))]
CONFIG = load(overrides=SMALL)


class Log:
    """A log in memory, the pipeline over it, and the lookup that a learner would have."""

    def __init__(self, events: list[Event] | None = None) -> None:
        self.events: list[Event] = []
        self.pipeline = Pipeline()
        self.add(*(events or []))

    def add(self, *events: Event) -> None:
        for event in events:
            self.pipeline.apply(len(self.events), event)
            self.events.append(event)

    def of(self, group: CompleteGroup) -> list[Event]:
        return [self.events[offset] for offset in group.offsets]

    def ready(self, role: Role, group: str) -> CompleteGroup:
        return self.pipeline.book.ready[role][group]

    def score(self, role: Role, group: str, config: Config = CONFIG) -> Scored | Rejection:
        found = self.ready(role, group)
        return score(found, self.of(found), config)


def log_of(config: Config, *events: Event) -> Log:
    return Log([run_started(config, "r"), *events])


def picture(drawing: str, easy: list[str | None], hard: list[str | None]) -> list[Event]:
    return [rendered(drawing), answered(drawing, "easy", easy), answered(drawing, "hard", hard)]


def varied_tree() -> list[Event]:
    """Two parsed proposals of three: one with a picture of each kind, one with none."""
    return [
        proposed("g0", [True, True, False]),
        coded("g0.s0", [True, True, True, False]),
        # s = 3/4; hard: 3 3 11 4, c = 2/4, d = .5
        *picture("g0.s0.d0", ["4", "four", "4.0", "5"], ["3", "3", "11", "4"]),
        # s = 1/4; hard: all alike, c = 1, d = 0
        *picture("g0.s0.d1", ["4", "5", "6", None], ["3", "3.0", "three", "3"]),
        rendered("g0.s0.d2", ok=False),
        coded("g0.s1", [False, False]),
    ]


def grown(seed: int, trees: int) -> list[Event]:
    """A log as it could be: trees of many fates."""
    rng = random.Random(seed)
    events: list[Event] = []
    for prompt in range(trees):
        group = f"g{prompt}"
        parsed = [rng.random() < 0.8 for _ in range(3)]
        events.append(proposed(group, parsed))
        for i, fine in enumerate(parsed):
            if not fine:
                continue
            drawn = [rng.random() < 0.8 for _ in range(3)]
            events.append(coded(f"{group}.s{i}", drawn))
            for j in (j for j, svg in enumerate(drawn) if svg):
                drawing = f"{group}.s{i}.d{j}"
                if rng.random() < 0.3:
                    events.append(rendered(drawing, ok=False))
                    continue
                easy, hard = ([rng.choice(["3", "4", "5", None]) for _ in range(4)] for _ in "eh")
                events += picture(drawing, easy, hard)
    return events
