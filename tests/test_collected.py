"""Log lines of other hosts: bounded, counted where they are lost, shown by `tail`."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
import zmq
from hypothesis import given
from hypothesis import strategies as st
from log_builders import TREES, write
from test_cli import mmzero

from mmzero_async import collected
from mmzero_async.collected import Collected, TooManyHosts
from mmzero_async.config import LogConfig, load
from mmzero_async.lines_followed import Place
from mmzero_async.log.writer import LogWriter
from mmzero_async.ports import free_port
from mmzero_async.telemetry import HOST, Lines
from mmzero_async.telemetry_options import LogsOptions
from mmzero_async.transport import reading as r
from mmzero_async.transport.errors import WorkerRefused
from mmzero_async.transport.keys import client_keys, new_keys
from mmzero_async.transport.line_sender import LineSender
from mmzero_async.transport.messages import encode
from mmzero_async.transport.read_server import ReadServer
from mmzero_async.workers.log_shipper import Shipper, Waiters, Waiting, shortened

PATIENCE = 60.0


def line(number: int, **also: Any) -> bytes:
    told = {"timestamp": f"2026-01-01T00:00:{number:09}Z", "level": "info", "event": "said"}
    return json.dumps(told | {"n": number} | also).encode()


def kept(run: Path, host: str) -> list[dict[str, Any]]:
    """All that is on disk of a host, the oldest first; a line that is no JSON fails."""
    folder = run / "logs" / "hosts"
    files = sorted(folder.glob(f"{host}.jsonl*"), key=lambda path: path.name, reverse=True)
    return [json.loads(text) for file in files for text in file.read_text().splitlines()]


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


# --- what is kept ---------------------------------------------------------------------------------


def test_a_batch_is_written_once_under_its_senders_host_and_strange_lines_are_left_out(
    tmp_path: Path,
) -> None:
    one = Collected(tmp_path, LogsOptions())
    strange = [b"no json", b"[1, 2]", b"\xff\xfe", b"[" * 9000, b'{"x": "' + b"x" * 40_000 + b'"}']
    assert one.take("beta", "s", 1, [line(1), *strange, line(2, host="alpha")]) == len(strange)
    assert one.take("beta", "s", 1, [line(1), line(2)]) == 0  # its acknowledgement was lost
    assert one.take("beta", "s", 2, [line(3)]) == 0
    assert one.take("beta", "another start", 1, [line(4)]) == 0
    assert one.take("gamma", "s", 1, [line(5)]) == 0
    assert [(told["n"], told["host"]) for told in kept(tmp_path, "beta")] == [
        (number, "beta") for number in (1, 2, 3, 4)
    ]
    assert [told["n"] for told in kept(tmp_path, "gamma")] == [5]


def test_a_host_takes_no_more_room_than_a_process_may_and_hosts_are_not_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = LogsOptions(file_mib=2000 / (1 << 20), keep=2)
    one = Collected(tmp_path, options)
    for number in range(300):
        one.take("beta", "s", number, [line(number, process=f"p{number}")])
    files = list((tmp_path / "logs" / "hosts").iterdir())
    assert len(files) == 3 and sum(file.stat().st_size for file in files) <= 3 * 2000
    assert kept(tmp_path, "beta")[-1]["n"] == 299
    monkeypatch.setattr(collected, "MOST_HOSTS", 2)
    one.take("gamma", "s", 0, [])
    with pytest.raises(TooManyHosts, match="delta is one more"):
        one.take("delta", "s", 0, [])


# --- what waits -----------------------------------------------------------------------------------


@given(
    did=st.lists(st.one_of(st.integers(0, 400), st.none()), max_size=60),  # None: one batch is sent
    most=st.integers(400, 900),
)
def test_what_waits_is_bounded_in_order_and_every_line_is_sent_or_counted(
    did: list[int | None], most: int
) -> None:
    waiters, sent, count = Waiters(most), list[int](), 0
    for what in did:
        if what is None:
            sent += [waiting.place.offset for waiting in waiters.batch(500)]
        else:
            waiters.put(Waiting(b"x" * what, "p.jsonl", Place(1, count)))
            count += 1
        assert waiters.bytes == sum(len(w.line) for w in waiters.queue) <= most
    while waiters.queue:
        sent += [waiting.place.offset for waiting in waiters.batch(500)]
    assert sent == sorted(set(sent)) and len(sent) + waiters.dropped["p.jsonl"] == count


def test_a_line_that_is_too_long_is_cut_and_says_so() -> None:
    assert shortened(line(1)) == line(1)
    trace = [{"frames": ["x" * 50_000]}]
    short = json.loads(shortened(line(2, exception=trace, error="e" * 70_000)))
    assert short["n"] == 2 and short["event"] == "said" and "exception" not in short
    assert set(short["error"]) == {"e"} and len(short["error"]) == 500
    assert short["cut_from_bytes"] > 120_000
    for hostile in (b"x" * 99_999, json.dumps({f"k{i}": i for i in range(9_000)}).encode()):
        assert len(shortened(hostile)) <= collected.LONGEST and json.loads(shortened(hostile))


# --- over the wire --------------------------------------------------------------------------------


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[LogWriter]:
    log = write(tmp_path / "run" / "log", TREES[:3])
    yield log
    log.close()


@contextlib.contextmanager
def collecting(writer: LogWriter, run: Path, config: LogConfig) -> Iterator[ReadServer]:
    keeping = Collected(run, LogsOptions())
    server = ReadServer(writer.reader(), config, structlog.get_logger(), collected=keeping)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


def shipping(host_dir: Path, url: str, host: str = "beta", keys=None) -> Shipper:
    return Shipper(host_dir, host, LineSender(url, host, keys))


def write_lines(host_dir: Path, process: str, numbers: range, pad: int = 0) -> None:
    lines = Lines(host_dir / "logs" / f"{process}.jsonl", LogsOptions())
    for number in numbers:
        lines.write(line(number, process=process, pad="x" * pad).decode() + "\n")


def test_what_is_lost_under_pressure_is_counted_on_the_other_side(
    writer: LogWriter, tmp_path: Path
) -> None:
    run, host_dir = tmp_path / "run", tmp_path / "beta"
    port = free_port("127.0.0.1", 0, key="x")
    shipper = shipping(host_dir, f"tcp://127.0.0.1:{port}")
    try:
        write_lines(host_dir, "beta.coder-0", range(3000), pad=1000)
        for _ in range(4):
            shipper.look()
            shipper.send(0.05)  # nobody is there
        with collecting(writer, run, LogConfig(read_port=port)):
            until(lambda: shipper.send(0.5) or shipper.idle)
            write_lines(host_dir, "beta.coder-0", range(3000, 3003))
            shipper.look()
            until(lambda: shipper.send(0.5) or shipper.idle)
    finally:
        shipper.close()
    told = kept(run, "beta")
    (lost,) = [each for each in told if each["event"] == "lines dropped"]
    numbers = [each["n"] for each in told if "n" in each]
    assert lost["of"] == {"beta.coder-0": 3003 - len(numbers)} and lost["level"] == "warning"
    assert lost["count"] > 1000 and numbers[-900:] == list(range(3003 - 900, 3003))
    assert numbers == sorted(set(numbers))


def test_a_key_sends_lines_of_its_own_host_alone(writer: LogWriter, tmp_path: Path) -> None:
    run, keys = tmp_path / "run", tmp_path / "keys"
    new_keys(keys, ["beta"])
    config = LogConfig(keys=str(keys))
    with collecting(writer, run, config) as server:
        for host, good in (("beta", True), ("gamma", False)):
            write_lines(tmp_path / host, "p", range(2))
            mine = client_keys(keys / "beta.key_secret")
            shipper = shipping(tmp_path / host, server.url, host, mine)
            try:
                shipper.look()
                if good:
                    until(lambda shipper=shipper: shipper.send(0.5) or shipper.idle)
                else:
                    with pytest.raises(WorkerRefused, match="may write as beta") as refused:
                        shipper.send(PATIENCE)
                    assert refused.value.for_good
            finally:
                shipper.close()
    assert [told["n"] for told in kept(run, "beta")] == [0, 1]
    assert [path.name for path in (run / "logs" / "hosts").iterdir()] == ["beta.jsonl"]


def test_a_hostile_batch_is_refused_and_nothing_is_written(
    writer: LogWriter, tmp_path: Path
) -> None:
    good = {"type": "lines", "id": 1, "host": "beta", "sender": "s", "lines": [line(1)]}
    hostile = [
        good | {"host": "../../etc/passwd"},
        good | {"host": "a/b"},
        good | {"host": ""},
        good | {"host": "x" * 101},
        good | {"lines": ["text", 7]},
        good | {"id": -1},
    ]
    encoder = msgspec.msgpack.Encoder()
    with (
        collecting(writer, tmp_path / "run", LogConfig()) as server,
        zmq.Context() as context,
        context.socket(zmq.DEALER) as socket,
    ):
        socket.linger = 0
        socket.connect(server.url)
        for each in hostile:
            socket.send(encoder.encode(each))
            assert socket.poll(PATIENCE * 1000)
            reply = r.decode_reply(socket.recv())
            assert isinstance(reply, r.ReadFailed) and reply.sort == "BadMessage"
        socket.send(encode(r.ReadEnd(id=5)))
        assert socket.poll(PATIENCE * 1000)
        assert r.decode_reply(socket.recv()).id == 5
    assert not (tmp_path / "run" / "logs").exists()
    assert not (tmp_path / "etc").exists()


# --- the processes --------------------------------------------------------------------------------


@contextlib.contextmanager
def process(module: str, *arguments: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", f"mmzero_async.workers.{module}", *arguments]
    child = subprocess.Popen(command, env={**os.environ, **env})
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def test_tail_on_the_logs_host_shows_all_hosts_whoever_is_killed(
    writer: LogWriter, tmp_path: Path
) -> None:
    """Lines of two hosts, while the read server and a shipper are killed: none is missing."""
    run = tmp_path / "run"
    port = str(free_port("127.0.0.1", 0, key="x"))
    for folder in (run, tmp_path / "beta", tmp_path / "gamma"):
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(load("seedling").to_json())
    url = f"tcp://127.0.0.1:{port}"

    def reader() -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        return process("log_reader", "--run-dir", str(run), "--port", port)

    def shipper(host: str) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        options = ("--run-dir", str(tmp_path / host), "--read-url", url)
        return process("log_shipper", *options, **{HOST: host})

    def came(host: str) -> set[int]:
        return {told["n"] for told in kept(run, host) if "n" in told}

    write_lines(tmp_path / "beta", "beta.coder-0", range(50))
    with shipper("gamma") as gammas:
        with reader(), shipper("beta"):
            until(lambda: came("beta") == set(range(50)))
            write_lines(tmp_path / "gamma", "gamma.solver-0", range(5))
            until(lambda: came("gamma") == set(range(5)))
        # Both the read server and beta's shipper were killed; lines go on.
        write_lines(tmp_path / "beta", "beta.coder-0", range(50, 80))
        write_lines(tmp_path / "gamma", "gamma.solver-0", range(5, 9))
        lines = Lines(tmp_path / "gamma" / "logs" / "gamma.solver-0.jsonl", LogsOptions())
        bad = line(9, level="error", role="solver", lineage="g7.s0.d1", process="gamma.solver-0")
        lines.write(bad.decode() + "\n")
        with reader(), shipper("beta") as betas:
            until(lambda: came("beta") == set(range(80)) and came("gamma") == set(range(10)))
            for child in (betas, gammas):
                child.send_signal(signal.SIGTERM)
                assert child.wait(PATIENCE) == 0
        # A batch whose acknowledgement died with its reader may be there twice, none out of order.
        numbers = [told["n"] for told in kept(run, "beta") if "n" in told]
        assert list(dict.fromkeys(numbers)) == list(range(80))

    def shown(*options: str) -> list[dict[str, Any]]:
        told = mmzero("tail", str(run), "--no-follow", "--json", "-n", "999", *options)
        assert told.returncode == 0, told.stderr
        return [json.loads(text) for text in told.stdout.splitlines()]

    hosts = {told["host"] for told in shown()}
    assert {"beta", "gamma"} < hosts and len(hosts) == 3  # the log's own host tells too
    assert {told["n"] for told in shown("--host", "beta") if "n" in told} == set(range(80))
    for options in (["--level", "error"], ["--lineage", "g7.s0"], ["--role", "solver"]):
        assert [told["n"] for told in shown(*options)] == [9]
