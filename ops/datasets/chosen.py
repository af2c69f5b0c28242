"""Which rows of one log are wanted, in the order in which their groups became complete."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from mmzero_async.log.where import Where
from mmzero_async.ops.datasets import trajectories
from mmzero_async.ops.datasets.groups import Walk
from mmzero_async.ops.datasets.manifest import Counts
from mmzero_async.ops.datasets.options import Options
from mmzero_async.ops.datasets.prompts import Prompts
from mmzero_async.ops.datasets.rows import Row, row_of
from mmzero_async.projections.lineage import CompleteGroup
from mmzero_async.schemas.events import Probed
from mmzero_async.schemas.record import Record

FILTERED = "not in the filter"


@dataclass(slots=True)
class Chosen:
    """The rows of one source that are wanted, with the offset that each stands for."""

    walk: Walk
    options: Options
    prompts: Prompts
    counts: Counts
    _base: Where = field(init=False)

    def __post_init__(self) -> None:
        # What a group became is not in its own events: kinds and rewards are looked at apart.
        self._base = msgspec.structs.replace(self.options.where, kinds=(), rewards=None)

    def rows(self) -> Iterator[tuple[int, Row]]:
        for found in self.walk.complete():
            if isinstance(found, Record):
                yield from self._probe(found)
                continue
            self.counts.lineages += found.role == "proposer"
            if self.options.kind == "trajectories":
                yield from self._tree(found)
            elif found.role in self.options.roles:
                yield from self._group(found)
        cut_off = trajectories.left_open(self.walk)
        self.counts.lineages += len(cut_off)
        if self.options.kind == "trajectories":
            for tree in cut_off:
                yield from self._tree(tree)

    def _group(self, complete: CompleteGroup) -> Iterator[tuple[int, Row]]:
        self.counts.groups += 1
        group = self.walk.group(complete)
        fate = group.fate.event
        kinds = {self.walk.recent.record(group.offset).kind}
        if fate is not None:
            kinds.add("rewarded" if group.rewards is not None else "group_rejected")
        if not self._wanted(group.offset, kinds):
            self.counts.leave_out(FILTERED)
            return
        row = row_of(self.options.kind, group, self.prompts)
        if isinstance(row, str):
            self.counts.leave_out(row)
            return
        rewards = [row.values["reward"]] if self.options.kind == "sft" else group.rewards or []
        if not self._paid(rewards):
            self.counts.leave_out(FILTERED)
            return
        yield group.offset, row

    def _tree(self, complete: CompleteGroup) -> Iterator[tuple[int, Row]]:
        if complete.role != "proposer":
            return
        for offset, row in trajectories.of_tree(self.walk, complete.offsets):
            self.counts.groups += 1
            rewards = [s["reward"] for s in row.values["samples"] if s["reward"] is not None]
            kinds = {row.values["kind"]}
            if row.values["fate"] not in (None, "pending"):
                kinds.add("rewarded" if row.values["fate"] == "trained" else "group_rejected")
            if self._wanted(offset, kinds) and self._paid(rewards):
                yield offset, row
            else:
                self.counts.leave_out(FILTERED)

    def _probe(self, record: Record) -> Iterator[tuple[int, Row]]:
        if self.options.kind != "trajectories":
            return
        self.counts.groups += 1
        event = record.event()
        assert isinstance(event, Probed)
        self.walk.recent.add(record, event)
        if self._wanted(record.offset, {"probed"}) and self._paid([]):
            yield record.offset, trajectories.of_probe(event)
        else:
            self.counts.leave_out(FILTERED)

    def _wanted(self, offset: int, kinds: set[str]) -> bool:
        where = self.options.where
        if where.anything:
            return True
        if where.kinds and kinds.isdisjoint(where.kinds):
            return False
        newest = self.walk.fates.newest_version
        return self._base.matches(self.walk.recent.record(offset), newest)

    def _paid(self, rewards: list[float]) -> bool:
        wanted = self.options.where.rewards
        return wanted is None or any(reward in wanted for reward in rewards)
