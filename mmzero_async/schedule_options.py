"""Who is trained when, from what, and on how hard groups: the options of `[schedule]`.

What the log's projections follow is apart (`Turns`), for they read it leniently from logs of any
version; projections/schedule.py says what it means.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from mmzero_async.filter_options import FACTS
from mmzero_async.schemas.events import ROLES, Role

Steps = Annotated[int, msgspec.Meta(ge=0)]
Range = tuple[float, float]


class RoleSteps(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number of steps, a role."""

    proposer: Steps = 0
    coder: Steps = 0
    solver: Steps = 0

    def of(self, role: Role) -> int:
        return int(getattr(self, role))


class Turns(msgspec.Struct, frozen=True, kw_only=True):
    """All trained roles at once, or one after the other: so many steps each, so many times."""

    mode: Literal["concurrent", "sequential"] = "concurrent"
    order: tuple[Role, ...] = ROLES
    steps: RoleSteps = RoleSteps(proposer=20, coder=20, solver=20)
    iterations: Steps = 3  # 0: no end
    until: RoleSteps = RoleSteps()  # the run is over when each of these is reached; 0: not asked


class Start(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What version 0 of a role is: a run's folder (its newest committed version), the folder of one
    version, or "" for a fresh adapter; and whether its optimiser goes on or begins anew."""

    proposer: str = ""
    coder: str = ""
    solver: str = ""
    optimizer: Literal["fresh", "kept"] = "fresh"

    def of(self, role: Role) -> str:
        return str(getattr(self, role))


class Lesson(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bound on a fact that moves from `first` to `last` while the role makes `steps` versions."""

    role: Role
    fact: str
    first: Range
    last: Range
    steps: Annotated[int, msgspec.Meta(ge=1)]

    def at(self, version: int) -> Range:
        """The bound for groups that this version of the role made, both ends included."""
        share = min(version / self.steps, 1.0)
        ends = zip(self.first, self.last, strict=True)
        low, high = ((1.0 - share) * first + share * last for first, last in ends)
        return low, high


class ScheduleOptions(Turns, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole section."""

    start: Start = Start()
    curriculum: tuple[Lesson, ...] = ()


def impossible(options: ScheduleOptions, trained: Mapping[Role, bool]) -> str | None:
    """What is wrong with a schedule, and what to do; None if nothing is. `trained`: which roles
    `learner.<role>.train` leaves unfrozen."""
    twice = [role for role, times in Counter(options.order).items() if times > 1]
    if twice:
        return (
            f"schedule.order names the {twice[0]} {options.order.count(twice[0])} times: once each"
        )
    if options.mode == "sequential" and not turns_of(options, trained):
        return (
            "schedule.order, steps and learner.<role>.train leave nobody to train: name a role "
            "that is trained and give it steps"
        )
    for role in ROLES:
        if options.until.of(role) and not _can_step(options, trained, role):
            return f"schedule.until waits for the {role}, whom this schedule never trains"
    for i, lesson in enumerate(options.curriculum):
        place = f"schedule.curriculum[{i}]"
        if lesson.fact not in FACTS[lesson.role]:
            return (
                f"{place}: no {lesson.fact!r} is recorded of a {lesson.role} group; there is "
                f"{', '.join(FACTS[lesson.role])}"
            )
        for name, (low, high) in (("first", lesson.first), ("last", lesson.last)):
            if low > high:
                return f"{place}.{name}: cannot be at least {low:g} and at most {high:g}"
    return None


def turns_of(turns: Turns, trained: Mapping[Role, bool]) -> tuple[tuple[Role, int], ...]:
    """The turns of one iteration: who takes how many steps. Frozen roles have none."""
    listed = ((role, turns.steps.of(role)) for role in turns.order)
    return tuple((role, steps) for role, steps in listed if steps and trained[role])


def _can_step(options: ScheduleOptions, trained: Mapping[Role, bool], role: Role) -> bool:
    if options.mode == "concurrent":
        return trained[role]
    most = dict(turns_of(options, trained)).get(role, 0) * (
        options.iterations or options.until.of(role)
    )
    return most >= options.until.of(role)
