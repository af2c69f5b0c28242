"""The log server's loop: receive, commit, acknowledge, lease. One thread, one socket, one order.

What has arrived while the last commit was written goes into the next one, so the batch grows with
the load. Nothing is acknowledged before its transaction is on disk. A malformed frame costs its
sender an error and nobody else anything.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import zmq

from mmzero_async.config import LogConfig
from mmzero_async.log.errors import FencedProducer, LogError, LogFull
from mmzero_async.log.writer import LogWriter, Submission
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import (
    AnyEvent,
    Event,
    WorkAbandoned,
    WorkerJoined,
    WorkerLeft,
    decode_event,
    encode_event,
    kind_of,
)
from mmzero_async.schemas.work import STAGES, Stage, completes
from mmzero_async.transport import messages as m
from mmzero_async.transport.dispatcher import Dispatcher
from mmzero_async.transport.errors import PortInUse
from mmzero_async.transport.leases import LeaseTable

SERVER = "log-server"  # the name under which the server writes its own events


@dataclass(slots=True)
class Peer:
    """A worker that has said Hello on this connection."""

    identity: bytes
    hello: m.Hello
    epoch: int
    last_seen: float
    wants: dict[Stage, int] = field(default_factory=dict)


@dataclass(slots=True)
class Received:
    """One worker's message, decoded, on its way into the next commit."""

    identity: bytes | None  # None: the server's own
    sequence: int
    submissions: list[Submission]


class LogServer:
    """Binds on construction (PortInUse); `run` serves until `stop` is called."""

    def __init__(
        self,
        writer: LogWriter,
        dispatcher: Dispatcher,
        config: LogConfig,
        config_digest: str,
        logger: Any,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writer, self._dispatcher, self._config = writer, dispatcher, config
        self._config_digest, self._log, self._clock = config_digest, logger, clock
        self._reader = writer.reader()
        self._peers: dict[bytes, Peer] = {}
        self._epochs: dict[str, int] = {}
        self._leases = LeaseTable(config.lease_seconds, config.max_attempts)
        self._own: list[Event] = []
        self._own_epoch, self._own_sequence = writer.last_epoch(SERVER) + 1, 0
        self._stopping = False
        self._last_beat = clock()
        for record in self._reader.scan():
            dispatcher.apply(record)
        self._bind(config)

    def _bind(self, config: LogConfig) -> None:
        self._context = zmq.Context()
        self._socket = socket = self._context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, config.max_message_mib << 20)
        socket.setsockopt(zmq.SNDHWM, 4 * config.credits)
        socket.setsockopt(zmq.RCVHWM, 4 * config.credits)
        socket.setsockopt(zmq.LINGER, 500)
        address = f"tcp://{config.host}:{config.port or '*'}"
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise PortInUse(
                f"the log server cannot listen at {address}: {error}. Stop what listens there, or "
                "set log.port (0: any free port)"
            ) from error
        self.url = socket.getsockopt(zmq.LAST_ENDPOINT).decode()

    def stop(self) -> None:
        """Ends `run` after what has arrived is committed and acknowledged. Signal-safe."""
        self._stopping = True

    def run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        try:
            while not self._stopping:
                poller.poll(50)
                self._turn()
            self._turn()
        finally:
            self._context.destroy(linger=500)

    def _turn(self) -> None:
        batch: list[Received] = []
        for _ in range(self._config.max_batch):
            try:
                identity, *frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            received = self._handle(identity, frames)
            if received is not None:
                batch.append(received)
        self._keep_time()
        self._commit(batch)
        if not self._stopping:
            self._hand_out()

    # --- what workers say ------------------------------------------------------------------

    def _handle(self, identity: bytes, frames: list[bytes]) -> Received | None:
        """Acts on one message at once, or returns what it wants appended."""
        try:
            message = m.decode_from_worker(frames[0])
        except (msgspec.MsgspecError, IndexError) as error:
            self._log.warning("malformed message", error=str(error))
            self._send(identity, m.Malformed(reason=f"not a message of this protocol: {error}"))
            return None
        if isinstance(message, m.Hello):
            self._welcome(identity, message)
            return None
        if isinstance(message, m.Status):
            self._send(identity, m.StatusReply(status=self.status()))
            return None
        peer = self._peers.get(identity)
        if peer is None:
            self._send(identity, m.Unknown())
            return None
        peer.last_seen = self._clock()
        match message:
            case m.Append():
                return self._received(peer, message, frames[1:])
            case m.Want():
                peer.wants[message.stage] = peer.wants.get(message.stage, 0) + message.slots
            case m.Fail():
                self._release(message.key, message.reason, counts=message.counts)
            case m.Goodbye():
                self._drop(peer, "goodbye")
            case _:
                pass
        return None

    def _welcome(self, identity: bytes, hello: m.Hello) -> None:
        refusal = self._refusal(hello)
        if refusal is not None:
            self._log.warning("worker refused", worker=hello.worker, reason=refusal)
            self._send(identity, m.Refused(reason=refusal))
            return
        for other in [p for p in self._peers.values() if p.hello.worker == hello.worker]:
            del self._peers[other.identity]
            if other.hello.incarnation != hello.incarnation:
                self._send(other.identity, m.Refused(reason="another process bears this name now"))
        last = max(self._writer.last_epoch(hello.worker), self._epochs.get(hello.worker, 0))
        epoch = hello.epoch or last + 1
        self._epochs[hello.worker] = epoch
        self._peers[identity] = Peer(identity, hello, epoch, self._clock())
        for key in self._leases.of(hello.worker):
            if key not in hello.holding:
                self._release(key, "lost on the way", counts=False)
        if not hello.epoch:
            self._own.append(
                WorkerJoined(worker=hello.worker, role=hello.role, host=hello.host, pid=hello.pid)
            )
        self._log.info("worker joined", worker=hello.worker, role=hello.role, epoch=epoch)
        self._send(
            identity,
            m.Welcome(
                run=self._reader.run,
                epoch=epoch,
                credits=self._config.credits,
                heartbeat_seconds=self._config.heartbeat_seconds,
                dead_seconds=self._config.dead_seconds,
            ),
        )

    def _refusal(self, hello: m.Hello) -> str | None:
        if hello.protocol != m.PROTOCOL:
            return f"the worker speaks protocol {hello.protocol}, the log server {m.PROTOCOL}"
        if hello.config_digest != self._config_digest:
            return (
                f"the worker has configuration {hello.config_digest}, the run has "
                f"{self._config_digest}: start it with the run's own configuration"
            )
        if hello.worker == SERVER:
            return f"the name {SERVER} is the log server's own"
        last = max(self._writer.last_epoch(hello.worker), self._epochs.get(hello.worker, 0))
        if hello.epoch and hello.epoch < last:
            return f"epoch {hello.epoch} of {hello.worker} is over, epoch {last} has taken over"
        return None

    def _received(self, peer: Peer, message: m.Append, frames: list[bytes]) -> Received | None:
        """Checks an Append and turns it into submissions; refuses it to its sender otherwise."""
        reason = None
        if not message.bodies or len(message.bodies) != len(message.kinds):
            reason = "an append needs as many kinds as bodies, and at least one"
        elif len(frames) != len(message.blobs):
            reason = f"{len(message.blobs)} blobs named, {len(frames)} sent"
        else:
            for digest, data in zip(message.blobs, frames, strict=True):
                if blob_digest(data) != digest:
                    reason = f"blob {digest} does not match its digest"
        if reason is not None:
            self._send(
                peer.identity,
                m.AppendRefused(sequence=message.sequence, reason=reason, again=False),
            )
            return None
        blobs = dict(zip(message.blobs, frames, strict=True))
        submissions = [
            Submission(
                peer.hello.worker,
                peer.epoch,
                message.sequence + i,
                kind,
                body,
                blobs if i == 0 else {},
            )
            for i, (kind, body) in enumerate(zip(message.kinds, message.bodies, strict=True))
        ]
        return Received(peer.identity, message.sequence, submissions)

    # --- commit and acknowledge ------------------------------------------------------------

    def _commit(self, batch: list[Received]) -> None:
        batch = [received for received in batch if self._admitted(received)]
        settling: set[str] = set()
        for received in batch:
            received.submissions = [self._mark(s, settling) for s in received.submissions]
        own = list(self._own)
        if own:
            batch.append(self._own_received(own))
        if not batch:
            return
        start = self._writer.next_offset
        try:
            answers = self._writer.append([received.submissions for received in batch])
        except LogFull as error:
            self._log.error("disk full", error=str(error))
            for received in batch:
                self._refuse(received, str(error), again=True)
            return
        if own:
            self._own = self._own[len(own) :]
            self._own_sequence += len(own)
        self._apply(start)
        for received, answer in zip(batch, answers, strict=True):
            if isinstance(answer, FencedProducer) and received.identity is not None:
                self._send(received.identity, m.Refused(reason=str(answer)))
            elif isinstance(answer, LogError):
                self._refuse(received, str(answer), again=True)
            elif received.identity is not None:
                offsets = [ack.offset for ack in answer]
                self._send(
                    received.identity, m.Appended(sequence=received.sequence, offsets=offsets)
                )

    def _admitted(self, received: Received) -> bool:
        """Refuses a message that holds an event of a known kind which does not fit its schema."""
        try:
            for submission in received.submissions:
                decode_event(submission.kind, submission.body)
        except msgspec.MsgspecError as error:
            self._refuse(received, f"not a valid {submission.kind} event: {error}", again=False)
            return False
        return True

    def _mark(self, submission: Submission, settling: set[str]) -> Submission:
        """Drops an event whose work is settled, in the log or earlier in this batch."""
        event: AnyEvent = decode_event(submission.kind, submission.body)
        key = completes(event)
        superseded = key in settling or not self._dispatcher.admits(event)
        if key is not None:
            settling.add(key)
        if not superseded:
            return submission
        return Submission(
            submission.producer,
            submission.epoch,
            submission.sequence,
            submission.kind,
            submission.body,
            drop=True,
        )

    def _own_received(self, events: list[Event]) -> Received:
        submissions = [
            Submission(
                SERVER, self._own_epoch, self._own_sequence + i, kind_of(event), encode_event(event)
            )
            for i, event in enumerate(events)
        ]
        return Received(None, self._own_sequence, submissions)

    def _apply(self, start: int) -> None:
        for record in self._reader.scan(start, self._writer.next_offset):
            key = completes(record.event())
            if key is not None:
                self._leases.settle(key)
            self._dispatcher.apply(record)

    def _refuse(self, received: Received, reason: str, *, again: bool) -> None:
        if received.identity is not None:
            refusal = m.AppendRefused(sequence=received.sequence, reason=reason, again=again)
            self._send(received.identity, refusal)

    # --- leases and time -------------------------------------------------------------------

    def _hand_out(self) -> None:
        for stage in STAGES:
            while True:
                waiting = [p for p in self._peers.values() if p.wants.get(stage, 0) > 0]
                if not waiting or not any([self._lease_one(peer, stage) for peer in waiting]):
                    break

    def _lease_one(self, peer: Peer, stage: Stage) -> bool:
        work = self._dispatcher.take(stage)
        if work is None:
            return False
        frames: list[bytes] = []
        if work.picture:
            try:
                frames.append(self._reader.blob(work.picture))
            except (LogError, ValueError) as error:
                self._release(work.key, f"its picture cannot be read: {error}", counts=True)
                return False
        peer.wants[stage] -= 1
        self._leases.grant(work, peer.hello.worker, self._clock())
        leased = m.Leased(work=work, seconds=self._config.lease_seconds)
        self._send(peer.identity, leased, frames)
        return True

    def _release(self, key: str, reason: str, *, counts: bool) -> None:
        failures = self._leases.release(key, counts=counts)
        if failures is None:
            self._dispatcher.give_back(key)
            return
        event = WorkAbandoned(work=key, reason=reason[:500], attempts=failures)
        if self._dispatcher.admits(event) and not any(
            isinstance(e, WorkAbandoned) and e.work == key for e in self._own
        ):
            self._own.append(event)
            self._log.warning("work abandoned", work=key, reason=reason, attempts=failures)

    def _keep_time(self) -> None:
        now = self._clock()
        for key in self._leases.expired(now):
            self._release(key, "its lease ran out", counts=True)
        for peer in list(self._peers.values()):
            if now - peer.last_seen > self._config.dead_seconds:
                self._log.warning("worker silent", worker=peer.hello.worker)
                self._drop(peer, "silent")
        if now - self._last_beat >= self._config.heartbeat_seconds:
            self._last_beat = now
            for identity in list(self._peers):
                self._send(identity, m.Alive())

    def _drop(self, peer: Peer, reason: str) -> None:
        self._peers.pop(peer.identity, None)
        for key in self._leases.of(peer.hello.worker):
            self._release(key, f"its worker {reason}", counts=reason != "goodbye")
        self._own.append(WorkerLeft(worker=peer.hello.worker, role=peer.hello.role, reason=reason))

    def _send(self, identity: bytes, message: m.Message, frames: list[bytes] | None = None) -> None:
        """Lost when the peer is gone or reads nothing: then it asks again."""
        try:
            self._socket.send_multipart([identity, m.encode(message), *(frames or [])], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            self._log.debug("could not send", error=str(error))

    def status(self) -> dict[str, Any]:
        now = self._clock()
        return {
            "run": self._reader.run,
            "next_offset": self._writer.next_offset,
            "backlog": self._dispatcher.backlog(),
            "leases": len(self._leases.held),
            "workers": [
                {
                    "worker": peer.hello.worker,
                    "role": peer.hello.role,
                    "pid": peer.hello.pid,
                    "silent_seconds": round(now - peer.last_seen, 2),
                    "leases": len(self._leases.of(peer.hello.worker)),
                }
                for peer in self._peers.values()
            ],
        }
