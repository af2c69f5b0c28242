"""One contract for the reader of the files and the one over the network; then what only the
network can do: hostile requests, readers that take nothing, servers that die."""

import asyncio
import contextlib
import itertools
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest
import structlog
import zmq
from builders import whole_tree
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import mmzero, write_run
from test_log_query import EVENT, WHERE, by_hand, write

from mmzero_async.config import LogConfig
from mmzero_async.log.errors import BlobMissing, ForeignLog, LogError, SnapshotOver
from mmzero_async.log.interface import Reader
from mmzero_async.log.query import Limits
from mmzero_async.log.where import parse_where
from mmzero_async.log.writer import LogWriter, Submission
from mmzero_async.ports import free_port
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import RunFinished, WorkerFailed, encode_event
from mmzero_async.schemas.record import Record, RecordDamaged
from mmzero_async.transport import reading as r
from mmzero_async.transport.errors import BadMessage, NotReachable, NotSecured
from mmzero_async.transport.keys import client_keys, new_keys
from mmzero_async.transport.messages import encode
from mmzero_async.transport.read_server import ReadServer
from mmzero_async.transport.remote_reader import RemoteReader

PICTURE = b"\x89PNG" * 40_000
EVENTS = [e for i in range(40) for e in whole_tree(f"g{i}")]
Opening = Callable[[LogWriter], contextlib.AbstractContextManager[Reader]]


@contextlib.contextmanager
def local(writer: LogWriter) -> Iterator[Reader]:
    yield writer.reader()


@contextlib.contextmanager
def remote(writer: LogWriter) -> Iterator[Reader]:
    with served(writer) as server, contextlib.closing(RemoteReader.open(server.url)) as reader:
        yield reader


@contextlib.contextmanager
def served(
    writer: LogWriter,
    config: LogConfig = LogConfig(),  # noqa: B008
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[ReadServer]:
    server = ReadServer(writer.reader(), config, structlog.get_logger(), clock)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[LogWriter]:
    log = write(tmp_path / "log", EVENTS)
    blobs = {blob_digest(PICTURE): PICTURE}
    log.append([[say(len(EVENTS), "first", blobs)]])
    yield log
    log.close()


def say(sequence: int, reason: str, blobs: dict[str, bytes] | None = None) -> Submission:
    body = encode_event(RunFinished(reason=reason))
    return Submission("w", 1, sequence, "run_finished", body, blobs or {})


@pytest.fixture(params=[local, remote], ids=["local", "remote"])
def reader(request: pytest.FixtureRequest, writer: LogWriter) -> Iterator[Reader]:
    with request.param(writer) as opened:
        yield opened


def damage(writer: LogWriter, database: str, key: bytes) -> None:
    env = writer.reader().environment
    db = getattr(env, database)
    with env.lmdb.begin(write=True) as txn:
        data = bytearray(txn.get(key, db=db))
        data[-1] ^= 1
        txn.put(key, bytes(data), db=db)


# --- the contract ---------------------------------------------------------------------------------


def test_a_reader_tells_the_run_the_end_each_event_and_each_blob(reader: Reader) -> None:
    count = len(EVENTS) + 1
    assert (reader.run, reader.next_offset) == ("r", count)
    assert [record.event() for record in reader.scan()][:-1] == EVENTS
    assert [record.offset for record in reader.scan(5, 9)] == [5, 6, 7, 8]
    assert [record.offset for record in reader.scan(count - 1, count + 9)] == [count - 1]
    assert [record.offset for record in reader.scan(-3, 2)] == [0, 1]
    assert list(reader.scan(9, 5)) == list(reader.scan(count)) == list(reader.scan(count + 7)) == []
    assert reader.get(3).event() == EVENTS[3]
    digest = blob_digest(PICTURE)
    assert reader.blob(digest) == PICTURE
    assert reader.has_blob(digest) and not reader.has_blob("00" * 32)
    assert not reader.has_blob("no digest")


def test_what_is_not_there_is_an_error_of_one_kind(reader: Reader) -> None:
    for offset in (-1, len(EVENTS) + 1, 10**9):
        with pytest.raises(LogError, match=f"no event at offset {offset}"):
            reader.get(offset)
    for digest in ("00" * 32, "no digest", "x" * 1000):
        with pytest.raises(BlobMissing, match="no blob"):
            reader.blob(digest)


def test_damage_is_named_and_not_returned(reader: Reader, writer: LogWriter) -> None:
    damage(writer, "events", (7).to_bytes(8, "big"))
    damage(writer, "blobs", bytes.fromhex(blob_digest(PICTURE)))
    where = parse_where("role=solver")
    for attempt in (
        lambda: reader.get(7),
        lambda: list(reader.scan()),
        lambda: list(reader.scan(where=where)),
    ):
        with pytest.raises(RecordDamaged, match="offset 7 is damaged"):
            attempt()
    with pytest.raises(RecordDamaged, match=f"blob {blob_digest(PICTURE)} is damaged"):
        reader.blob(blob_digest(PICTURE))
    assert [record.offset for record in reader.scan(8, 10)] == [8, 9]


def test_a_page_keeps_to_its_limits_and_says_where_to_go_on(reader: Reader) -> None:
    page = reader.page(limits=Limits(records=3))
    assert [record.offset for record in page.records] == [0, 1, 2]
    assert (page.next, page.end) == (3, len(EVENTS) + 1)
    page = reader.page(parse_where("kind=run_finished"), limits=Limits(looked=2))
    while not page.records:
        assert page.next < page.end
        page = reader.page(parse_where("kind=run_finished"), page.next, limits=Limits(looked=2))
    assert page.records[0].offset == len(EVENTS)
    assert len(reader.page(limits=Limits(bytes=1)).records) == 1
    assert reader.page(start=10**6).records == []


def test_a_snapshot_does_not_move_and_ends(reader: Reader, writer: LogWriter) -> None:
    count = len(EVENTS) + 1
    with reader.snapshot() as view:
        writer.append([[say(count, "later")]])
        assert reader.next_offset == count + 1
        assert (view.run, view.next_offset) == ("r", count)
        assert len(list(view.scan())) == count
        assert view.page(parse_where("kind=run_finished"), count - 1).end == count
        assert [r.offset for r in view.scan(where=parse_where("kind=run_finished"))] == [count - 1]
        assert view.blob(blob_digest(PICTURE)) == PICTURE
        with pytest.raises(LogError, match=f"event at offset {count}"):
            view.get(count)
    with pytest.raises(SnapshotOver):
        view.get(0)
    with reader.snapshot(seconds=0.05) as brief, pytest.raises(SnapshotOver, match=r"0\.05 s"):
        for _ in itertools.count():
            brief.get(0)


async def test_following_gives_what_is_there_and_what_comes_and_stops_when_cancelled(
    reader: Reader, writer: LogWriter
) -> None:
    count = len(EVENTS) + 1
    seen: asyncio.Queue[Record] = asyncio.Queue()

    async def follow() -> None:
        async with aclosing(reader.follow(10, parse_where("kind=run_finished"))) as following:
            async for record in following:
                seen.put_nowait(record)

    task = asyncio.create_task(follow())
    async with asyncio.timeout(20):
        assert (await seen.get()).event() == RunFinished(reason="first")
        for i in range(3):
            writer.append([[say(count + i, f"{i}")]])
            assert (await seen.get()).event() == RunFinished(reason=f"{i}")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled() and seen.empty()
    assert reader.next_offset == count + 3, "the reader is as good as before"


async def test_waiting_says_whether_it_came(reader: Reader, writer: LogWriter) -> None:
    count = len(EVENTS) + 1
    assert await reader.wait(count - 1, seconds=20)
    assert not await reader.wait(count, seconds=0.2)
    waiting = asyncio.create_task(reader.wait(count, seconds=20))
    await asyncio.sleep(0)
    writer.append([[say(count, "later")]])
    assert await waiting


@settings(max_examples=20, deadline=None)
@given(
    st.lists(EVENT, min_size=1, max_size=40),
    st.integers(0, 600),
    st.lists(WHERE, min_size=1, max_size=5),
    st.randoms(use_true_random=False),
)
def test_both_readers_find_the_same(
    tmp_path_factory: pytest.TempPathFactory, some_events, count, filters, rng
) -> None:
    folder = tmp_path_factory.mktemp("log")
    writer = write(folder, [rng.choice(some_events) for _ in range(count)])
    everything = list(writer.reader().scan())
    with remote(writer) as far:
        assert list(far.scan()) == everything
        for where in filters:
            wanted = by_hand(everything, where)
            start, stop = rng.randrange(0, count + 1), rng.randrange(0, count + 10)
            for reader in (writer.reader(), far):
                assert [r.offset for r in reader.scan(where=where)] == wanted
                assert list(reader.scan(start, stop, where)) == [
                    everything[offset] for offset in wanted if start <= offset < stop
                ]
            limits = Limits(records=rng.randrange(1, 50), looked=rng.randrange(1, 300))
            assert far.page(where, start, stop, limits) == writer.reader().page(
                where, start, stop, limits
            )
    writer.close()
    shutil.rmtree(folder)


# --- only over the network ------------------------------------------------------------------------


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
