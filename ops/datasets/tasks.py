"""What an export has to look at, in order, in pieces. They follow from the log and the options
alone, so that whoever makes rows of them makes the same."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mmzero_async.ops.datasets import trajectories
from mmzero_async.ops.datasets.groups import Walk
from mmzero_async.ops.datasets.options import Options
from mmzero_async.projections.lineage import CompleteGroup
from mmzero_async.schemas.record import Record

GROUPS = 32  # of a task at most: with pictures of 1 MB each a task is 32 MB
OFFSETS = 1024  # of its groups, about

Item = CompleteGroup | int  # a group (for trajectories the proposer's), or a probe's offset


@dataclass(slots=True)
class Task:
    """Groups of one source."""

    source: int  # its number
    items: list[Item] = field(default_factory=list)
    offsets: int = 0  # rows at most, and more than that
    lineages: int = 0  # that were passed on the way
    bare: frozenset[str] = frozenset()  # splits whose rows are only counted

    @property
    def full(self) -> bool:
        return len(self.items) >= GROUPS or self.offsets >= OFFSETS

    def add(self, item: Item) -> None:
        self.items.append(item)
        self.offsets += 1 if isinstance(item, int) else len(item.offsets)


def tasks(walks: Sequence[Walk], options: Options) -> Iterator[Task]:
    """In the order in which groups become complete, one source after the other."""
    for number, walk in enumerate(walks):
        task = Task(number)
        for found in walk.complete():
            if isinstance(found, CompleteGroup):
                task.lineages += found.role == "proposer"
            item = _item(found, options)
            if item is not None:
                task.add(item)
                if task.full:
                    yield task
                    task = Task(number)
        cut_off = trajectories.left_open(walk)
        task.lineages += len(cut_off)
        if options.kind == "trajectories":
            for tree in cut_off:
                task.add(tree)
                if task.full:
                    yield task
                    task = Task(number)
        yield task


def _item(found: CompleteGroup | Record, options: Options) -> Item | None:
    if options.kind == "trajectories":
        if isinstance(found, Record):
            return found.offset
        return found if found.role == "proposer" else None
    return found if isinstance(found, CompleteGroup) and found.role in options.roles else None
