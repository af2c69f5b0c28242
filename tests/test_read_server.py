"""What only the network can do: hostile requests, readers that take nothing, servers that die."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from log_builders import TREES as EVENTS
from log_builders import remote, say, served, write
from test_cli import mmzero, write_run

from mmzero_async.config import LogConfig
from mmzero_async.log.errors import ForeignLog
from mmzero_async.log.query import Limits
from mmzero_async.log.writer import LogWriter, Submission
from mmzero_async.ports import free_port
from mmzero_async.schemas.events import WorkerFailed, encode_event
from mmzero_async.transport import reading as r
from mmzero_async.transport.errors import BadMessage, NotReachable, NotSecured
from mmzero_async.transport.keys import client_keys, new_keys
from mmzero_async.transport.messages import encode
from mmzero_async.transport.remote_reader import RemoteReader
from mmzero_async.transport.security import send


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[LogWriter]:
    log = write(tmp_path / "log", EVENTS)
    log.append([[say(len(EVENTS), "first")]])
    yield log
    log.close()


def test_nobody_there_and_no_address_are_clear_errors() -> None:
    port = free_port("127.0.0.1", 0, key="x")
    with pytest.raises(NotReachable, match=r"within 1 s.*log\.read\.url"):
        RemoteReader.open(f"tcp://127.0.0.1:{port}", patience=0.6)
    with pytest.raises(ValueError, match="write tcp://host:port"):
        RemoteReader.open("tcp://127.0.0.1")


def test_who_waits_is_answered_when_something_comes_and_not_before(writer: LogWriter) -> None:
    count = len(EVENTS) + 1
    with (
        served(writer, clock=lambda: 0.0) as server,  # no wait ever ends by itself
        zmq.Context() as context,
        context.socket(zmq.DEALER) as socket,
    ):
        socket.linger = 0
        socket.connect(server.url)
        socket.send(encode(r.ReadPage(id=7, start=count, wait=1.0)))
        assert not socket.poll(300)
        writer.append([[say(count, "later")]])
        assert socket.poll(10_000), "no answer"
        reply = r.decode_reply(socket.recv_multipart()[0])
        assert isinstance(reply, r.ReadReply)
        assert (reply.id, reply.offsets, reply.end) == (7, [count], count + 1)


def test_with_keys_only_who_is_authorised_reads_and_a_key_taken_away_ends_it(
    writer: LogWriter, tmp_path: Path
) -> None:
    new_keys(tmp_path / "keys", ["alice", "mallory"])
    alice, mallory = (client_keys(tmp_path / "keys" / f"{n}.key_secret") for n in NAMES)
    (tmp_path / "keys" / "authorized" / "mallory.key").unlink()
    with served(writer, LogConfig(keys=str(tmp_path / "keys"))) as server:
        for keys in (None, mallory):
            with pytest.raises(NotReachable, match="--key FILE"):
                RemoteReader.open(server.url, keys=keys, patience=1.0)
        with contextlib.closing(RemoteReader.open(server.url, keys=alice)) as reader:
            assert len(list(reader.scan())) == len(EVENTS) + 1
            (tmp_path / "keys" / "authorized" / "alice.key").unlink()
            with pytest.raises(BadMessage, match="not authorised any more"):
                while True:
                    reader.get(0)


def test_without_keys_nobody_is_served_beyond_this_host(writer: LogWriter) -> None:
    with (
        pytest.raises(NotSecured, match="mmzero keys new"),
        served(writer, LogConfig(host="0.0.0.0")),
    ):
        pass


NAMES = ("alice", "mallory")
GOOD = r.ReadEnd(id=1)
HOSTILE = {
    "nothing": [b""],
    "garbage": [b"\xc1\xff\x00"],
    "two frames": [encode(GOOD), b"more"],
    "an append": [msgspec.msgpack.encode({"type": "append", "sequence": 0})],
    "negative": [msgspec.msgpack.encode({"type": "read_page", "id": 1, "start": -5})],
    "huge": [msgspec.msgpack.encode({"type": "read_page", "id": 1, "start": 2**63})],
    "deep": [b"\x91" * 5000],
    "for ever": [encode(r.ReadPage(id=1, start=0, wait=9.0)).replace(b"\x40\x22", b"\x7f\xf0")],
    "long filter": [encode(r.ReadPage(id=1, start=0, where="x" * 5000))],
    "bad filter": [encode(r.ReadPage(id=1, start=0, where="banana=3"))],
    "strange blob": [encode(r.ReadBlob(id=1, digest="../../etc/passwd"))],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_gets_an_error_and_the_server_goes_on(
    writer: LogWriter, name: str
) -> None:
    with served(writer) as server, zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(server.url)
        socket.send_multipart(HOSTILE[name])
        assert socket.poll(10_000), "no answer"
        head, *_ = socket.recv_multipart()
        failed = r.decode_reply(head)
        assert isinstance(failed, r.ReadFailed) and failed.reason
        socket.send(encode(GOOD))
        assert socket.poll(10_000), "the server is gone"
        assert r.decode_reply(socket.recv_multipart()[0]).id == 1


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.recursive(st.integers() | st.text(), st.lists).map(repr))
def test_any_bytes_are_a_request_or_refused_in_one_way(data: bytes | str) -> None:
    with contextlib.suppress(BadMessage):
        r.decode_request(data if isinstance(data, bytes) else data.encode())


def test_however_much_is_asked_for_a_page_is_bounded(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, run="r", map_gib=1, sync="nosync")
    body = encode_event(WorkerFailed(worker="w", role="r", error="x" * 200_000))
    for i in range(60):
        writer.append([[Submission("w", 1, i, "worker_failed", body)]])
    with remote(writer) as far:
        page = far.page(limits=Limits(10**9, 10**12, 10**9))
        assert len(page.records) == r.MOST.bytes // len(body) + 1
        assert len(list(far.scan())) == 60
    writer.close()


@contextlib.contextmanager
def read_server(run: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "mmzero_async.workers.log_reader", "--run-dir", str(run)]
    (run / "log.read.url").unlink(missing_ok=True)
    server = subprocess.Popen([*command, "--port", str(port)])
    try:
        while not (run / "log.read.url").exists():
            assert server.poll() is None, "the read server did not start"
            time.sleep(0.02)
        yield server
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "demo", EVENTS)


async def test_a_scan_and_a_follower_ride_out_a_server_that_is_killed_and_started_again(
    run: Path,
) -> None:
    port = free_port("127.0.0.1", 0, key="x")
    follower_has: asyncio.Queue[int] = asyncio.Queue()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(read_server(run, port))
        reader = RemoteReader.open(f"tcp://127.0.0.1:{port}", patience=60)
        stack.callback(reader.close)

        async def follow() -> None:
            async with aclosing(reader.follow(len(EVENTS))) as following:
                async for record in following:
                    follower_has.put_nowait(record.offset)

        following = asyncio.create_task(follow())
        async with asyncio.timeout(30):
            assert await follower_has.get() == len(EVENTS)
        pages = [reader.page(limits=Limits(records=100))]
        server.send_signal(signal.SIGSTOP)  # what it is sent now dies with it
        late = asyncio.create_task(asyncio.to_thread(lambda: list(reader.scan(pages[0].next))))
        await asyncio.sleep(0.3)
        server.send_signal(signal.SIGKILL)
        server.wait()
        stack.enter_context(read_server(run, port))
        async with asyncio.timeout(60):
            records = pages[0].records + await late
        assert [record.offset for record in records] == list(range(len(EVENTS) + 1))
        writer = LogWriter(run / "log", run="demo", map_gib=1)
        stack.callback(writer.close)
        writer.append([[Submission("late", 1, 0, "run_finished", say(0, "x").body)]])
        async with asyncio.timeout(60):
            assert await follower_has.get() == len(EVENTS) + 1
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def test_another_run_behind_the_same_address_is_not_read_as_this_one(
    run: Path, tmp_path: Path
) -> None:
    other = write_run(tmp_path / "runs" / "other", EVENTS)
    port = free_port("127.0.0.1", 0, key="x")
    with read_server(run, port):
        reader = RemoteReader.open(f"tcp://127.0.0.1:{port}")
        assert reader.run == "demo"
    refused = pytest.raises(ForeignLog, match=r"'demo' and now serves 'other'")
    with read_server(other, port), contextlib.closing(reader), refused:
        list(reader.scan())


def test_a_reader_that_takes_nothing_costs_no_memory_no_pages_and_nobody_elses_time(
    run: Path,
) -> None:
    writer = LogWriter(run / "log", run="demo", map_gib=1, sync="nosync")
    body = encode_event(WorkerFailed(worker="w", role="r", error="x" * 400_000))
    for i in range(30):
        writer.append([[Submission("big", 1, i, "worker_failed", body)]])
    port = free_port("127.0.0.1", 0, key="x")
    with read_server(run, port) as server, zmq.Context() as context:
        socket = context.socket(zmq.DEALER)
        socket.linger, socket.rcvhwm, socket.rcvbuf = 0, 1, 1 << 16
        socket.connect(f"tcp://127.0.0.1:{port}")
        for i in range(300):  # 1.2 GB, if it were all kept for it
            socket.send(encode(r.ReadPage(id=i, start=len(EVENTS) + 1)))
        with contextlib.closing(RemoteReader.open(f"tcp://127.0.0.1:{port}")) as other:
            assert len(list(other.scan())) == len(EVENTS) + 31
            for _ in range(400):  # taken in turns with the 300, so those are over afterwards
                assert other.next_offset == len(EVENTS) + 31
        status = Path(f"/proc/{server.pid}/status").read_text()
        [peak] = [int(li.split()[1]) for li in status.splitlines() if li.startswith("VmHWM")]
        assert peak < 250_000, f"{peak} kB"
        while holds_a_transaction(writer, server.pid):  # none, once it has answered the 300
            time.sleep(0.02)
        socket.close()
    writer.close()


def holds_a_transaction(writer: LogWriter, pid: int) -> bool:
    rows = writer.reader().environment.lmdb.readers().splitlines()[1:]
    return any(row.split()[0] == str(pid) and row.split()[2] != "-" for row in rows)


def test_an_answer_goes_to_whoever_takes_each_however_fast_they_follow() -> None:
    for _ in range(20):
        with (
            zmq.Context() as context,
            context.socket(zmq.ROUTER) as router,
            context.socket(zmq.DEALER) as reader,
        ):
            router.linger = reader.linger = 0
            router.setsockopt(zmq.ROUTER_MANDATORY, 1)
            router.setsockopt(zmq.SNDHWM, 4)
            reader.connect(f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}")
            reader.send(b"hello")
            identity, _ = router.recv_multipart()
            for number in range(20):  # libzmq by itself takes the fifth for one too many
                send(router, [identity, b"%d" % number])
                assert reader.recv() == b"%d" % number


def test_scan_and_trace_take_an_address_in_place_of_a_run(run: Path) -> None:
    port = free_port("127.0.0.1", 0, key="x")
    url = f"tcp://127.0.0.1:{port}"
    with read_server(run, port):
        for arguments in (["log", "scan"], ["trace"]):
            options = ["g3.s0"] if arguments == ["trace"] else ["--where", "lineage=g3.s0"]
            near = mmzero(*arguments, run, *options)
            far = mmzero(*arguments, url, *options)
            assert near.returncode == far.returncode == 0, far.stderr
            assert near.stdout == far.stdout and "g3.s0" in far.stdout
