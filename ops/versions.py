"""Versions of a role that a run has on disk, each with the digest that its log committed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmzero_async.config import ConfigError
from mmzero_async.learner.checkpoint import MANIFEST, relative_folder
from mmzero_async.log.interface import View
from mmzero_async.log.where import Where
from mmzero_async.projections.settings import settings_of
from mmzero_async.schemas.events import PolicyPublished, Role, RunStarted, StepCommitted

BASE = "base"
_TELLING = ("run_started", "step_committed", "policy_published")


@dataclass(frozen=True, slots=True)
class Version:
    """One policy version of a role."""

    role: Role
    number: int
    folder: Path
    digest: str  # of its weights' file, as committed; "": the log does not say
    step: int = 0
    groups: int = 0  # trained on, up to here
    offset: int = -1  # of the event that committed it

    @property
    def name(self) -> str:
        return f"{self.role}@{self.number}"


@dataclass(frozen=True, slots=True)
class Versions:
    """Of one role, oldest first: those whose folders are still there, and how many there were."""

    role: Role
    kept: Sequence[Version]
    committed: int  # the newest version that a step made
    turn: int  # steps of one of the role's turns under a sequential schedule; 0: no turns

    def get(self, number: int) -> Version:
        """ConfigError for one that is not there any more, or never was."""
        for version in self.kept:
            if version.number == number:
                return version
        there = ", ".join(_ranges([version.number for version in self.kept])) or "none"
        why = "its folder is gone" if 0 <= number <= self.committed else "there is no such version"
        raise ConfigError(
            f"{self.role} version {number}: {why}; there is {there} (learner.keep_checkpoints says "
            "how many stay)"
        )

    def newest(self) -> Version:
        if not self.kept:
            raise ConfigError(f"the run has no version of the {self.role} on disk")
        return self.kept[-1]


def versions_of(reader: View, run_dir: Path, role: Role) -> Versions:
    """By the log and the folders beside it: a folder that no event names was never committed."""
    known = {0: Version(role, 0, run_dir / relative_folder(role, 0), "")}
    committed = groups = turn = 0
    for record in reader.scan(where=Where(kinds=_TELLING)):
        match record.event():
            case RunStarted() as started:
                schedule = settings_of(started).schedule
                turn = schedule.steps.of(role) if schedule.mode == "sequential" else 0
            case StepCommitted() as event if event.role == role:
                committed, groups = event.version, groups + len(event.groups)
                folder = run_dir / event.checkpoint
                known[event.version] = Version(
                    role, event.version, folder, event.digest, event.step, groups, record.offset
                )
            case PolicyPublished() as event if event.role == role and event.version == 0:
                folder = run_dir / event.checkpoint
                known[0] = Version(role, 0, folder, event.digest, offset=record.offset)
            case _:
                pass
    kept = [known[number] for number in sorted(known) if (known[number].folder / MANIFEST).exists()]
    return Versions(role, kept, committed, turn)


def chosen(wanted: str, versions: Versions) -> list[Version | None]:
    """`base,5,10`, `all`, `newest`, `iterations` (the end of each of the role's turns); None is
    the base model, which comes first however it was asked for. ConfigError."""
    base, found = False, dict[int, Version]()
    for word in filter(None, (word.strip() for word in wanted.split(","))):
        if word == BASE:
            base = True
        elif word == "all":
            base = True
            found |= {version.number: version for version in versions.kept if version.number}
        elif word == "newest":
            found[versions.newest().number] = versions.newest()
        elif word == "iterations":
            base = True
            found |= {number: versions.get(number) for number in _ends(versions)}
        elif word.isdecimal():
            found[int(word)] = versions.get(int(word))
        else:
            raise ConfigError(
                f"--versions {wanted}: {word!r} is neither a version's number nor base, newest, "
                "iterations or all"
            )
    if not base and not found:
        raise ConfigError("--versions names none: write e.g. base,5,10 or all")
    numbered = [found[number] for number in sorted(found)]
    return [None, *numbered] if base else list(numbered)


def _ends(versions: Versions) -> list[int]:
    if not versions.turn:
        raise ConfigError(
            "--versions iterations: roles of this run took no turns (schedule.mode is not "
            "sequential): name versions, e.g. base,20,40"
        )
    whole = range(versions.turn, versions.committed + 1, versions.turn)
    return sorted({*whole, versions.committed} - {0})


def _ranges(numbers: Sequence[int]) -> list[str]:
    """[0, 1, 2, 5] -> ["0-2", "5"]"""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
