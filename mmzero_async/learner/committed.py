"""What a step says in the log."""

from mmzero_async.learner.checkpoint import Saved
from mmzero_async.learner.scoring import Scored
from mmzero_async.learner.step import StepResult
from mmzero_async.schemas.events import Rewarded, Role, StepCommitted


def committed_step(
    role: Role,
    number: int,
    version: int,
    chosen: list[Scored],
    result: StepResult,
    saved: Saved,
    metrics: dict[str, float],
) -> tuple[list[Rewarded], StepCommitted]:
    """The events that make a step true, to be appended together: rewards first, then the step."""
    rewarded = [
        Rewarded(
            role=role,
            group=scored.group.id,
            rewards=scored.rewards,
            terms=scored.terms,
            advantages=scored.advantages,
            step=number,
            facts=scored.facts,
        )
        for scored in chosen
    ]
    step = StepCommitted(
        role=role,
        step=number,
        version=version,
        groups=[scored.group.id for scored in chosen],
        offsets=sorted({offset for scored in chosen for offset in scored.group.offsets}),
        checkpoint=saved.checkpoint,
        digest=saved.digest,
        batch_digest=result.batch_digest,
        metrics=metrics,
    )
    return rewarded, step
