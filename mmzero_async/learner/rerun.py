"""One committed step again: its window from the log, its weights from the checkpoint before it.

On the machine that took the step, batch, loss, gradient norm and new weights are the same bits. It
writes nothing into the run.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from mmzero_async.config import Config
from mmzero_async.learner import model
from mmzero_async.learner.batch import Window
from mmzero_async.learner.checkpoint import Saved, relative_folder
from mmzero_async.learner.errors import LearnerError
from mmzero_async.learner.rebuild import Rebuild
from mmzero_async.learner.step import Trainer, make_deterministic
from mmzero_async.learner.windows import events_from
from mmzero_async.log.reader import LogReader
from mmzero_async.schemas.events import Role, StepCommitted


@dataclass(frozen=True, slots=True)
class Compared:
    """A figure as it was committed and as it came out again."""

    name: str
    committed: str | float
    again: str | float

    @property
    def equal(self) -> bool:
        return self.committed == self.again


@dataclass(frozen=True, slots=True)
class Moment:
    """What stood in the log when a step was committed."""

    config: Config
    window: Window
    before: Saved  # the version that the step began with
    committed: StepCommitted


def moment_of(reader: LogReader, role: Role, step: int) -> Moment:
    """Reads the log up to the step. LearnerError when the log holds no such step."""
    rebuild = Rebuild(events_from(reader))
    before = Saved(relative_folder(role, 0), "")
    for record in reader.scan():
        event = record.event()
        if isinstance(event, StepCommitted) and event.role == role:
            if event.step == step:
                return Moment(rebuild.config, rebuild.window(role), before, event)
            before = Saved(event.checkpoint, event.digest)
        rebuild.apply(record)
    last = rebuild.pipeline.policies.step[role]
    raise LearnerError(f"the log has no {role} step {step}: choose one of 1 to {last}")


def rerun(run: Path, base: Path, reader: LogReader, role: Role, step: int) -> list[Compared]:
    """Takes the step again in memory.

    Raises LearnerError (no such step), CheckpointError (the version before it was pruned or is
    damaged), WindowError and StepError as the learner would.
    """
    moment = moment_of(reader, role, step)
    learner = moment.config.learner
    make_deterministic(learner.threads)
    policy = model.load(
        base,
        rank=learner.lora_rank,
        alpha=learner.lora_alpha,
        seed=moment.config.run.seed,
        dtype=learner.dtype,
    )
    trainer = Trainer(policy, role, learner)
    trainer.restore(run, moment.before)
    result = trainer.train(moment.window, reader.blob)
    with tempfile.TemporaryDirectory() as folder:
        saved = trainer.save(Path(folder), moment.committed.version)
    committed = moment.committed
    return [
        Compared("batch digest", committed.batch_digest, result.batch_digest),
        Compared("loss", committed.metrics["loss"], result.metrics["loss"]),
        Compared("gradient norm", committed.metrics["grad_norm"], result.metrics["grad_norm"]),
        Compared("new weights' digest", committed.digest, saved.digest),
    ]
