"""Events that people want to hear of, as one line each."""

from mmzero_async.projections.report import accuracy
from mmzero_async.schemas.events import (
    AnyEvent,
    Evaluated,
    Paced,
    PolicyPublished,
    RunFinished,
    RunStarted,
    StageMoved,
    StageStalled,
    StepCommitted,
    WorkAbandoned,
    WorkerFailed,
    WorkerJoined,
    WorkerLeft,
)


def notable(event: AnyEvent) -> tuple[str, str] | None:
    """("good" | "bad" | "plain", the line); None for what is everyday."""
    match event:
        case RunStarted():
            return "plain", f"run {event.run} started on {event.base_model}"
        case RunFinished():
            return "good", f"run finished: {event.reason}"
        case WorkerJoined():
            return "plain", f"{event.worker} joined on {event.host}"
        case WorkerLeft():
            good = event.reason == "goodbye"
            return "plain" if good else "bad", f"{event.worker} left: {event.reason}"
        case WorkerFailed():
            return "bad", f"{event.worker} failed: {event.error[:300]}"
        case WorkAbandoned():
            return "bad", f"{event.work} given up after {event.attempts} attempts: {event.reason}"
        case StageStalled():
            return "bad", f"{event.stage} stands still: it waits for {event.waits_for}"
        case StageMoved():
            return "good", f"{event.stage} moves again after {event.seconds:.0f} s"
        case StepCommitted():
            return "plain", f"{event.role} step {event.step} made version {event.version}"
        case PolicyPublished():
            return "plain", f"{event.role} version {event.version} is served"
        case Paced():
            return "plain", f"{event.role} may run {event.eta} steps ahead ({event.reason})"
        case Evaluated():
            correct, asked = accuracy(event, hard=True)
            return (
                "good",
                f"held-out, {event.role} version {event.version}, {event.mode}: hard "
                + (f"{correct / asked:.1%}" if asked else "not asked"),
            )
        case _:
            return None
