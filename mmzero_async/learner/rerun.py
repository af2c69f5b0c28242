"""One committed step again: its window from the log, its weights from the checkpoint before it.

On the machine that took the step, batch, loss, gradient norm and new weights are the same bits. It
writes nothing into the run.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmzero_async.config import Config
from mmzero_async.learner import model
from mmzero_async.learner.checkpoint import Saved, relative_folder
from mmzero_async.learner.errors import LearnerError
from mmzero_async.learner.full import FullModel
from mmzero_async.learner.model import PolicyModel
from mmzero_async.learner.ranks import Ranks
from mmzero_async.learner.rebuild import Rebuild
from mmzero_async.learner.scoring import Scored
from mmzero_async.learner.step import StepResult, Trainer, make_deterministic
from mmzero_async.learner.window import Window
from mmzero_async.learner.windows import events_from
from mmzero_async.log.reader import LogReader
from mmzero_async.projections.lineage import CompleteGroup
from mmzero_async.projections.pipeline import Pipeline
from mmzero_async.schemas.events import GroupRejected, Role, StepCommitted


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
    chosen: list[Scored]
    before: Saved  # the version that the step began with
    committed: StepCommitted
    pipeline: Pipeline  # the log's state just before it
    # Every group that could have been in the window, oldest first, and of some why they were not.
    considered: Mapping[str, CompleteGroup]
    refused: Mapping[str, str]  # since the role's step before


def moment_of(reader: LogReader, role: Role, step: int) -> Moment:
    """Reads the log up to the step. LearnerError when the log holds no such step."""
    rebuild = Rebuild(events_from(reader))
    before = Saved(relative_folder(role, 0), "")
    considered: dict[str, CompleteGroup] = {}
    refused: dict[str, str] = {}
    for record in reader.scan():
        event = record.event()
        is_step = isinstance(event, StepCommitted) and event.role == role
        if isinstance(event, StepCommitted) and is_step:
            if event.step == step:
                window, chosen = rebuild.window(role)
                pipeline, config = rebuild.pipeline, rebuild.config
                return Moment(config, window, chosen, before, event, pipeline, considered, refused)
            before = Saved(event.checkpoint, event.digest)
        if isinstance(event, GroupRejected) and event.role == role:
            refused[event.group] = event.reason
        complete = rebuild.apply(record)
        considered |= {group.id: group for group in complete if group.role == role}
        if is_step:
            considered, refused = dict(rebuild.pipeline.book.ready[role]), {}
    last = rebuild.pipeline.policies.step[role]
    raise LearnerError(f"the log has no {role} step {step}: choose one of 1 to {last}")


@dataclass(frozen=True, slots=True)
class Taken:
    """A step as it came out in memory, and the digest of the weights that it made."""

    result: StepResult
    digest: str


def policy_for(base: Path, config: Config) -> PolicyModel:
    """Every role as the base, as a learner of this configuration starts with it."""
    learner = config.learner
    make_deterministic(learner.threads)
    if learner.weights == "full":
        return FullModel(
            base,
            freeze_vision=learner.freeze_vision,
            device=learner.device,
            logprob_chunk=learner.logprob_chunk,
            gradient_checkpointing=learner.gradient_checkpointing,
        )
    return model.load(
        base,
        rank=learner.lora_rank,
        alpha=learner.lora_alpha,
        seed=config.run.seed,
        dtype=learner.dtype,
        device=learner.device,
        logprob_chunk=learner.logprob_chunk,
        gradient_checkpointing=learner.gradient_checkpointing,
    )


def ranks_of(committed: StepCommitted) -> Ranks:
    """As many as took the step, all played by this process."""
    return Ranks(int(committed.metrics.get("ranks", 1.0)))


def take(
    run: Path, base: Path, reader: LogReader, moment: Moment, config: Config, window: Window
) -> Taken:
    """The moment's step on a window, under a configuration, from the version before it.

    Raises CheckpointError (that version was pruned or is damaged), WindowError and StepError as the
    learner would.
    """
    policy, ranks = policy_for(base, config), ranks_of(moment.committed)
    trainer = Trainer(policy, window.role, config.learner, ranks)
    trainer.restore(run, moment.before)
    result = trainer.train(window, reader.blob)
    with tempfile.TemporaryDirectory() as folder:
        saved = trainer.save(Path(folder), moment.committed.version)
    return Taken(result, saved.digest)


def rerun(run: Path, base: Path, reader: LogReader, role: Role, step: int) -> list[Compared]:
    """Takes the step again in memory. LearnerError (no such step), and what `take` raises."""
    moment = moment_of(reader, role, step)
    taken = take(run, base, reader, moment, moment.config, moment.window)
    committed, metrics = moment.committed, taken.result.metrics
    return [
        Compared("batch digest", committed.batch_digest, taken.result.batch_digest),
        Compared("loss", committed.metrics["loss"], metrics["loss"]),
        Compared("gradient norm", committed.metrics["grad_norm"], metrics["grad_norm"]),
        Compared("new weights' digest", committed.digest, taken.digest),
    ]
