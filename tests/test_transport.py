"""Workers and log server over real sockets: acknowledged is committed, leases fall due again."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import log_servers
import msgspec
import pytest
import structlog
import zmq
from transport_rig import Renders

from mmzero_async.config import Config, LogConfig, from_json
from mmzero_async.log.reader import LogReader
from mmzero_async.log.writer import LogWriter
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import (
    Measured,
    Rendered,
    WorkAbandoned,
    WorkerFailed,
    WorkerJoined,
    WorkerLeft,
)
from mmzero_async.schemas.work import Work
from mmzero_async.transport import messages as m
from mmzero_async.transport.client import LogClient
from mmzero_async.transport.errors import NotReachable, PortInUse, WorkerRefused
from mmzero_async.transport.server import LogServer

CONFIG = LogConfig(port=0, map_gib=1, heartbeat_seconds=0.1, dead_seconds=0.6, max_attempts=2)


def serving(path: Path, dispatcher, config: LogConfig = CONFIG):
    return log_servers.serving(path, dispatcher, config, sync="full")


def joining(server: LogServer, worker: str = "w", digest: str = "digest"):
    return LogClient.connect(
        server.url, worker=worker, role="renderer", config_digest=digest, patience=3
    )


def stored(path: Path, kind: type):
    reader = LogReader.open(path)
    try:
        return [record.event() for record in reader.scan() if isinstance(record.event(), kind)]
    finally:
        reader.close()


def rendered(work: Work, worker: str = "x") -> Rendered:
    return Rendered(drawing=work.target, renderer=worker)


async def test_what_is_acknowledged_is_in_the_log(tmp_path):
    picture = b"png" * 1000
    with serving(tmp_path, Renders(0)) as server:
        async with joining(server) as client:
            event = Measured(source="w", figures={"x": 1.0})
            offsets = await client.append([event, event], {blob_digest(picture): picture})
            records = server._reader.read(offsets[0], 2)
            assert [r.event() for r in records] == [event, event]
            assert server._reader.blob(blob_digest(picture)) == picture
            many = await asyncio.gather(*(client.append([event]) for _ in range(300)))
            assert sorted(o for [o] in many) == list(range(offsets[1] + 1, offsets[1] + 301))
    assert stored(tmp_path, WorkerJoined)[0].worker == "w"


async def test_work_is_leased_once_and_a_late_result_is_superseded(tmp_path):
    with serving(tmp_path, Renders(3)) as server:
        async with joining(server, "a") as a, joining(server, "b") as b:
            leases = [await a.lease("render"), await b.lease("render"), await a.lease("render")]
            assert len({lease.work.key for lease in leases}) == 3
            waiting = asyncio.create_task(b.lease("render"))
            first = leases[0].work
            await a.fail(first.key, "try elsewhere", counts=False)
            again = await waiting
            assert again.work.key == first.key
            assert await b.append([rendered(first, "b")]) != [None]
            assert await a.append([rendered(first, "a")]) == [None]
    assert [event.renderer for event in stored(tmp_path, Rendered)] == ["b"]


async def test_the_picture_travels_with_the_lease(tmp_path):
    picture = b"\x89PNG" * 50
    with serving(tmp_path, Renders(1, blob_digest(picture))) as server:
        async with joining(server) as client:
            await client.append([Measured(source="w", figures={})], {blob_digest(picture): picture})
            lease = await client.lease("render")
            assert lease.picture == picture


def silence(client: LogClient) -> None:
    """Stops its heartbeat, as a frozen process would."""
    for task in asyncio.all_tasks():
        frame = getattr(task.get_coro(), "cr_frame", None)
        if task.get_coro().__qualname__ == "LogClient._beat" and frame.f_locals["self"] is client:
            task.cancel()


async def test_leases_of_a_silent_worker_fall_due_again(tmp_path):
    with serving(tmp_path, Renders(1)) as server:
        async with joining(server, "healthy") as healthy, joining(server, "dying") as dying:
            lost = await dying.lease("render")
            silence(dying)
            async with asyncio.timeout(5):
                again = await healthy.lease("render")
            assert again.work.key == lost.work.key
            assert await healthy.append([rendered(again.work)]) != [None]
    assert WorkerLeft(worker="dying", role="renderer", reason="silent") in stored(
        tmp_path, WorkerLeft
    )


async def test_work_that_keeps_failing_is_abandoned_with_its_reason(tmp_path):
    with serving(tmp_path, Renders(2)) as server:
        async with joining(server) as client:
            poison = (await client.lease("render")).work.key
            await client.fail(poison, "boom")
            good = await client.lease("render")
            again = await client.lease("render")
            assert {good.work.key, again.work.key} >= {poison}
            await client.fail(poison, "boom")
            async with asyncio.timeout(5):
                while not stored_in(server, WorkAbandoned):  # noqa: ASYNC110 - nothing to await
                    await asyncio.sleep(0.05)
            event = stored_in(server, WorkAbandoned)[0]
            assert (event.work, event.reason, event.attempts) == (poison, "boom", 2)
            status = await client.status()
            assert status["backlog"] == {"render": 1}


def stored_in(server: LogServer, kind: type):
    return [r.event() for r in server._reader.scan() if isinstance(r.event(), kind)]


async def test_a_wrong_configuration_a_taken_name_and_nobody_home_are_clear_errors(tmp_path):
    with serving(tmp_path, Renders(0)) as server:
        with pytest.raises(WorkerRefused, match=r"other.*digest"):
            async with joining(server, digest="other"):
                pass
        async with joining(server, "twin") as older, joining(server, "twin") as newer:
            await newer.append([Measured(source="new", figures={})])
            with pytest.raises(WorkerRefused, match=r"another process|epoch"):
                await older.append([Measured(source="old", figures={})])
        port = int(server.url.rsplit(":", 1)[1])
        other = LogWriter(tmp_path / "other", run="r", map_gib=1)
        with pytest.raises(PortInUse, match=r"log\.port"):
            LogServer(other, Renders(0), LogConfig(port=port), "d", structlog.get_logger())
        other.close()
    with pytest.raises(NotReachable, match="run up"):
        async with LogClient.connect(
            "tcp://127.0.0.1:1", worker="w", role="r", config_digest="d", patience=0.5
        ):
            pass


async def test_another_version_is_refused_at_joining_and_both_are_named(tmp_path):
    with serving(tmp_path, Renders(0)) as server, zmq.Context() as context:
        socket = context.socket(zmq.DEALER)
        socket.linger = 0
        socket.connect(server.url)
        hello = m.Hello(
            worker="w",
            role="r",
            incarnation="i",
            host="h",
            pid=1,
            config_digest="digest",
            version="9.9.9, schema 77",
        )
        socket.send(m.encode(hello))
        assert await asyncio.to_thread(socket.poll, 20_000)
        told = m.decode_to_worker(socket.recv())
        assert isinstance(told, m.Refused)
        assert "9.9.9, schema 77" in told.reason and m.VERSION in told.reason
        socket.send(m.encode(msgspec.structs.replace(hello, version=m.VERSION)))
        assert await asyncio.to_thread(socket.poll, 20_000)
        assert isinstance(m.decode_to_worker(socket.recv()), m.Welcome)
        socket.close()


async def test_garbage_costs_its_sender_an_error_and_nobody_else_anything(tmp_path):
    with serving(tmp_path, Renders(0)) as server:
        context = zmq.Context()
        vandal = context.socket(zmq.DEALER)
        vandal.connect(server.url)
        async with joining(server) as client:
            for garbage in (b"", b"\xc1", b"\x81\xa4type\xa5hello", os.urandom(200)):
                vandal.send(garbage)
            assert await client.append([Measured(source="w", figures={})])
            assert await asyncio.to_thread(vandal.poll, 2000)
            assert b"malformed" in vandal.recv()
        vandal.close(0)
        context.term()


APPENDER = """
import asyncio, sys
from mmzero_async.schemas.events import WorkerFailed
from mmzero_async.transport.client import LogClient
async def main(url, digest, n):
    async with LogClient.connect(url, worker="w", role="r", config_digest=digest) as client:
        for i in range(n):
            [offset] = await client.append([WorkerFailed(worker="w", role="r", error=str(i))])
            print(i, offset, flush=True)
asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def test_a_killed_and_restarted_server_loses_nothing_and_repeats_nothing(tmp_path):
    config = Config(log=LogConfig(port=free_port(), map_gib=1, heartbeat_seconds=0.2))
    (tmp_path / "config.json").write_text(config.to_json())
    assert from_json(config.to_json()) == config

    def start():
        command = [sys.executable, "-m", "mmzero_async.workers.log_server"]
        return subprocess.Popen([*command, "--run-dir", str(tmp_path)])

    server = start()
    url = f"tcp://127.0.0.1:{config.log.port}"
    total = 500
    appender = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        APPENDER,
        url,
        config.digest(),
        str(total),
        stdout=asyncio.subprocess.PIPE,
    )
    acknowledged = []
    for kill_at in (30, 150, 300):
        while len(acknowledged) < kill_at:
            acknowledged.append((await appender.stdout.readline()).split())
        server.send_signal(signal.SIGKILL)
        server.wait()
        server = start()
    output, _ = await asyncio.wait_for(appender.communicate(), 60)
    acknowledged += [line.split() for line in output.splitlines()]
    server.send_signal(signal.SIGTERM)
    assert server.wait(10) == 0
    assert [int(i) for i, _ in acknowledged] == list(range(total))
    reader = LogReader.open(tmp_path / "log")
    written = [(int(r.event().error), r.offset) for r in reader.scan() if r.kind == "worker_failed"]
    reader.close()
    assert written == [(int(i), int(offset)) for i, offset in acknowledged]
    assert [e.error for e in stored(tmp_path / "log", WorkerFailed)] == [
        str(i) for i in range(total)
    ]


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
