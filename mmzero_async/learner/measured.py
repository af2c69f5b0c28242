"""What a committed step adds to the learner's figures."""

from mmzero_async import metrics as figures
from mmzero_async.metrics import LAST_FIGURES, Metrics
from mmzero_async.schemas.events import StepCommitted


def count(metrics: Metrics, step: StepCommitted) -> None:
    metrics.add(figures.STEPS, role=step.role)
    metrics.observe(figures.STEP_SECONDS, step.metrics["seconds"], role=step.role)
    metrics.add(figures.WAITED, step.metrics["waited_seconds"])
    metrics.set(figures.VERSION, step.version, role=step.role)
    for name in LAST_FIGURES:
        if name in step.metrics:
            metrics.set(figures.LAST, step.metrics[name], role=step.role, what=name)
