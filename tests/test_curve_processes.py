"""Keys between real processes: killed and restarted over CURVE, handed on by path, never told."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import zmq.auth
from builders import coded, proposed
from fake_engine import FakeEngine

from mmzero_async.config import Config, LogConfig, RendererConfig
from mmzero_async.log.errors import LogError
from mmzero_async.log.reader import LogReader
from mmzero_async.log.verify import verify
from mmzero_async.ports import free_port
from mmzero_async.schemas.events import Coded, Proposed, Rendered, WorkerJoined
from mmzero_async.transport.client import LogClient
from mmzero_async.transport.keys import local_keys, new_keys

PATIENCE = 180.0  # seconds for any one thing to happen, on a busy machine
PROMPTS, DRAWINGS = 12, 2


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    new_keys(folder, ["alpha"])
    return folder


@pytest.fixture
def secrets(keys: Path) -> list[str]:
    found = [zmq.auth.load_certificate(path)[1].decode() for path in keys.glob("*.key_secret")]
    assert len(found) == 3 and all(len(secret) == 40 for secret in found)
    return found


class Processes:
    """Started by name, killed by name; none outlives the test."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, module: str, *options: str | Path) -> None:
        command = [sys.executable, "-m", f"mmzero_async.{module}", *map(str, options)]
        with (self.run / f"{name}.out").open("ab") as output:
            self.running[name] = subprocess.Popen(command, stdout=output, stderr=output)

    def kill(self, name: str) -> None:
        self.running[name].kill()
        self.running.pop(name).wait()

    def said(self, name: str) -> str:
        return (self.run / f"{name}.out").read_text(errors="replace")


@contextlib.contextmanager
def processes(run: Path) -> Iterator[Processes]:
    made = Processes(run)
    try:
        yield made
    finally:
        for name in list(made.running):
            made.kill(name)


def told_of(processes_seen: list[psutil.Process]) -> str:
    """What anybody on the host may learn of a process: its arguments and its environment."""
    told = []
    for process in processes_seen:
        with contextlib.suppress(psutil.Error):
            told += [*process.cmdline(), *(f"{k}={v}" for k, v in process.environ().items())]
    return "\n".join(told)


def written_in(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def events_of(run: Path) -> list:
    try:
        reader = LogReader.open(run / "log")
    except LogError:  # not yet, or being made this moment
        return []
    try:
        return [record.event() for record in reader.scan()]
    finally:
        reader.close()


async def until(condition) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - other processes cannot be awaited
            await asyncio.sleep(0.1)


@pytest.mark.timeout(600)
async def test_server_and_worker_killed_over_curve_lose_and_repeat_nothing(tmp_path, keys, secrets):
    run = tmp_path / "run"
    run.mkdir()
    log = LogConfig(
        port=free_port("127.0.0.1", 0, key="log.port"),
        keys=str(keys),
        map_gib=1,
        heartbeat_seconds=0.2,
        dead_seconds=2.0,
        max_attempts=100,
    )
    config = Config(log=log, renderer=RendererConfig(wall_seconds=60.0))
    (run / "config.json").write_text(config.to_json())
    renderer = ("--run-dir", run, "--worker", "alpha.renderer-0")
    renderer += ("--key", keys / "alpha.key_secret", "--log-url", f"tcp://127.0.0.1:{log.port}")
    acknowledged: list[tuple[str, int | None]] = []

    async def feed(client: LogClient) -> None:
        for i in range(PROMPTS):
            for event in (proposed(f"g{i}", [True]), coded(f"g{i}.s0", [True] * DRAWINGS)):
                (offset,) = await client.append([event])
                acknowledged.append((f"{type(event).__name__} g{i}", offset))
            await asyncio.sleep(0.1)

    def pictures() -> int:
        return sum(isinstance(event, Rendered) for event in events_of(run))

    with processes(run) as children:
        children.start("server", "workers.log_server", "--run-dir", run)
        children.start("renderer", "workers.renderer", *renderer)
        async with LogClient.connect(
            f"tcp://127.0.0.1:{log.port}",
            worker="feeder",
            role="test",
            config_digest=config.digest(),
            patience=PATIENCE,
            keys=local_keys(config.log.keys),
        ) as client:
            feeding = asyncio.create_task(feed(client))
            for victim, enough in (("server", 1), ("renderer", 3), ("server", 6)):
                await until(lambda enough=enough: pictures() >= enough)
                children.kill(victim)
                if victim == "server":
                    children.start("server", "workers.log_server", "--run-dir", run)
                else:
                    children.start("renderer", "workers.renderer", *renderer)
            async with asyncio.timeout(PATIENCE):
                await feeding
            await until(lambda: pictures() == PROMPTS * DRAWINGS)
            seen = [psutil.Process(child.pid) for child in children.running.values()]
            told = told_of([*seen, *(c for p in seen for c in p.children(recursive=True))])
        assert "alpha.key_secret" in told, "arguments were not seen"
    found = verify(run / "log")
    assert found.clean, found.problems
    events = events_of(run)
    for what, offset in acknowledged:
        assert offset is not None
        event = events[offset]
        assert isinstance(event, Proposed | Coded)
        name = event.group if isinstance(event, Proposed) else event.proposal.removesuffix(".s0")
        assert what == f"{type(event).__name__} {name}"
    assert len(acknowledged) == len(set(acknowledged)) == 2 * PROMPTS
    drawn = [event.drawing for event in events if isinstance(event, Rendered)]
    assert sorted(drawn) == sorted(f"g{i}.s0.d{j}" for i in range(PROMPTS) for j in range(DRAWINGS))
    assert all(event.picture for event in events if isinstance(event, Rendered))
    written = written_in(run)
    assert b"worker joined" in written, "the logs were not read"
    assert not [s for s in secrets if s in told or s.encode() in written]


@pytest.mark.slow  # the learner's imports take their time
@pytest.mark.timeout(600)
async def test_a_supervised_run_over_curve_tells_no_secret(tmp_path, keys, secrets):
    """Every process but the engine is real; it goes as far as a proposal in the log."""
    run = tmp_path / "run"
    async with FakeEngine() as engine:
        with processes(tmp_path) as children:
            children.start(
                "supervisor",
                "ops.cli",
                *("run", "--run", run, f"engine.url={engine.url}", f"log.keys={keys}"),
                *("evaluate=false", "max_minutes=0", "log.map_gib=1"),
            )
            supervisor = psutil.Process(children.running["supervisor"].pid)

            def proposing() -> bool:
                assert supervisor.is_running() and supervisor.status() != psutil.STATUS_ZOMBIE, (
                    children.said("supervisor")
                )
                return any(isinstance(event, Proposed) for event in events_of(run))

            await until(proposing)
            family = [supervisor, *supervisor.children(recursive=True)]
            told = told_of(family)
            children.running["supervisor"].send_signal(signal.SIGINT)
            await asyncio.to_thread(children.running["supervisor"].wait, PATIENCE)
    joined = {event.worker for event in events_of(run) if isinstance(event, WorkerJoined)}
    assert joined >= {"supervisor", "learner-0", "proposer-0"}
    assert "workers.log_server" in told and "workers.learner" in told
    written = written_in(run) + children.said("supervisor").encode()
    assert str(keys).encode() in written, "config.json was not read"
    assert not [s for s in secrets if s in told or s.encode() in written]


def test_keys_that_cannot_be_used_end_a_run_at_once_with_what_to_do(tmp_path, keys):
    (keys / "local.key_secret").chmod(0o644)
    command = [sys.executable, "-m", "mmzero_async.ops.cli", "run", "--run", tmp_path / "run"]
    ran = subprocess.run(
        [*command, f"log.keys={keys}"], capture_output=True, text=True, timeout=PATIENCE
    )
    assert ran.returncode == 1 and f"chmod 600 {keys}/local.key_secret" in ran.stderr


@pytest.mark.timeout(300)
@pytest.mark.parametrize("module", ["renderer", pytest.param("learner", marks=pytest.mark.slow)])
def test_a_worker_whose_key_cannot_be_used_says_so_and_asks_for_no_restart(tmp_path, keys, module):
    (tmp_path / "config.json").write_text(Config(log=LogConfig(keys=str(keys))).to_json())
    (keys / "local.key_secret").chmod(0o640)
    command = [sys.executable, "-m", f"mmzero_async.workers.{module}", "--run-dir", tmp_path]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert ran.returncode == os.EX_CONFIG and "chmod 600" in ran.stderr


def test_a_log_server_for_other_hosts_without_keys_says_what_to_do_and_asks_for_no_restart(
    tmp_path,
):
    config = Config(log=LogConfig(host="0.0.0.0", port=0, map_gib=1))
    (tmp_path / "config.json").write_text(config.to_json())
    command = [sys.executable, "-m", "mmzero_async.workers.log_server", "--run-dir", tmp_path]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert ran.returncode == os.EX_CONFIG
    assert "0.0.0.0" in ran.stderr and "mmzero keys new" in ran.stderr
