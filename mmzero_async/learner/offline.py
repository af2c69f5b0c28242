"""The whole learner again from a finished log, with no engine and no worker beside it.

At each committed step the role takes its own next window from the groups that were complete by
then, trains from its own last version and makes the next one: as the run did, or, under other
settings, as it would have gone on from the same generations. Under the run's own settings every
window, batch and version is the committed one, bit for bit. Whose turn it was is the run's: a role
that steps in another's phase, or not at all, is no question of settings. It writes nothing into the
run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mmzero_async.config import Config, from_json
from mmzero_async.learner.checkpoint import Saved, relative_folder
from mmzero_async.learner.errors import LearnerError
from mmzero_async.learner.rebuild import NOT_FROM_THE_LOG
from mmzero_async.learner.rerun import policy_for, ranks_of
from mmzero_async.learner.scoring import Scored
from mmzero_async.learner.step import StepResult, Trainer
from mmzero_async.learner.windows import Candidates, events_from
from mmzero_async.log.reader import LogReader
from mmzero_async.projections.admission import role_learning
from mmzero_async.projections.pipeline import Pipeline
from mmzero_async.projections.schedule import OUT_OF_PHASE
from mmzero_async.schemas.events import (
    ROLES,
    GroupRejected,
    Rewarded,
    Role,
    RunStarted,
    StepCommitted,
    UnknownEvent,
)
from mmzero_async.schemas.record import Record

AS_IT_WAS = (*NOT_FROM_THE_LOG, OUT_OF_PHASE)  # rejections that are the run's under any settings


@dataclass(frozen=True, slots=True)
class Retaken:
    """A step of the run and what was made in its place; `result` is None where nothing was."""

    committed: StepCommitted
    groups: list[str]
    result: StepResult | None = None
    digest: str = ""
    why_not: str = ""

    @property
    def same(self) -> bool:
        """Groups, tensors and new weights are the committed ones."""
        return self.result is not None and (
            (self.groups, self.result.batch_digest, self.digest)
            == (self.committed.groups, self.committed.batch_digest, self.committed.digest)
        )


def config_of(reader: LogReader) -> Config:
    """The run's own configuration, from its log. LearnerError for a log that tells none."""
    for record in reader.scan():
        event = record.event()
        if isinstance(event, RunStarted):
            return from_json(event.config)
    raise LearnerError(f"the log of {reader.run} has no start: nothing was trained in it")


def retrain(
    run: Path, base: Path, reader: LogReader, out: Path, config: Config, steps: int = 0
) -> Iterator[Retaken]:
    """Every committed step (the first `steps`; 0: all) taken again, one after the other.

    Versions are written as checkpoints under `out`, as a run writes its own. Raises what loading a
    model raises, and CheckpointError where the run began with another's version and its own copy of
    that is gone; what is wrong with a single window is said in its `why_not`.
    """
    again = Offline(run, base, reader, out, config)
    retaken = (again.apply(record) for record in reader.scan())
    return islice((step for step in retaken if step is not None), steps or None)


class Offline:
    """A learner whose log is another's: that one's generations, its own rejections and steps."""

    def __init__(self, run: Path, base: Path, reader: LogReader, out: Path, config: Config) -> None:
        self.reader, self.out, self.config = reader, out, config
        self.events = events_from(reader)
        self.pipeline = Pipeline()
        self.candidates = Candidates(config)
        self.settled: set[tuple[Role, str]] = set()  # groups that the run was done with
        policy = policy_for(base, config)
        self.trainers = {role: Trainer(policy, role, config.learner) for role in ROLES}
        for role, trainer in self.trainers.items():
            if config.schedule.start.of(role):
                trainer.restore(run, Saved(relative_folder(role, 0), ""))
            trainer.save(out, 0)

    def apply(self, record: Record) -> Retaken | None:
        """Every record in offset order; what was made in the place of a committed step."""
        event = record.event()
        retaken = None
        match event:
            case StepCommitted():
                retaken = self._step(event)
                self.pipeline.schedule.apply(event)
                self.settled.update((event.role, group) for group in event.groups)
                event = UnknownEvent(kind="replaced", body=b"")
            case GroupRejected() if event.reason not in AS_IT_WAS:
                self.settled.add((event.role, event.group))
                event = UnknownEvent(kind="replaced", body=b"")
            case Rewarded():
                event = UnknownEvent(kind="replaced", body=b"")
            case _:
                pass
        self.pipeline.apply(record.offset, event)
        return retaken

    def _step(self, committed: StepCommitted) -> Retaken:
        role = committed.role
        for rejection in self.candidates.refresh(self.pipeline, self.events):
            # When the run's learner saw a group, in its phase or after, its own events say.
            seen = (rejection.role, rejection.group) in self.settled
            if rejection.reason != OUT_OF_PHASE or seen:
                self.pipeline.book.apply(rejection)
        ready, wanted = len(self.candidates.passed[role]), role_learning(self.config.learner, role)
        if ready < wanted.groups:
            return Retaken(committed, [], why_not=f"{ready} groups of the {wanted.groups} it needs")
        window, chosen = self.candidates.window(role, self.events)
        groups = [scored.group.id for scored in chosen]
        trainer, version = self.trainers[role], self.pipeline.policies.version(role) + 1
        trainer.ranks = ranks_of(committed)
        try:
            result = trainer.train(window, self.reader.blob)
        except LearnerError as error:
            self._reject(role, chosen)
            return Retaken(committed, groups, why_not=str(error))
        saved = trainer.save(self.out, version)
        made = StepCommitted(
            role=role,
            step=self.pipeline.policies.step[role] + 1,
            version=version,
            groups=groups,
            offsets=[],
            checkpoint=saved.checkpoint,
            digest=saved.digest,
            batch_digest=result.batch_digest,
            metrics=result.metrics,
        )
        self.pipeline.book.apply(made)
        self.pipeline.policies.apply(made)
        return Retaken(committed, groups, result, saved.digest)

    def _reject(self, role: Role, chosen: list[Scored]) -> None:
        for scored in chosen:
            rejected = GroupRejected(role=role, group=scored.group.id, reason="untrainable")
            self.pipeline.book.apply(rejected)
