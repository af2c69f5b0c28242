"""Which rows of one log are wanted, and why the others are not: one complete group at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from mmzero_async.log.where import Where
from mmzero_async.ops.datasets import trajectories
from mmzero_async.ops.datasets.groups import Walk
from mmzero_async.ops.datasets.options import Options
from mmzero_async.ops.datasets.prompts import Prompts
from mmzero_async.ops.datasets.rows import Row, row_of
from mmzero_async.projections.lineage import CompleteGroup
from mmzero_async.schemas.events import Probed

FILTERED = "not in the filter"
Found = tuple[int, Row] | str  # the row with the offset that it stands for, or why there is none


@dataclass(slots=True)
class Chosen:
    """Of one source."""

    walk: Walk
    options: Options
    prompts: Prompts
    _base: Where = field(init=False)

    def __post_init__(self) -> None:
        # What a group became is not in its own events: kinds and rewards are looked at apart.
        self._base = msgspec.structs.replace(self.options.where, kinds=(), rewards=None)

    def of(self, item: CompleteGroup | int) -> Iterator[Found]:
        """One for each row that the group, the lineage (trajectories) or the probe at this offset
        may become."""
        if isinstance(item, int):
            yield self._probe(item)
        elif self.options.kind == "trajectories":
            yield from self._tree(item)
        else:
            yield self._group(item)

    def _group(self, complete: CompleteGroup) -> Found:
        group = self.walk.group(complete)
        if not self.options.where.anything:
            fate = group.fate.event
            kinds = {self.walk.recent.record(group.offset).kind}
            if fate is not None:
                kinds.add("rewarded" if group.rewards is not None else "group_rejected")
            if not self._wanted(group.offset, kinds):
                return FILTERED
        row = row_of(self.options.kind, group, self.prompts)
        if isinstance(row, str):
            return row
        rewards = [row.values["reward"]] if self.options.kind == "sft" else group.rewards or []
        return (group.offset, row) if self._paid(rewards) else FILTERED

    def _tree(self, complete: CompleteGroup) -> Iterator[Found]:
        for offset, row in trajectories.of_tree(self.walk, complete.offsets):
            rewards = [s["reward"] for s in row.values["samples"] if s["reward"] is not None]
            kinds = {row.values["kind"]}
            if row.values["fate"] not in (None, "pending"):
                kinds.add("rewarded" if row.values["fate"] == "trained" else "group_rejected")
            wanted = self._wanted(offset, kinds) and self._paid(rewards)
            yield (offset, row) if wanted else FILTERED

    def _probe(self, offset: int) -> Found:
        event = self.walk.recent.of(offset)
        assert isinstance(event, Probed)
        wanted = self._wanted(offset, {"probed"}) and self._paid([])
        return (offset, trajectories.of_probe(event)) if wanted else FILTERED

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
