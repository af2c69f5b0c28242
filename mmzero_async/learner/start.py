"""Where a role begins when it is to begin with what another run, or an earlier one, has learned.

The version is copied into the run as its version 0, so that nothing here depends on the other
run's folder later on.
"""

from dataclasses import dataclass
from pathlib import Path

from mmzero_async.learner.checkpoint import CHECKPOINTS, MANIFEST, Saved
from mmzero_async.learner.errors import LearnerError
from mmzero_async.log.reader import LogReader
from mmzero_async.log.where import Where
from mmzero_async.schemas.events import PolicyPublished, Role, RunStarted, StepCommitted

_TELLING = Where(kinds=("run_started", "step_committed", "policy_published"))


@dataclass(frozen=True, slots=True)
class Source:
    """A version of another run; `run / saved.checkpoint` is its folder."""

    run: Path
    saved: Saved


def source_of(place: Path, role: Role, base_digest: str) -> Source:
    """A run's folder gives the role's newest version in its log, a version's folder that one.

    Raises LearnerError where neither is found or the run was trained from another base. What the
    checkpoint holds is checked when it is read.
    """
    if (place / MANIFEST).is_file():
        place = place.resolve()
        run, saved = place.parents[2], Saved(str(Path(CHECKPOINTS, *place.parts[-2:])), "")
        if (run / "log").is_dir():
            _newest(run, role, base_digest)
        return Source(run, saved)
    if not (place / "log").is_dir():
        raise LearnerError(
            f"schedule.start.{role}: {place} is neither a run's folder nor that of a version, as "
            f"runs/demo/{CHECKPOINTS}/{role}/000020 is"
        )
    newest = _newest(place, role, base_digest)
    if newest is None:
        raise LearnerError(f"schedule.start.{role}: {place} has no version of the {role} yet")
    return Source(place, newest)


def _newest(run: Path, role: Role, base_digest: str) -> Saved | None:
    """By the log alone: a folder that no step names was never committed."""
    newest: tuple[int, Saved] | None = None
    reader = LogReader.open(run / "log")
    try:
        for record in reader.scan(where=_TELLING):
            match record.event():
                case RunStarted() as started if started.base_digest != base_digest:
                    raise LearnerError(
                        f"schedule.start.{role}: {run} was trained from base {started.base_digest} "
                        f"({started.base_model}), this run's is {base_digest}: name a run of the "
                        "same base, or set run.base_model to that one"
                    )
                case (StepCommitted() | PolicyPublished()) as event if event.role == role:
                    if newest is None or event.version >= newest[0]:
                        newest = event.version, Saved(event.checkpoint, event.digest)
                case _:
                    pass
    finally:
        reader.close()
    return newest[1] if newest else None
