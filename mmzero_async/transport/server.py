"""The log server's loop: receive, commit, acknowledge, lease. One thread, one socket, one order.

What has arrived while the last commit was written goes into the next one, so the batch grows with
the load. Nothing is acknowledged before its transaction is on disk. A malformed frame costs its
sender an error and nobody else anything.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, cast

from msgspec.structs import replace

from mmzero_async import metrics as figures
from mmzero_async.config import LogConfig
from mmzero_async.log.errors import FencedProducer, LogError, LogFull
from mmzero_async.log.watch import Watch
from mmzero_async.log.writer import LogWriter, Submission
from mmzero_async.metrics import Metrics
from mmzero_async.schemas.events import AnyEvent, Event, WorkAbandoned, encode_event, kind_of
from mmzero_async.schemas.work import STAGES, Stage, Work, completes
from mmzero_async.transport import messages as m
from mmzero_async.transport.dispatcher import Dispatcher
from mmzero_async.transport.door import AGAIN, CUT, REVOKED, SERVER, TAKEN, Refusals, refused
from mmzero_async.transport.errors import BadMessage
from mmzero_async.transport.intake import Received, mark_superseded, read_append
from mmzero_async.transport.leases import LeaseTable
from mmzero_async.transport.line import Line, RouterLine
from mmzero_async.transport.roster import Peer, Presence
from mmzero_async.transport.watchdog import Watchdog

ROUND_SECONDS = 0.05  # between two looks at who is silent and which leases ran out
WATCH_SECONDS = 5.0  # between two looks at readers and disk


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
        line: Line | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._writer, self._dispatcher, self._config = writer, dispatcher, config
        self._config_digest, self._log, self._clock = config_digest, logger, clock
        self._reader = writer.reader()
        self._watch = Watch(
            self._reader.environment, logger, config.warn_reader_seconds, config.warn_free_share
        )
        self._peers: dict[bytes, Peer] = {}
        self._waiting: dict[Stage, OrderedDict[bytes, Peer]] = {s: OrderedDict() for s in STAGES}
        self._presence = Presence()
        self._refusals = Refusals()
        self._leases = LeaseTable(config.lease_seconds, config.max_attempts)
        self._metrics = metrics or Metrics()
        self._watchdog = Watchdog(
            dispatcher, self._leases, self._peers.values, logger, self._metrics
        )
        self._batch: list[Received] = []  # for the next commit, in the order of arrival
        self._own_epoch, self._own_sequence = writer.open_epoch(SERVER), 0
        self._stopping = False
        for record in self._reader.scan():
            dispatcher.apply(record)
            self._presence.apply(record.event())
        self._line = line if line is not None else RouterLine(config, logger)
        self.url = self._line.url
        self._last_beat = self._last_look = self._last_round = clock()
        self._started: float | None = self._last_beat

    def stop(self) -> None:
        """Ends `run` after what has arrived is committed and acknowledged. Signal-safe."""
        self._stopping = True

    def run(self) -> None:
        try:
            while not self._stopping:
                self._line.wait(50)
                self.turn()
            self.turn()
        finally:
            self._line.close()

    def turn(self) -> None:
        """Takes in what has arrived, commits and acknowledges it, and hands out what is due."""
        size, limit = 0, self._config.max_message_mib << 20  # bytes: one commit, one large message
        for _ in range(self._config.max_batch):
            heard = self._line.receive()
            if heard is None:
                break
            identity, public, frames = heard
            large = sum(map(len, frames))
            received = self._handle(identity, public, frames, large > limit)
            if received is not None:
                self._batch.append(received)
            size += large
            if size >= limit:
                break
        self._keep_time()
        self._commit()
        if not self._stopping:
            self._hand_out()

    # --- what workers say ------------------------------------------------------------------

    def _handle(
        self, identity: bytes, public: bytes, frames: list[bytes], too_large: bool
    ) -> Received | None:
        """Acts on one message at once, or returns what it wants appended."""
        if self._revoked(public):
            self._send(identity, m.Refused(reason=REVOKED))
            return None
        try:
            if too_large:
                raise BadMessage("its frames are more than log.max_message_mib together")
            message = m.decode_from_worker(frames[0])
        except (BadMessage, IndexError) as error:
            self._log.warning("malformed message", error=str(error))
            self._send(identity, m.Malformed(reason=str(error)))
            return None
        if isinstance(message, m.Hello):
            self._welcome(identity, public, message)
            return None
        if isinstance(message, m.Status):
            status = self._watchdog.status(*self._whereabouts())
            self._send(identity, m.StatusReply(status=status))
            return None
        if isinstance(message, m.Why):
            reply = self._watchdog.answer(*self._whereabouts())
            self._send(identity, replace(reply, refused=self._refusals.now(self._clock())))
            return None
        peer = self._peers.get(identity)
        if peer is None or peer.public != public:
            self._send(identity, m.Unknown())
            return None
        peer.last_seen = self._clock()
        match message:
            case m.Append():
                return self._received(peer, message, frames[1:])
            case m.Want():
                peer.wants[message.stage] = peer.wants.get(message.stage, 0) + message.slots
                self._waiting[message.stage][identity] = peer
            case m.Fail():
                if self._leases.held_by(message.key, peer.hello.worker):
                    self._release(message.key, message.reason, counts=message.counts)
            case m.Goodbye():
                self._drop(peer, "goodbye")
            case _:
                pass
        return None

    def _whereabouts(self) -> tuple[str, int, float]:
        return self._reader.run, self._writer.next_offset, self._clock()

    def _revoked(self, public: bytes) -> bool:
        return self._line.closed and self._line.owner(public) is None

    def _welcome(self, identity: bytes, public: bytes, hello: m.Hello) -> None:
        refusal = refused(
            hello,
            digest=self._config_digest,
            owner=self._line.owner(public),
            last_epoch=self._writer.last_epoch(hello.worker),
        )
        if refusal is not None:
            self._refuse_worker(identity, hello.worker, refusal)
            return
        known = next((p for p in self._peers.values() if p.hello.worker == hello.worker), None)
        said_again = known is not None and known.hello.incarnation == hello.incarnation
        try:
            if known is not None and said_again:
                epoch = known.epoch
            else:
                epoch = hello.epoch or self._writer.open_epoch(hello.worker)
        except LogFull as error:
            self._log.error("disk full", error=str(error))
            return  # the worker asks again
        if known is not None:
            del self._peers[known.identity]
            if said_again and known.identity != identity:
                self._log.warning(
                    "line was cut",
                    worker=hello.worker,
                    epoch=epoch,
                    next_sequence=self._writer.position(hello.worker)[1],
                    silent_seconds=round(self._clock() - known.last_seen, 2),
                    reason=CUT,
                )
            if not said_again:
                self._refuse_worker(known.identity, hello.worker, m.Refused(reason=TAKEN))
        self._refusals.came_in(hello.worker)
        self._peers[identity] = Peer(identity, public, hello, epoch, self._clock())
        for key in self._leases.of(hello.worker):
            if key not in hello.holding:
                self._release(key, "lost on the way", counts=False)
        if not said_again:
            if not hello.epoch:
                self._tell(self._presence.left(hello.worker, "replaced"))
            self._tell(self._presence.joined(hello))
            self._log.info("worker joined", worker=hello.worker, role=hello.role, epoch=epoch)
        self._send(
            identity,
            m.Welcome(
                run=self._reader.run,
                epoch=epoch,
                credits=self._config.credits,
                heartbeat_seconds=self._config.heartbeat_seconds,
                dead_seconds=self._config.dead_seconds,
                max_message_bytes=self._config.max_message_mib << 20,
            ),
        )

    def _refuse_worker(self, identity: bytes, worker: str, refusal: m.Refused) -> None:
        self._refusals.told(worker, refusal.reason, self._clock())
        self._log.warning(
            "worker refused", worker=worker, reason=refusal.reason, for_good=not refusal.anew
        )
        self._send(identity, refusal)

    def _tell(self, event: Event | None) -> None:
        """Into the next commit, under the server's own name, before what is yet to come."""
        if event is None:
            return
        sequence, self._own_sequence = self._own_sequence, self._own_sequence + 1
        body = encode_event(event)
        submission = Submission(SERVER, self._own_epoch, sequence, kind_of(event), body)
        self._batch.append(Received(None, sequence, [cast(AnyEvent, event)], [submission]))

    def _received(self, peer: Peer, message: m.Append, frames: list[bytes]) -> Received | None:
        """What is to be committed; None for what was refused to its sender."""
        try:
            return read_append(
                message,
                frames,
                identity=peer.identity,
                producer=peer.hello.worker,
                epoch=peer.epoch,
                has_blob=self._reader.has_blob,
            )
        except BadMessage as error:
            self._log.warning("append refused", worker=peer.hello.worker, reason=str(error))
            refusal = m.AppendRefused(sequence=message.sequence, reason=str(error), again=False)
            self._send(peer.identity, refusal)
            return None

    # --- commit and acknowledge ------------------------------------------------------------

    def _commit(self) -> None:
        batch, self._batch = self._batch, []
        if not batch:
            return
        mark_superseded(batch, self._writer.position, self._dispatcher.admits)
        start, began = self._writer.next_offset, time.perf_counter()
        try:
            answers = self._writer.append([received.submissions for received in batch])
        except LogFull as error:
            self._log.error("disk full", error=str(error))
            for received in batch:
                self._refuse(received, str(error), again=True)
            self._batch = [received for received in batch if received.identity is None]
            return
        self._metrics.observe(figures.COMMIT, time.perf_counter() - began)
        self._apply(start)
        for received, answer in zip(batch, answers, strict=True):
            if isinstance(answer, FencedProducer) and received.identity is not None:
                refusal = m.Refused(reason=str(answer))
                self._refuse_worker(received.identity, received.producer, refusal)
            elif isinstance(answer, LogError):
                self._refuse(received, str(answer), again=True)
            elif received.identity is not None:
                if answer[0].duplicate:
                    self._log.warning("frame was sent again", **received.told(), reason=AGAIN)
                offsets = [ack.offset for ack in answer]
                self._send(
                    received.identity, m.Appended(sequence=received.sequence, offsets=offsets)
                )

    def _apply(self, start: int) -> None:
        for record in self._reader.scan(start, self._writer.next_offset):
            key = completes(record.event())
            if key is not None:
                self._leases.settle(key)
            self._dispatcher.apply(record)
            self._metrics.add(figures.EVENTS, kind=record.kind)

    def _refuse(self, received: Received, reason: str, *, again: bool) -> None:
        if received.identity is not None:
            refusal = m.AppendRefused(sequence=received.sequence, reason=reason, again=again)
            self._send(received.identity, refusal)

    # --- leases and time -------------------------------------------------------------------

    def _hand_out(self) -> None:
        """To those who wait longest, in turn, until nothing is due or nobody waits."""
        for stage in STAGES:
            queue, out_of_reach = self._waiting[stage], {}
            while queue:
                identity, peer = queue.popitem(last=False)
                if self._peers.get(identity) is not peer or not peer.wants.get(stage):
                    continue
                work = self._dispatcher.take(stage)
                if work is None:
                    queue[identity] = peer
                    queue.move_to_end(identity, last=False)
                    break
                if not self._lease(peer, work):
                    out_of_reach[identity] = peer
                elif peer.wants[stage]:
                    queue[identity] = peer
            queue.update(out_of_reach)

    def _lease(self, peer: Peer, work: Work) -> bool:
        """False when the peer cannot be reached now. The work is then due again, as it is when its
        picture cannot be read."""
        frames: list[bytes] = []
        if work.picture:
            try:
                frames.append(self._reader.blob(work.picture))
            except (LogError, ValueError) as error:
                self._release(work.key, f"its picture cannot be read: {error}", counts=True)
                return True
        work = replace(work, attempt=self._leases.attempt(work.key))
        leased = m.Leased(work=work, seconds=self._config.lease_seconds)
        if not self._send(peer.identity, leased, frames):
            self._dispatcher.give_back(work.key)
            return False
        self._leases.grant(work, peer.hello.worker, self._clock())
        peer.wants[work.stage] -= 1
        return True

    def _release(self, key: str, reason: str, *, counts: bool) -> None:
        failures = self._leases.release(key, counts=counts)
        if failures is None:
            self._dispatcher.give_back(key)
            return
        event = WorkAbandoned(work=key, reason=reason[:500], attempts=failures)
        told = (e for r in self._batch if r.identity is None for e in r.events)
        if self._dispatcher.admits(event) and not any(
            isinstance(e, WorkAbandoned) and e.work == key for e in told
        ):
            self._tell(event)
            self._log.warning("work abandoned", work=key, reason=reason, attempts=failures)

    def _keep_time(self) -> None:
        now = self._clock()
        if now - self._last_round < min(ROUND_SECONDS, self._config.heartbeat_seconds / 4):
            return  # what follows goes through all peers and leases
        self._last_round = now
        for key in self._leases.expired(now):
            self._release(key, "its lease ran out", counts=True)
        for peer in list(self._peers.values()):
            if self._revoked(peer.public):
                self._log.warning("key revoked", worker=peer.hello.worker)
                self._send(peer.identity, m.Refused(reason=REVOKED))
                self._drop(peer, "revoked")
            elif now - peer.last_seen > self._config.dead_seconds:
                self._log.warning("worker silent", worker=peer.hello.worker)
                self._drop(peer, "silent")
        if self._started is not None and now - self._started > self._config.dead_seconds:
            self._started = None  # workers of the server's former life had time to come back
            for worker in self._presence.roles.keys() - {
                p.hello.worker for p in self._peers.values()
            }:
                self._tell(self._presence.left(worker, "silent"))
        if now - self._last_look >= min(WATCH_SECONDS, self._config.warn_reader_seconds):
            self._last_look = now
            self._watch.look(now)
        if now - self._last_beat >= self._config.heartbeat_seconds:
            self._last_beat = now
            for event in self._watchdog.look(now):
                self._tell(event)
            for identity in list(self._peers):
                self._send(identity, m.Alive())

    def _drop(self, peer: Peer, reason: str) -> None:
        self._peers.pop(peer.identity, None)
        for key in self._leases.of(peer.hello.worker):
            self._release(key, f"its worker {reason}", counts=reason == "silent")
        self._tell(self._presence.left(peer.hello.worker, reason))

    def _send(self, identity: bytes, message: m.Message, frames: list[bytes] | None = None) -> bool:
        """False: lost, as the peer is gone or reads nothing. Then it asks again."""
        return self._line.send(identity, [m.encode(message), *(frames or [])])
