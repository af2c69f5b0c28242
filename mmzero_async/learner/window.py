"""What one optimiser step is made from, as the log has it: no tensors, so that who only rebuilds or
audits windows needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmzero_async.schemas.events import Generation, Role


@dataclass(frozen=True, slots=True)
class GroupBatch:
    """One complete group: its samples, a reward and an advantage each, where the log has them."""

    group: str
    generation: Generation
    rewards: Sequence[float]
    advantages: Sequence[float]
    offsets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Window:
    """What one optimiser step of one role is made from. The order of groups is part of it."""

    role: Role
    groups: tuple[GroupBatch, ...]
