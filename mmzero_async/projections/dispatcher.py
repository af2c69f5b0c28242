"""Due work for the log server: what the log calls for and nobody holds, oldest lineage first.

Everything here is rebuilt from the log at start. Leases are not in the log: they belong to the
server's memory, and what was leased when it died is simply due again.
"""

import heapq
import time
from collections.abc import Callable, Iterable, Mapping

import msgspec

from mmzero_async.config import Config
from mmzero_async.projections.admission import holding_back
from mmzero_async.projections.capacity import shares
from mmzero_async.projections.flow import STAGE_POLICY, Flow, stages
from mmzero_async.projections.making import Making
from mmzero_async.projections.pipeline import Pipeline
from mmzero_async.schemas.events import AnyEvent
from mmzero_async.schemas.flow import Hand, Held, StageFlow
from mmzero_async.schemas.ids import group_id, indices
from mmzero_async.schemas.record import Record
from mmzero_async.schemas.work import STAGES, Stage, Work, completes, derived_seed


class PipelineDispatcher:
    """Implements the transport's dispatcher port over the pipeline projection.

    `clock`: unix seconds, as the log server's that writes the records.
    """

    def __init__(self, config: Config, clock: Callable[[], float] = time.time) -> None:
        self.config = config
        self.pipeline = Pipeline()
        self.flow = Flow(started=clock())
        self._clock = clock
        self._due: dict[Stage, list[tuple[tuple[int, ...], str]]] = {s: [] for s in STAGES}
        self._spare: list[tuple[tuple[int, ...], str]] = []  # probes that no group waits for
        self._leased_prompts: set[int] = set()
        self._at_engines: dict[Stage, dict[str, int]] = {stage: {} for stage in STAGE_POLICY}
        self._in_hand = Making()  # the versions of what is at the engines

    def admits(self, event: AnyEvent) -> bool:
        return self.pipeline.lineage.admits(event)

    def apply(self, record: Record) -> None:
        event = record.event()
        due, _ = self.pipeline.apply(record.offset, event)
        self.flow.apply(record.envelope.time_ns / 1e9, event, due, self.pipeline.lineage.open)
        for work in due:
            self._push(work)
        key = completes(event)
        if key is not None:
            self._left_engines(key)
        if key is not None and key.startswith("propose/"):
            self._leased_prompts.discard(_prompt(key))

    def take(self, stage: Stage) -> Work | None:
        """The oldest due work of a stage with its role's current policy; None: nothing now."""
        role = STAGE_POLICY.get(stage)
        if role is not None and role not in self.pipeline.policies.published:
            return None
        if self.pipeline.finished is not None:
            return None
        if role is not None and not self._has_share(stage):
            return None
        work = self._new_prompt() if stage == "propose" else self._oldest(self._due[stage])
        if work is None and stage == "answer":
            work = self._oldest(self._spare)
        if work is None or role is None:
            return work
        published = self.pipeline.policies.published[role]
        self._at_engines[stage][work.key] = published.version
        self._in_hand.began(role, published.version)
        return msgspec.structs.replace(
            work,
            version=published.version,
            policy=published.policy,
            seed=derived_seed(self.config.run.seed, work.key),
        )

    def give_back(self, key: str) -> None:
        """A lease ended without a result: the work is due again, if the log still calls for it."""
        self._left_engines(key)
        if key.startswith("propose/"):
            self._leased_prompts.discard(_prompt(key))
        elif key in self.pipeline.lineage.open:
            self._push(self.pipeline.lineage.open[key])

    def backlog(self) -> dict[str, int]:
        """Open work a stage: leased and due together."""
        counts: dict[str, int] = dict.fromkeys(STAGES, 0)
        for work in self.pipeline.lineage.open.values():
            counts[work.stage] += 1
        counts["propose"] = len(self._leased_prompts)
        return counts

    def flows(self, held: Mapping[str, Held], hands: Iterable[Hand]) -> list[StageFlow]:
        """What each stage waits for."""
        prompts = len(self._leased_prompts)
        now = self._clock()
        back = holding_back(self.pipeline, self.config, prompts, self._in_hand)
        return stages(self.pipeline, self.flow, self.config, held, hands, back, now)

    def _push(self, work: Work) -> None:
        spare = work.blind and not self.pipeline.lineage.probes.awaited
        heap = self._spare if spare else self._due[work.stage]
        heapq.heappush(heap, (indices(work.target), work.key))

    def _oldest(self, heap: list[tuple[tuple[int, ...], str]]) -> Work | None:
        while heap:
            _, key = heapq.heappop(heap)
            work = self.pipeline.lineage.open.get(key)
            if work is not None:
                return work
        return None

    def _has_share(self, stage: Stage) -> bool:
        """Whether the stage has less at the engines than its part of their capacity."""
        capacity = self.config.engine.capacity
        if not capacity:
            return True
        held = {stage: len(versions) for stage, versions in self._at_engines.items()}
        due = {stage: len(self._due[stage]) for stage in held}
        due["propose"] = int(not self._held_back())
        due["answer"] += len(self._spare)
        return held[stage] < shares({s: held[s] + due[s] for s in held}, capacity)[stage]

    def _left_engines(self, key: str) -> None:
        for stage, versions in self._at_engines.items():
            version = versions.pop(key, None)
            if version is not None:
                self._in_hand.ended(STAGE_POLICY[stage], version)

    def _held_back(self) -> bool:
        """Whether no more prompts may start now."""
        why = holding_back(self.pipeline, self.config, len(self._leased_prompts), self._in_hand)
        return bool(why)

    def _new_prompt(self) -> Work | None:
        if self._held_back():
            return None
        settled = self.pipeline.lineage.settled_prompts
        prompt = settled.prefix
        while prompt in settled or prompt in self._leased_prompts:
            prompt += 1
        self._leased_prompts.add(prompt)
        return Work(stage="propose", target=group_id(prompt))


def _prompt(key: str) -> int:
    """`propose/g12` -> 12."""
    return indices(key.removeprefix("propose/"))[0]
