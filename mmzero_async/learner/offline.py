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
from mmzero_async.learner.alternative import Alternative
from mmzero_async.learner.checkpoint import Saved, relative_folder
from mmzero_async.learner.errors import LearnerError
from mmzero_async.learner.rerun import policy_for, ranks_of
from mmzero_async.learner.step import StepResult, Trainer
from mmzero_async.learner.windows import events_from
from mmzero_async.log.reader import LogReader
from mmzero_async.schemas.events import (
    ROLES,
    GroupRejected,
    RunStarted,
    StepCommitted,
)
from mmzero_async.schemas.record import Record


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
        self.alternative = Alternative(config, events_from(reader), self._step)
        self.retaken: Retaken | None = None
        policy = policy_for(base, config)
        self.trainers = {role: Trainer(policy, role, config.learner) for role in ROLES}
        for role, trainer in self.trainers.items():
            if config.schedule.start.of(role):
                trainer.restore(run, Saved(relative_folder(role, 0), ""))
            trainer.save(out, 0)

    def apply(self, record: Record) -> Retaken | None:
        """Every record in offset order; what was made in the place of a committed step."""
        self.retaken = None
        self.alternative.apply(record)
        return self.retaken

    def _step(self, committed: StepCommitted) -> None:
        self.retaken = self._retake(committed)

    def _retake(self, committed: StepCommitted) -> Retaken:
        role, alternative = committed.role, self.alternative
        alternative.reject()
        if why_not := alternative.missing(role):
            return Retaken(committed, [], why_not=why_not)
        window, chosen = alternative.window(role)
        groups = [scored.group.id for scored in chosen]
        policies = alternative.pipeline.policies
        trainer, version = self.trainers[role], policies.version(role) + 1
        trainer.ranks = ranks_of(committed)
        try:
            result = trainer.train(window, self.reader.blob)
        except LearnerError as error:
            for group in groups:
                rejected = GroupRejected(role=role, group=group, reason="untrainable")
                alternative.pipeline.book.apply(rejected)
            return Retaken(committed, groups, why_not=str(error))
        saved = trainer.save(self.out, version)
        alternative.commit(
            StepCommitted(
                role=role,
                step=policies.step[role] + 1,
                version=version,
                groups=groups,
                offsets=[],
                checkpoint=saved.checkpoint,
                digest=saved.digest,
                batch_digest=result.batch_digest,
                metrics=result.metrics,
            )
        )
        return Retaken(committed, groups, result, saved.digest)
