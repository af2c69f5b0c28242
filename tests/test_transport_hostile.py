"""Workers that lie, die, come back and bear each other's names do no harm to the log.

What is hostile in a message is tried over both links: plain, and CURVE with an authorised key.
"""

import asyncio
import contextlib
import os
import socket
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path

import log_servers
import msgspec
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from mmzero_async.config import LogConfig
from mmzero_async.log.errors import LogFull
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import (
    Measured,
    Rendered,
    WorkerJoined,
    WorkerLeft,
    encode_event,
    kind_of,
)
from mmzero_async.schemas.work import Work, completes
from mmzero_async.transport import messages as m
from mmzero_async.transport.client import LogClient
from mmzero_async.transport.errors import TransportError, WorkerRefused
from mmzero_async.transport.keys import ClientKeys, local_keys, new_keys
from mmzero_async.transport.security import secure_client
from mmzero_async.transport.server import LogServer

CONFIG = LogConfig(port=0, map_gib=1, heartbeat_seconds=0.1, dead_seconds=30.0, max_attempts=2)


class Renders:
    """A dispatcher over `count` renders."""

    def __init__(self, count: int = 0) -> None:
        works = [Work(stage="render", target=f"g0.s0.d{i}") for i in range(count)]
        self.open = {work.key: work for work in works}
        self.due = list(self.open)

    def admits(self, event):
        key = completes(event)
        return key is None or key in self.open

    def apply(self, record):
        self.open.pop(completes(record.event()) or "", None)

    def take(self, stage):
        while stage == "render" and self.due:
            if (work := self.open.get(self.due.pop(0))) is not None:
                return work
        return None

    def give_back(self, key):
        if key in self.open:
            self.due.append(key)

    def flows(self, held, hands):
        return []

    def backlog(self):
        return {"render": len(self.open)}


def serving(path: Path, dispatcher=None, config: LogConfig = CONFIG):
    return log_servers.serving(path, dispatcher or Renders(), config)


@dataclass(frozen=True)
class Link:
    """How a server listens, and what its clients need to come in."""

    config: LogConfig = CONFIG
    keys: ClientKeys | None = None


PLAIN = Link()


@pytest.fixture(params=["plain", "curve"])
def link(request, tmp_path) -> Link:
    if request.param == "plain":
        return PLAIN
    new_keys(tmp_path / "keys")
    config = msgspec.structs.replace(CONFIG, keys=str(tmp_path / "keys"))
    return Link(config, local_keys(config.keys))


class Wire:
    """A worker that speaks the protocol by hand, word for word."""

    def __init__(
        self, url: str, worker: str = "w", incarnation: str | None = None, link: Link = PLAIN
    ) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        secure_client(self.socket, url, link.keys)
        self.socket.connect(url)
        self.hello = m.Hello(
            worker=worker,
            role="renderer",
            incarnation=incarnation or uuid.uuid4().hex,
            host="h",
            pid=1,
            config_digest="digest",
        )

    def say(self, message: m.Message | bytes, *frames: bytes) -> None:
        first = message if isinstance(message, bytes) else m.encode(message)
        self.socket.send_multipart([first, *frames])

    def hear(self, kind: type, seconds: float = 5.0):
        """The next message of a kind, with its frames; heartbeats and others pass by."""
        while self.socket.poll(int(seconds * 1000)):
            first, *frames = self.socket.recv_multipart()
            message = m.decode_to_worker(first)
            if isinstance(message, kind):
                return message, frames
        raise AssertionError(f"no {kind.__name__} within {seconds} s")

    def join(self, epoch: int = 0) -> m.Welcome:
        self.say(msgspec.structs.replace(self.hello, epoch=epoch))
        return self.hear(m.Welcome)[0]

    def append(self, sequence: int, *events, blobs: tuple[bytes, ...] = ()) -> None:
        self.say(appending(sequence, *events, blobs=blobs), *blobs)

    def close(self) -> None:
        self.socket.close(0)
        self.context.term()


def appending(sequence: int, *events, blobs: tuple[bytes, ...] = ()) -> m.Append:
    return m.Append(
        sequence=sequence,
        kinds=[kind_of(event) for event in events],
        bodies=[encode_event(event) for event in events],
        blobs=[blob_digest(blob) for blob in blobs],
    )


@contextlib.contextmanager
def wires(server: LogServer, *names: str, link: Link = PLAIN):
    made = [Wire(server.url, name, link=link) for name in names]
    try:
        yield made
    finally:
        for wire in made:
            wire.close()


def joining(server: LogServer, worker: str = "w", link: Link = PLAIN):
    return LogClient.connect(
        server.url,
        worker=worker,
        role="renderer",
        config_digest="digest",
        patience=5,
        keys=link.keys,
    )


def events_of(server: LogServer, kind: type):
    return [e for r in server._reader.scan() if isinstance(e := r.event(), kind)]


def measured(n: float = 0.0) -> Measured:
    return Measured(source="w", figures={"n": n})


HOSTILE = {
    "no frame at all": [],
    "not UTF-8": [b"\x81\xa4type\xa5hel\xff\xff"],
    "nested without end": [b"\x82\xa4type\xa5hello\xa1x" + b"\x91" * 100_000 + b"\x90"],
    "a name longer than a key may be": [
        m.encode(
            m.Hello(
                worker="w" * 600, incarnation="i", role="r", host="h", pid=1, config_digest="digest"
            )
        )
    ],
    "a sequence below zero": [msgspec.msgpack.encode({"type": "append", "sequence": -1})],
}
HOSTILE_APPENDS = {
    "a sequence below zero": appending(-1, measured()),
    "a sequence beyond all bounds": appending(2**64 - 1, measured()),
    "no event": m.Append(sequence=0, kinds=[], bodies=[]),
    "a body that is not UTF-8": m.Append(
        sequence=0, kinds=["measured"], bodies=[b"\x82\xa4kind\xa8measured\xa6source\xa2\xff\xff"]
    ),
    "a body of another kind": m.Append(
        sequence=0, kinds=["measured"], bodies=[encode_event(Rendered(drawing="g0", renderer="x"))]
    ),
    "a kind of any length": m.Append(sequence=0, kinds=["k" * 5000], bodies=[b"\x80"]),
    "an id that is none": m.Append(
        sequence=0,
        kinds=["work_abandoned"],
        bodies=[
            msgspec.msgpack.encode(
                {"kind": "work_abandoned", "work": "propose/zebra", "reason": "x", "attempts": 1}
            )
        ],
    ),
    "a picture that was not sent": appending(
        0, Rendered(drawing="g0.s0.d0", renderer="x", picture="ab" * 32)
    ),
    "a blob that is not its digest's": m.Append(
        sequence=0, kinds=["measured"], bodies=[encode_event(measured())], blobs=["ab" * 32]
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_frame_leaves_the_server_serving(tmp_path, what, link):
    with (
        serving(tmp_path, config=link.config) as server,
        wires(server, "vandal", "good", link=link) as (vandal, good),
    ):
        vandal.socket.send_multipart(HOSTILE[what] or [b""])
        assert vandal.hear(m.Malformed)
        good.join()
        good.append(0, measured())
        assert good.hear(m.Appended)


@pytest.mark.parametrize("what", HOSTILE_APPENDS)
def test_a_hostile_append_is_refused_and_leaves_no_trace(tmp_path, what, link):
    with (
        serving(tmp_path, Renders(1), link.config) as server,
        wires(server, "vandal", "good", link=link) as (vandal, good),
    ):
        vandal.join()
        message = HOSTILE_APPENDS[what]
        vandal.say(message, *[b"blob"] * len(message.blobs))
        vandal.hear(m.Malformed | m.AppendRefused)
        vandal.append(0, measured(7))
        assert vandal.hear(m.Appended)
        good.join()
        good.append(0, measured(8))
        assert good.hear(m.Appended)
        assert events_of(server, Measured) == [measured(7), measured(8)]


@given(st.binary(max_size=200) | st.builds(lambda b: b"\x82\xa4type\xa6append" + b, st.binary()))
def test_any_bytes_decode_or_are_refused_in_one_way(frame):
    for decode in (m.decode_from_worker, m.decode_to_worker):
        with contextlib.suppress(TransportError):
            decode(frame)


def test_two_incarnations_never_share_an_epoch_even_over_a_restart(tmp_path):
    """An epoch that never wrote must survive a restart, or two workers would share sequences."""
    with serving(tmp_path) as server, wires(server, "twin") as (older,):
        epoch = older.join().epoch
        name = older.hello.incarnation
    with serving(tmp_path) as server:
        newer, back = Wire(server.url, "twin"), Wire(server.url, "twin", name)
        try:
            assert newer.join().epoch > epoch
            newer.append(0, measured(1))
            assert newer.hear(m.Appended)
            back.say(msgspec.structs.replace(back.hello, epoch=epoch))
            assert "taken over" in back.hear(m.Refused)[0].reason
            newer.append(1, measured(2))
            assert newer.hear(m.Appended)
        finally:
            newer.close()
            back.close()
        assert events_of(server, Measured) == [measured(1), measured(2)]


def test_an_epoch_that_the_log_never_gave_is_refused(tmp_path):
    with serving(tmp_path) as server, wires(server, "w") as (wire,):
        wire.say(msgspec.structs.replace(wire.hello, epoch=9))
        assert "another log" in wire.hear(m.Refused)[0].reason


def test_saying_hello_twice_changes_nothing(tmp_path):
    with serving(tmp_path) as server, wires(server, "w") as (wire,):
        wire.say(wire.hello)
        wire.say(wire.hello)
        assert wire.hear(m.Welcome)[0].epoch == wire.hear(m.Welcome)[0].epoch == 1
        wire.append(0, measured())
        assert wire.hear(m.Appended)
        assert len(events_of(server, WorkerJoined)) == 1


def test_a_result_out_of_sequence_does_not_supersede_another_workers_result(tmp_path):
    """Both in one commit: the refused one must not settle the work that the good one does."""
    with serving(tmp_path, Renders(8)) as server, wires(server, "a", "b") as (a, b):
        a.join()
        b.join()
        for i in range(8):  # which of the two is read first is not ours to say: both come up
            early, good = (a, b) if i % 2 else (b, a)
            result = Rendered(drawing=f"g0.s0.d{i}", renderer="x")
            hold(
                server,
                lambda e=early, g=good, r=result, n=i // 2: (e.append(99, r), g.append(n, r)),
            )
            assert early.hear(m.AppendRefused)[0].again
            assert good.hear(m.Appended)[0].offsets != [None]


def test_a_worker_has_joined_before_its_first_event_and_left_after_its_last(tmp_path):
    """Also when all of it arrives for one commit."""
    with serving(tmp_path) as server, wires(server, "w") as (wire,):

        def live_fast():
            wire.say(wire.hello)
            wire.append(0, measured())
            wire.say(m.Goodbye())

        hold(server, live_fast)
        assert wire.hear(m.Appended)
        kinds = [record.kind for record in server._reader.scan()]
        assert kinds == ["worker_joined", "measured", "worker_left"]


def test_two_results_of_one_work_in_one_commit_are_one_event(tmp_path):
    with serving(tmp_path, Renders(1)) as server, wires(server, "a", "b") as (a, b):
        a.join()
        b.join()
        result = Rendered(drawing="g0.s0.d0", renderer="x")
        hold(server, lambda: (a.append(0, result), b.append(0, result)))
        offsets = a.hear(m.Appended)[0].offsets + b.hear(m.Appended)[0].offsets
        assert sorted(offset is None for offset in offsets) == [False, True]
        assert events_of(server, Rendered) == [result]


def hold(server: LogServer, act) -> None:
    """Keeps the server from receiving until all that `act` sends has arrived."""
    turn, gate = server.turn, threading.Event()
    server.turn = lambda: (gate.wait(5), turn())
    act()
    threading.Event().wait(0.3)
    server.turn = turn
    gate.set()


def test_a_blob_is_kept_when_the_event_it_came_with_is_superseded(tmp_path):
    blob = os.urandom(100)
    with serving(tmp_path) as server, wires(server, "w") as (wire,):
        wire.join()
        late = Rendered(drawing="g0.s0.d0", renderer="x")
        wire.append(0, late, measured(), blobs=(blob,))
        offsets = wire.hear(m.Appended)[0].offsets
        assert offsets[0] is None and offsets[1] is not None
        assert server._reader.blob(blob_digest(blob)) == blob


def test_only_the_holder_of_a_lease_can_give_it_back(tmp_path):
    with serving(tmp_path, Renders(1)) as server, wires(server, "a", "b") as (a, b):
        a.join()
        b.join()
        a.say(m.Want(stage="render", slots=1))
        key = a.hear(m.Leased)[0].work.key
        for _ in range(3):
            b.say(m.Fail(key=key, reason="not mine"))
        b.say(m.Status())
        assert b.hear(m.StatusReply)[0].status["leases"] == 1
        a.say(m.Fail(key=key, reason="mine"))
        a.say(m.Want(stage="render", slots=1))
        assert a.hear(m.Leased)[0].work.attempt == 2


def test_leases_go_round_among_the_waiting(tmp_path):
    dispatcher = Renders(4)
    dispatcher.due, later = [], list(dispatcher.due)
    with serving(tmp_path, dispatcher) as server, wires(server, "a", "b") as both:
        for wire in both:
            wire.join()
            wire.say(m.Want(stage="render", slots=2))
        for key in later:  # one at a time
            dispatcher.due.append(key)
            threading.Event().wait(0.12)
        for wire in both:
            assert wire.hear(m.Leased) and wire.hear(m.Leased)


def test_the_log_tells_who_came_and_who_went_over_restarts(tmp_path):
    quick = msgspec.structs.replace(CONFIG, dead_seconds=0.5)
    with serving(tmp_path, config=quick) as server, wires(server, "stays", "goes") as (stays, goes):
        goes.join()
        epoch = stays.join().epoch
        name = stays.hello.incarnation
    with serving(tmp_path, config=quick) as server:
        wire = Wire(server.url, "stays", name)
        wire.join(epoch)
        for _ in range(8):
            wire.say(m.Heartbeat())
            threading.Event().wait(0.1)
        assert [e.worker for e in events_of(server, WorkerJoined)] == ["goes", "stays"]
        assert [(e.worker, e.reason) for e in events_of(server, WorkerLeft)] == [("goes", "silent")]
        wire.close()
        other = Wire(server.url, "stays")
        other.join()
        other.append(0, measured())
        other.hear(m.Appended)
        assert events_of(server, WorkerLeft)[-1].reason == "replaced"
        other.close()


async def test_a_client_rides_out_a_full_disk_and_keeps_its_order(tmp_path):
    with serving(tmp_path) as server:
        append, refusals = server._writer.append, iter(range(3))

        def full(messages):
            if next(refusals, None) is not None:
                raise LogFull("no room")
            return append(messages)

        async with joining(server) as client:
            server._writer.append = full
            async with asyncio.timeout(10):
                await asyncio.gather(*(client.append([measured(n)]) for n in range(100)))
        assert events_of(server, Measured) == [measured(n) for n in range(100)]


async def test_a_cancelled_wait_loses_no_lease(tmp_path):
    with serving(tmp_path, Renders(3)) as server:
        async with joining(server) as client:
            for pause in (0.0, 0.001, 0.002, 0.004, 0.008, 0.016):
                waiting = asyncio.create_task(client.lease("render"))
                await asyncio.sleep(pause)
                waiting.cancel()
                (got,) = await asyncio.gather(waiting, return_exceptions=True)
                if not isinstance(got, asyncio.CancelledError):
                    await client.fail(got.work.key, "was too quick", counts=False)
            async with asyncio.timeout(10):
                leases = [await client.lease("render") for _ in range(3)]
            assert len({lease.work.key for lease in leases}) == 3


async def test_a_lease_that_arrives_with_the_cancellation_is_given_back(tmp_path):
    with serving(tmp_path, Renders(1)) as server:
        async with joining(server) as client:
            waiting = asyncio.create_task(client.lease("render"))
            while not client.holding:  # noqa: ASYNC110 - seen before its caller wakes
                await asyncio.sleep(0)
            assert not waiting.done()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            async with asyncio.timeout(5):
                assert (await client.lease("render")).work.key == "render/g0.s0.d0"


async def test_a_settled_lease_is_no_longer_held(tmp_path):
    with serving(tmp_path, Renders(1)) as server:
        async with joining(server) as client:
            lease = await client.lease("render")
            assert client.holding == {lease.work.key}
            await client.append([Rendered(drawing=lease.work.target, renderer="x")])
            assert client.holding == frozenset()


def test_a_frame_of_the_largest_size_is_read_and_a_larger_one_costs_its_sender_the_line(
    tmp_path, link
):
    """To the byte: encryption adds some of its own, which must not count."""
    small = msgspec.structs.replace(link.config, max_message_mib=1)
    with (
        serving(tmp_path, config=small) as server,
        wires(server, "vandal", "good", link=link) as (vandal, good),
        contextlib.closing(vandal.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)) as cut,
    ):
        vandal.say(bytes(1 << 20))
        assert vandal.hear(m.Malformed)
        assert not cut.poll(0)
        vandal.say(bytes((1 << 20) + 1))
        assert cut.poll(30_000), "the server took a frame that is too large"
        good.join()
        good.append(0, measured(3), blobs=(bytes(1_000_000),))
        assert good.hear(m.Appended)


def test_frames_that_are_too_large_together_are_refused(tmp_path, link):
    small = msgspec.structs.replace(link.config, max_message_mib=1)
    with (
        serving(tmp_path, config=small) as server,
        wires(server, "vandal", link=link) as (vandal,),
    ):
        vandal.join()
        vandal.append(0, measured(1), blobs=tuple(bytes([i]) * 300_000 for i in range(4)))
        assert "max_message_mib" in vandal.hear(m.Malformed)[0].reason
        vandal.append(0, measured(2), blobs=tuple(bytes([i]) * 300_000 for i in range(3)))
        assert vandal.hear(m.Appended)
        assert events_of(server, Measured) == [measured(2)]


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01"
ON_THE_WIRE = {
    "nothing": b"",
    "not ZeroMQ": b"GET / HTTP/1.1\r\n\r\n",
    "noise": b"\xff" + bytes(range(256)) * 40,
    "half a greeting": GREETING,
    "no such mechanism": GREETING + b"NOSUCH".ljust(20, b"\0") + bytes(32),
    "PLAIN": GREETING
    + b"PLAIN".ljust(20, b"\0")
    + bytes(32)
    + b"\x04\x10\x05HELLO\x04user\x04pass",
    "a NULL that asks for all the memory": GREETING
    + b"NULL".ljust(20, b"\0")
    + bytes(32)
    + b"\x06"
    + b"\xff" * 8
    + b"\x05READY",
    "a CURVE that makes no sense": GREETING
    + b"CURVE".ljust(20, b"\0")
    + bytes(32)
    + b"\x04\xc8\x05HELLO"
    + bytes(194),
}


@pytest.mark.parametrize("what", ON_THE_WIRE)
def test_what_is_no_zeromq_harms_nobody(tmp_path, what, link):
    with (
        serving(tmp_path, config=link.config) as server,
        wires(server, "good", link=link) as (good,),
    ):
        port = int(server.url.rpartition(":")[2])
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                line = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                line.sendall(ON_THE_WIRE[what])
            good.join()
            good.append(0, measured())
            assert good.hear(m.Appended)
        assert [peer.hello.worker for peer in server._peers.values()] == ["good"]


async def test_a_message_larger_than_the_server_takes_is_refused_at_once(tmp_path, link):
    small = msgspec.structs.replace(link.config, max_message_mib=1)
    with serving(tmp_path, config=small) as server:
        async with joining(server, link=link) as client:
            blob = bytes(2 << 20)
            with pytest.raises(WorkerRefused, match="max_message_mib"):
                await client.append([measured()], {blob_digest(blob): blob})
            assert await client.append([measured()])
