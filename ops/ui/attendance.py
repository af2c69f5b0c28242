"""Who works on a run, by its log: joined, left, failed; and how that looks beside the log server's
own word, which knows within seconds who is silent."""

from dataclasses import dataclass, field
from typing import Literal

import msgspec

from mmzero_async.projections.flow import SILENT
from mmzero_async.schemas.events import AnyEvent, WorkerFailed, WorkerJoined, WorkerLeft
from mmzero_async.schemas.flow import Hand

MOST = 512  # workers that are remembered; those that left are forgotten first

State = Literal["here", "silent", "lost", "left", "unknown"]


class Worker(msgspec.Struct):
    worker: str
    role: str
    host: str = ""
    pid: int = 0
    joined: float = 0.0  # unix seconds
    left: float = 0.0
    reason: str = ""  # why it left; empty: it did not
    failures: int = 0
    last_error: str = ""


class Seen(msgspec.Struct, frozen=True):
    """A worker as the page shows it. `bad`: somebody should look."""

    worker: str
    role: str
    state: State
    bad: bool
    told: str
    host: str = ""
    pid: int = 0
    since: float = 0.0
    silent_seconds: float | None = None
    leases: int = 0
    free: int = 0
    failures: int = 0
    last_error: str = ""


@dataclass(slots=True)
class Attendance:
    workers: dict[str, Worker] = field(default_factory=dict)

    def apply(self, seconds: float, event: AnyEvent) -> None:
        match event:
            case WorkerJoined():
                known = self._known(event.worker, event.role)
                known.host, known.pid, known.joined = event.host, event.pid, seconds
                known.left, known.reason = 0.0, ""
            case WorkerLeft():
                known = self._known(event.worker, event.role)
                known.left, known.reason = seconds, event.reason
            case WorkerFailed():
                known = self._known(event.worker, event.role)
                known.failures += 1
                known.last_error = event.error[:500]
            case _:
                pass

    def _known(self, worker: str, role: str) -> Worker:
        if worker not in self.workers and len(self.workers) >= MOST:
            gone = (name for name, known in self.workers.items() if known.reason)
            self.workers.pop(next(gone, next(iter(self.workers))))
        return self.workers.setdefault(worker, Worker(worker, role))


def seen(
    workers: list[Worker], hands: list[Hand] | None, *, finished: bool, dead_seconds: float
) -> list[Seen]:
    """Every worker's state. `hands`: who the log server has on its line; None: it does not answer,
    and the log alone is asked."""
    by_name = {hand.worker: hand for hand in hands or []}
    found = [
        _seen(known, by_name.pop(known.worker, None), hands is not None, finished, dead_seconds)
        for known in workers
    ]
    # Those that the log's reader has not come to yet.
    found += [
        _seen(Worker(hand.worker, hand.role), hand, True, finished, dead_seconds)
        for hand in by_name.values()
    ]
    return sorted(found, key=lambda one: (not one.bad, one.role, one.worker))


def _seen(
    known: Worker, hand: Hand | None, answered: bool, finished: bool, dead_seconds: float
) -> Seen:
    state, bad, told = _state(known, hand, answered, finished, dead_seconds)
    return Seen(
        worker=known.worker,
        role=known.role,
        state=state,
        bad=bad,
        told=told,
        host=known.host,
        pid=known.pid,
        since=known.left or known.joined,
        silent_seconds=hand.silent_seconds if hand else None,
        leases=hand.leases if hand else 0,
        free=hand.free if hand else 0,
        failures=known.failures,
        last_error=known.last_error,
    )


def _state(
    known: Worker, hand: Hand | None, answered: bool, finished: bool, dead_seconds: float
) -> tuple[State, bool, str]:
    if hand is not None:
        if hand.silent_seconds > SILENT:
            told = f"no heartbeat for {hand.silent_seconds:.1f} s; missed after {dead_seconds:g} s"
            return "silent", True, told
        return "here", False, f"heartbeat {hand.silent_seconds:.1f} s ago"
    if known.reason:
        going_on = answered and not finished
        if known.reason == "goodbye":
            return "left", going_on, "said goodbye"
        words = {"silent": "was missed: no heartbeat", "replaced": "another took its name"}
        return "lost", going_on, words.get(known.reason, known.reason)
    if finished:
        return "left", False, "the run is finished"
    if answered:
        return "lost", True, "not on the log server's line"
    return "unknown", False, "the log server does not answer"
