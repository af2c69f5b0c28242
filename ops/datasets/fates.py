"""What became of each group: trained with rewards, rejected, or neither yet. Read once, first.

Sixteen bytes a group, so that a row can be told its rewards, which stand far behind its events.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mmzero_async.log.interface import View
from mmzero_async.log.where import Where
from mmzero_async.schemas.events import (
    ROLES,
    GroupRejected,
    Rewarded,
    Role,
    StepCommitted,
)
from mmzero_async.schemas.ids import indices

_WANTED = Where(kinds=("rewarded", "group_rejected", "step_committed"))
Fate = Rewarded | GroupRejected | None


@dataclass(frozen=True, slots=True)
class Found:
    """A group's fate and where it stands."""

    event: Fate
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Index:
    """Where the fates of all groups in the events [0, stop) of a log stand, and its steps."""

    keys: "array[int]"  # ascending
    offsets: "array[int]"  # one a key
    steps: dict[str, list[int]]  # offsets, by role
    versions: dict[str, list[int]]  # one a step

    @classmethod
    def of(cls, view: View, stop: int) -> "Index":
        keys, offsets = array("Q"), array("Q")
        steps: dict[str, list[int]] = {role: [] for role in ROLES}
        versions: dict[str, list[int]] = {role: [] for role in ROLES}
        for record in view.scan(0, stop, _WANTED):
            event = record.event()
            match event:
                case Rewarded() | GroupRejected():
                    keys.append(_key(event.role, event.group))
                    offsets.append(record.offset)
                case StepCommitted():
                    steps[event.role].append(record.offset)
                    versions[event.role].append(event.version)
                case _:
                    pass
        unsorted = np.array(keys, np.uint64)
        order = np.argsort(unsorted, kind="stable")
        # Arrays of Python's own: numpy takes twenty times as long to look up a single number.
        return cls(
            array("Q", unsorted[order].tobytes()),
            array("Q", np.array(offsets, np.uint64)[order].tobytes()),
            steps,
            versions,
        )


class Fates:
    """Of all groups in a log, by its index."""

    def __init__(self, view: View, index: Index) -> None:
        self._view, self.index = view, index

    def of(self, role: Role, group: str) -> Found:
        for offset in self._candidates(_key(role, group)):
            event = self._view.get(offset).event()
            if isinstance(event, Rewarded | GroupRejected) and (
                (event.role, event.group) == (role, group)
            ):
                return Found(event, offset)
        return Found(None)

    def newest_version(self, role: str, offset: int) -> int:
        """That a step before the offset made; 0 before the first."""
        count = bisect_left(self.index.steps.get(role, []), offset)
        return self.index.versions[role][count - 1] if count else 0

    def _candidates(self, key: int) -> Iterator[int]:
        keys, offsets = self.index.keys, self.index.offsets
        place = bisect_left(keys, key)
        while place < len(keys) and keys[place] == key:
            yield offsets[place]
            place += 1


def _key(role: Role, group: str) -> int:
    """Some number for a group; two groups may have the same, which `of` looks through."""
    place, *below = indices(group)
    for number in (*below, *(0 for _ in range(2 - len(below)))):
        place = place * 65_537 + number
    return (place * len(ROLES) + ROLES.index(role)) % 2**64
