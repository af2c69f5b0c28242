"""Who is not let in is told why and for how long, ends for good, and is not started again; a frame
that comes twice is written once, and the log server says whose it was."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import log_servers
import msgspec
import pytest
import structlog
import zmq
from test_transport import free_port
from transport_rig import Renders

from mmzero_async.config import Config, LogConfig, load
from mmzero_async.ops.errors import ProcessKeepsDying
from mmzero_async.ops.processes import Child
from mmzero_async.schemas.events import Event, Measured, encode_event, kind_of
from mmzero_async.transport import messages as m
from mmzero_async.transport.server import LogServer

PATIENCE_MS = 60_000
CONFIG = LogConfig(port=0, map_gib=1, dead_seconds=100)  # nobody here says that it lives


class Stranger:
    """Says what it likes on a plain line."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self.socket = socket

    def say(self, message: m.Message) -> None:
        self.socket.send(m.encode(message))

    def told(self) -> m.ToWorker:
        """The next answer that is no heartbeat."""
        while True:
            assert self.socket.poll(PATIENCE_MS), "no answer"
            answer = m.decode_to_worker(self.socket.recv())
            if not isinstance(answer, m.Alive):
                return answer


@contextlib.contextmanager
def strangers(server: LogServer) -> Iterator[Callable[[], Stranger]]:
    with zmq.Context() as context:
        sockets: list[zmq.Socket[bytes]] = []

        def another() -> Stranger:
            socket = context.socket(zmq.DEALER)
            socket.linger = 0
            socket.connect(server.url)
            sockets.append(socket)
            return Stranger(socket)

        try:
            yield another
        finally:
            for socket in sockets:
                socket.close()


HELLO = m.Hello(worker="w", role="r", incarnation="one", host="h", pid=1, config_digest="digest")


def append_of(sequence: int, *events: Event) -> m.Append:
    return m.Append(
        sequence=sequence,
        kinds=[kind_of(event) for event in events],
        bodies=[encode_event(event) for event in events],
    )


def test_a_frame_that_comes_again_is_written_once_and_its_sender_is_named(tmp_path: Path) -> None:
    with (
        structlog.testing.capture_logs() as lines,
        log_servers.serving(tmp_path / "log", Renders(), CONFIG) as server,
        strangers(server) as another,
    ):
        one = another()
        one.say(HELLO)
        welcome = one.told()
        assert isinstance(welcome, m.Welcome)
        twice = append_of(0, Measured(source="a", figures={}), Measured(source="b", figures={}))
        one.say(twice)
        first = one.told()
        one.say(append_of(2, Measured(source="c", figures={})))
        assert isinstance(one.told(), m.Appended)
        one.say(twice)
        assert one.told() == first
        # A frame of a life that is over: on its line, and with its Hello on another.
        later = another()
        later.say(msgspec.structs.replace(HELLO, incarnation="two"))
        assert isinstance(later.told(), m.Welcome)
        assert isinstance(one.told(), m.Refused)
        one.say(twice)
        assert isinstance(one.told(), m.Unknown)
        recorded = another()
        recorded.say(msgspec.structs.replace(HELLO, epoch=welcome.epoch))
        over = recorded.told()
        assert isinstance(over, m.Refused) and "epoch 1 of w is over" in over.reason
        sources = [e.source for r in server._reader.scan() if isinstance(e := r.event(), Measured)]
        assert sources == ["a", "b", "c"]
    (again,) = [line for line in lines if line["event"] == "frame was sent again"]
    assert (again["worker"], again["epoch"], again["sequence"], again["events"]) == ("w", 1, 0, 2)
    assert "replay" in again["reason"] and again["log_level"] == "warning"
    refusals = [line["reason"] for line in lines if line["event"] == "worker refused"]
    assert len(refusals) == 2 and refusals[1] == over.reason


@pytest.mark.parametrize(
    ("change", "words", "anew"),
    [
        ({"protocol": 99}, "protocol 99", False),
        ({"version": "9.9.9, schema 77"}, "9.9.9, schema 77", False),
        ({"config_digest": "other"}, "configuration other, the run has digest", False),
        ({"worker": "log-server"}, "the log server's own", False),
        ({"epoch": 7}, "by another log: start it anew", True),
    ],
)
def test_a_refusal_says_whether_another_start_is_of_use(
    tmp_path: Path, change: dict[str, object], words: str, anew: bool
) -> None:
    with (
        log_servers.serving(tmp_path / "log", Renders(), CONFIG) as server,
        strangers(server) as another,
    ):
        one = another()
        hello = msgspec.structs.replace(HELLO, **change)
        one.say(hello)
        told = one.told()
        assert isinstance(told, m.Refused) and words in told.reason and told.anew is anew
        one.say(m.Why())
        why = one.told()
        assert isinstance(why, m.WhyReply)
        assert [(r.worker, r.reason) for r in why.refused] == [(hello.worker, told.reason)]
        one.say(HELLO)  # who comes in after all is refused no more
        assert isinstance(one.told(), m.Welcome)
        one.say(m.Why())
        later = one.told()
        assert isinstance(later, m.WhyReply)
        assert [r.worker for r in later.refused] == [hello.worker] * (hello.worker != "w")


@contextlib.asynccontextmanager
async def log_server(run_dir: Path, config: Config) -> AsyncIterator[str]:
    """A process; its address."""
    (run_dir / "logs").mkdir(parents=True)
    (run_dir / "config.json").write_text(config.to_json())
    command = [sys.executable, "-m", "mmzero_async.workers.log_server", "--run-dir", str(run_dir)]
    server = await asyncio.create_subprocess_exec(*command)
    try:
        async with asyncio.timeout(60):
            while not (run_dir / "log.url").exists():  # noqa: ASYNC110 - another process's file
                await asyncio.sleep(0.05)
        yield (run_dir / "log.url").read_text()
    finally:
        server.terminate()
        await server.wait()


def renderer(run_dir: Path, url: str) -> Child:
    command = [sys.executable, "-m", "mmzero_async.workers.renderer", "--run-dir", str(run_dir)]
    command += ["--worker", "alpha.renderer-0", "--log-url", url]
    return Child("alpha.renderer-0", command, run_dir, structlog.get_logger())


@pytest.mark.timeout(300)
async def test_a_worker_that_is_refused_for_good_is_given_up_at_once_and_why_tells(tmp_path):
    log = LogConfig(port=free_port(), map_gib=1)
    config = msgspec.structs.replace(load("seedling"), log=log)
    run_dir, other = tmp_path / "run", tmp_path / "other"
    async with log_server(run_dir, config) as url:
        (other / "logs").mkdir(parents=True)
        different = load("seedling", ["coder.samples=7"])
        (other / "config.json").write_text(different.to_json())
        stray = renderer(other, url)
        with pytest.raises(ProcessKeepsDying) as given_up:
            await stray.keep_alive()
        reason = f"the worker has configuration {different.digest()}, the run has {config.digest()}"
        assert reason in str(given_up.value) and stray.restarts == 0
        assert stray.process is not None and stray.process.returncode == os.EX_CONFIG
        command = [sys.executable, "-m", "mmzero_async.ops.cli", "why", str(run_dir)]
        told = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
        (line,) = [line for line in told.stdout.splitlines() if "was refused" in line]
        assert line.startswith("alpha.renderer-0 was refused") and reason in line

        # A name that another process bears by now: the older one ends for good.
        older, newer = renderer(run_dir, url), renderer(run_dir, url)
        keeping = asyncio.create_task(older.keep_alive())
        await joined(run_dir, 1)
        following = asyncio.create_task(newer.keep_alive())
        with pytest.raises(ProcessKeepsDying, match="another process bears this name"):
            await keeping
        assert older.restarts == 0 and newer.restarts == 0
        await newer.stop()
        await following


async def joined(run_dir: Path, times: int) -> None:
    """Until the log server has let in so many."""
    lines = run_dir / "logs" / "log-server.jsonl"
    async with asyncio.timeout(100):
        while True:
            told = [json.loads(line) for line in lines.read_text().splitlines()]
            if sum(line["event"] == "worker joined" for line in told) >= times:
                return
            await asyncio.sleep(0.05)
