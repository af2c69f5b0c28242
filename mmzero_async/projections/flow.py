"""Why nothing comes: since when each stage stands still, what is due there and what it waits for.

`Flow` is fed from the log; `stages` adds who holds what, which only the log server knows, and is a
pure function of all that.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mmzero_async.config import Config
from mmzero_async.projections.admission import role_learning
from mmzero_async.projections.pipeline import Pipeline
from mmzero_async.schemas.events import (
    ROLES,
    AnyEvent,
    GroupRejected,
    PolicyPublished,
    Role,
    StepCommitted,
    WorkAbandoned,
)
from mmzero_async.schemas.flow import Hand, Held, StageFlow
from mmzero_async.schemas.work import STAGE_ROLE, STAGES, Stage, Work, completes

STAGE_POLICY: dict[Stage, Role] = {"propose": "proposer", "code": "coder", "answer": "solver"}
TRAINING: dict[Role, str] = {role: f"train/{role}" for role in ROLES}
STARTING = 5  # times as long may a role's first policy take: an engine starts
SILENT = 2.5  # seconds without a heartbeat that are worth a word


@dataclass(slots=True)
class Flow:
    """When each stage last moved, and since when each piece of work is due, in unix seconds."""

    started: float  # nothing is older than this: a run that was stopped has not stalled
    moved: dict[str, float] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)

    def apply(
        self, seconds: float, event: AnyEvent, due: Iterable[Work], open_work: Mapping[str, Work]
    ) -> None:
        """A committed event, the work that it made due, and all that is open after it."""
        for stage in _moved_by(event):
            self.moved[stage] = seconds
        key = completes(event)
        if key is not None:
            self.since.pop(key, None)
        for work in due:
            self.since[work.key] = seconds
        if isinstance(event, WorkAbandoned):  # a question whose sibling was given up goes with it
            self.since = {key: since for key, since in self.since.items() if key in open_work}

    def still(self, stage: str, now: float) -> float:
        return max(0.0, now - max(self.moved.get(stage, 0.0), self.started))

    def waiting(self, key: str, now: float) -> float:
        return max(0.0, now - max(self.since.get(key, now), self.started))


def _moved_by(event: AnyEvent) -> list[str]:
    match event:
        case StepCommitted() | GroupRejected():
            return [TRAINING[event.role]]
        case PolicyPublished():
            return [TRAINING[event.role], *(s for s, r in STAGE_POLICY.items() if r == event.role)]
        case _:
            key = completes(event)
            return [] if key is None else [key.partition("/")[0]]


def stages(
    pipeline: Pipeline,
    flow: Flow,
    config: Config,
    held: Mapping[str, Held],
    hands: Iterable[Hand],
    back: str,
    now: float,
) -> list[StageFlow]:
    """Every stage, in the order of the flow. `held`: key -> who has it; `back`: why no prompt may
    start, if none may; `now`: unix seconds."""
    if pipeline.finished is not None:
        names = [*STAGES, *TRAINING.values()]
        return [
            StageFlow(stage=name, due=0, held=0, still_seconds=flow.still(name, now))
            for name in names
        ]
    here: dict[str, list[Hand]] = {}
    for hand in hands:
        here.setdefault(hand.role, []).append(hand)
    work = [_stage(stage, pipeline, flow, config, held, here, back, now) for stage in STAGES]
    return work + [_training(role, pipeline, flow, config, here, now) for role in ROLES]


def _stage(
    stage: Stage,
    pipeline: Pipeline,
    flow: Flow,
    config: Config,
    held: Mapping[str, Held],
    here: Mapping[str, list[Hand]],
    back: str,
    now: float,
) -> StageFlow:
    in_hand = {key: by for key, by in held.items() if key.startswith(f"{stage}/")}
    if stage == "propose":
        keys = list(in_hand)
        due = len(keys) + (not back)
        oldest = max(keys, key=lambda key: in_hand[key].seconds, default="")
        age = in_hand[oldest].seconds if oldest else flow.still(stage, now)
    else:
        keys = [key for key, work in pipeline.lineage.open.items() if work.stage == stage]
        due = len(keys)
        oldest = max(keys, key=lambda key: flow.waiting(key, now), default="")
        age = flow.waiting(oldest, now) if oldest else 0.0
    holder = in_hand.get(oldest)
    role = STAGE_POLICY.get(stage)
    published = role is None or role in pipeline.policies.published
    still = flow.still(stage, now)
    if not due:
        waits_for = back if stage == "propose" else _nothing_due(stage)
    else:
        workers = here.get(STAGE_ROLE[stage], [])
        waits_for = _reason(
            stage, published, holder, workers, len(in_hand), bool(here.get("learner")), config
        )
    return StageFlow(
        stage=stage,
        due=due,
        held=len(in_hand),
        still_seconds=still,
        oldest=oldest,
        oldest_seconds=age,
        holder=holder.worker if holder else "",
        waits_for=waits_for,
        stalled=bool(due) and _too_long(still, published, config),
    )


def _too_long(still: float, published: bool, config: Config) -> bool:
    limit = config.log.stall_seconds * (1 if published else STARTING)
    return 0 < limit <= still


def _nothing_due(stage: Stage) -> str:
    before = {"code": "proposals", "render": "drawings", "answer": "pictures"}[stage]
    return f"{before}: none is open"


def _reason(
    stage: Stage,
    published: bool,
    holder: Held | None,
    workers: list[Hand],
    in_hand: int,
    learner: bool,
    config: Config,
) -> str:
    """What the oldest piece of work of a stage waits for."""
    role = STAGE_ROLE[stage]
    if not published:
        return f"the first {role} policy, which the learner publishes when the engine is up" + (
            "" if learner else "; no learner is here"
        )
    if not workers:
        return f"a {role}: none is here"
    if holder is not None:
        silent = next((w.silent_seconds for w in workers if w.worker == holder.worker), None)
        told = f"{holder.worker}, which has it in hand for {holder.seconds:.0f} s"
        if holder.attempt > 1:
            told += f", attempt {holder.attempt}"
        if silent is None:
            return f"{told} and is not here: it falls due again"
        return told + (f" and has said nothing for {silent:.0f} s" if silent > SILENT else "")
    if not any(worker.free for worker in workers):
        names = ", ".join(sorted(worker.worker for worker in workers)[:4])
        more = f" and {len(workers) - 4} more" if len(workers) > 4 else ""
        return f"a free hand: {in_hand} pieces are in the hands of {names}{more}"
    if config.engine.capacity and stage in STAGE_POLICY:
        return f"its share of engine.capacity = {config.engine.capacity}, which follows the backlog"
    return "the log server, which hands it out next"


def _training(
    role: Role,
    pipeline: Pipeline,
    flow: Flow,
    config: Config,
    here: Mapping[str, list[Hand]],
    now: float,
) -> StageFlow:
    stage, learning = TRAINING[role], role_learning(config.learner, role)
    ready = pipeline.book.ready[role]
    still = flow.still(stage, now)
    full = len(ready) >= learning.groups
    trains = learning.train and pipeline.schedule.trains(role)
    if not learning.train and not ready:
        waits_for = f"nothing: the {role} is frozen"
    elif not trains and not ready:
        turn = pipeline.schedule.whose_turn
        waits_for = f"nothing: {turn}" if pipeline.schedule.over else f"its turn: {turn}"
    elif not here.get("learner"):
        waits_for = "a learner: none is here"
    elif not full and trains:
        waits_for = f"{learning.groups - len(ready)} more groups for a window of {learning.groups}"
    else:
        waits_for = "the learner, which has a full window"
    due = len(ready) if full or not trains else 0
    return StageFlow(
        stage=stage,
        due=due,
        held=0,
        still_seconds=still,
        oldest=next(iter(ready), ""),
        waits_for=waits_for,
        stalled=bool(due) and _too_long(still, role in pipeline.policies.published, config),
    )
