"""No silent stall: the log server looks at every stage now and then, and says what stands still.

A stall is told once, as an event and a log line, and its end once.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from mmzero_async import metrics as figures
from mmzero_async.metrics import Metrics
from mmzero_async.schemas.events import Event, StageMoved, StageStalled
from mmzero_async.schemas.flow import Hand, Held, StageFlow
from mmzero_async.transport.dispatcher import Dispatcher
from mmzero_async.transport.leases import LeaseTable
from mmzero_async.transport.messages import WhyReply
from mmzero_async.transport.roster import Peer


@dataclass(slots=True)
class Watchdog:
    """`look` returns the events that make known what has changed. `now`: the leases' clock."""

    dispatcher: Dispatcher
    leases: LeaseTable
    peers: Callable[[], Iterable[Peer]]
    logger: Any
    metrics: Metrics = field(default_factory=Metrics)
    stalled: dict[str, float] = field(default_factory=dict)  # stage -> when it was told

    def hands(self, now: float) -> list[Hand]:
        leases = Counter(lease.worker for lease in self.leases.held.values())
        return [
            Hand(
                worker=peer.hello.worker,
                role=peer.hello.role,
                silent_seconds=now - peer.last_seen,
                leases=leases[peer.hello.worker],
                free=sum(peer.wants.values()),
            )
            for peer in self.peers()
        ]

    def held(self, now: float) -> dict[str, Held]:
        """Who has which work in hand."""
        return {
            key: Held(
                worker=lease.worker,
                seconds=now - lease.granted,
                attempt=self.leases.attempt(key),
            )
            for key, lease in self.leases.held.items()
        }

    def answer(self, run: str, next_offset: int, now: float) -> WhyReply:
        held, hands = self.held(now), self.hands(now)
        return WhyReply(
            run=run,
            next_offset=next_offset,
            stages=self.dispatcher.flows(held, hands),
            workers=hands,
            held=held,
        )

    def status(self, run: str, next_offset: int, now: float) -> dict[str, Any]:
        """How the server is, in short."""
        return {
            "run": run,
            "next_offset": next_offset,
            "backlog": self.dispatcher.backlog(),
            "leases": len(self.leases.held),
            "workers": [
                {
                    "worker": peer.hello.worker,
                    "role": peer.hello.role,
                    "pid": peer.hello.pid,
                    "silent_seconds": round(now - peer.last_seen, 2),
                    "leases": len(self.leases.of(peer.hello.worker)),
                }
                for peer in self.peers()
            ],
        }

    def look(self, now: float) -> list[Event]:
        told: list[Event] = []
        hands = self.hands(now)
        flows = self.dispatcher.flows(self.held(now), hands)
        self._measure(flows, hands)
        for flow in flows:
            since = self.stalled.get(flow.stage)
            if flow.stalled and since is None:
                self.stalled[flow.stage] = now
                event = StageStalled(
                    stage=flow.stage,
                    seconds=flow.still_seconds,
                    due=flow.due,
                    held=flow.held,
                    oldest=flow.oldest,
                    holder=flow.holder,
                    waits_for=flow.waits_for,
                )
                told.append(event)
                self.logger.warning("stage stalled", **_said(flow))
            elif not flow.stalled and since is not None:
                del self.stalled[flow.stage]
                told.append(StageMoved(stage=flow.stage, seconds=now - since))
                self.logger.info(
                    "stage moves again", stage=flow.stage, seconds=round(now - since, 1)
                )
        return told

    def _measure(self, flows: list[StageFlow], hands: list[Hand]) -> None:
        self.metrics.beat(ready=True)
        for flow in flows:
            self.metrics.set(figures.DUE, flow.due, stage=flow.stage)
            self.metrics.set(figures.HELD, flow.held, stage=flow.stage)
            self.metrics.set(figures.STILL, flow.still_seconds, stage=flow.stage)
            self.metrics.set(figures.STALLED, float(flow.stalled), stage=flow.stage)
        self.metrics.set_all(figures.WORKERS, Counter(hand.role for hand in hands))


def _said(flow: StageFlow) -> dict[str, Any]:
    return {
        "stage": flow.stage,
        "seconds": round(flow.still_seconds, 1),
        "due": flow.due,
        "held": flow.held,
        "work": flow.oldest,
        "holder": flow.holder,
        "waits_for": flow.waits_for,
    }
