"""End to end: client processes, ZeroMQ, the real log-server process, its commit, the answer.

What it counts was acknowledged. The server runs as a run would start it, with full sync.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmzero_async.config import Config, LogConfig
from mmzero_async.ops.bench.appends import OURS, RAW, append_rates
from mmzero_async.ops.bench.figures import Figure, percentile
from mmzero_async.ops.bench.stores import Item
from mmzero_async.ops.bench.traffic import SIZES, mixed_items, values
from mmzero_async.transport.keys import new_keys

PROTOTYPE = 86.0  # trajectories a second: the best durable store of rollouts known so far
CLIENTS = 3
PATIENCE = 60.0  # seconds for a process to start, on a busy machine


@dataclass(frozen=True, slots=True)
class Ingested:
    events: int
    bytes: int
    seconds: float
    latencies: list[float]  # ms
    superseded: int
    server_peak: int  # bytes
    server_before: int


class ServerFailed(RuntimeError):
    """The log server or a client ended early; says what it said last."""


def ingestion(folder: Path, scale: float) -> Iterator[Figure]:
    """What clients get acknowledged, beside what the log takes from its own process."""
    seconds = 3 * scale
    for traffic in ("mixed", *SIZES):
        items = (
            mixed_items() if traffic == "mixed" else [Item(v) for v in values(SIZES[traffic], 16)]
        )
        alone = append_rates(folder, items, 16, 0.2 * scale, [OURS])
        single = append_rates(folder, items, 1, 0.1 * scale, [RAW])
        window = 6 if traffic == "mixed" else 16
        done = ingest(folder, traffic=traffic, clients=CLIENTS, window=window, seconds=seconds)
        rate, mean = done.events / done.seconds, sum(item.size for item in items) / len(items)
        note = f"{CLIENTS} client processes; {done.superseded} superseded"
        local = "the log alone, in one process, batches of 16"
        name = f"ingest_{traffic}"
        yield Figure(name, rate, "events/s", local, alone[OURS], note)
        size = done.bytes / done.seconds / 1e6
        yield Figure(f"{name}_bytes", size, "MB/s", local, alone[OURS] * mean / 1e6, note)
        if traffic == "mixed":
            prototype = "the best prototype known, a process"
            yield Figure("ingest_trajectories", rate, "trajectories/s", prototype, PROTOTYPE, note)
            peak, before = done.server_peak / 1e6, done.server_before / 1e6
            mapped = f"the log's mapped pages among them; {done.events} events"
            yield Figure("log_server_peak_memory", peak, "MB", "before the load", before, mapped)
        for share, word in ((0.5, "p50"), (0.99, "p99")):
            latency = percentile(done.latencies, share)
            yield Figure(f"{name}_ack_{word}", latency, "ms", f"{RAW}, one", 1000 / single[RAW])
    quiet = ingest(folder, traffic="1kB", clients=1, window=1, seconds=seconds / 2)
    for share, word in ((0.5, "p50"), (0.99, "p99")):
        latency = percentile(quiet.latencies, share)
        name, note = f"ingest_quiet_ack_{word}", "one client, one event of 1 kB at a time"
        yield Figure(name, latency, "ms", f"{RAW}, one", 1000 / single[RAW], note)
    yield from cost_of_keys(folder, seconds / 2)


def cost_of_keys(folder: Path, seconds: float) -> Iterator[Figure]:
    """Ingestion over CURVE beside ingestion without, by turns, so that both meet the same load."""
    keys = folder / "keys"
    new_keys(keys)
    for traffic, window in (("mixed", 6), ("100kB", 16)):
        rates: dict[str, float] = {}
        for with_keys in ("", str(keys), str(keys), ""):
            done = ingest(
                folder,
                traffic=traffic,
                clients=CLIENTS,
                window=window,
                seconds=seconds,
                keys=with_keys,
            )
            rates[with_keys] = rates.get(with_keys, 0.0) + done.events / done.seconds / 2
        name, note = f"ingest_{traffic}_curve", f"{CLIENTS} client processes; mean of two turns"
        yield Figure(name, rates[str(keys)], "events/s", "without keys", rates[""], note)
    shutil.rmtree(keys)


def ingest(
    folder: Path,
    *,
    traffic: str,
    clients: int,
    window: int,
    seconds: float,
    keys: str = "",
    beside: Callable[[Path], AbstractContextManager[None]] | None = None,
) -> Ingested:
    """`beside` goes on next to it, with the run's folder."""
    config = Config(log=LogConfig(port=0, keys=keys))
    run = folder / f"{traffic}-{clients}-{window}"
    run.mkdir()
    (run / "config.json").write_text(config.to_json())
    with serving(run) as (server, url), beside(run) if beside else nullcontext():
        before = _peak_of(server.pid)
        numbers = (str(clients), traffic, str(window))
        processes = [
            _start("client", url, config.digest(), keys, str(i), *numbers) for i in range(clients)
        ]
        try:
            for process in processes:
                _line(process)  # ready
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(f"{seconds}\n")
                process.stdin.flush()
            began = time.perf_counter()
            reports: list[dict[str, Any]] = [json.loads(_line(process)) for process in processes]
            passed = time.perf_counter() - began
        finally:
            for process in processes:
                process.kill()
                process.communicate()
        peak = _peak_of(server.pid)
    shutil.rmtree(run)
    return Ingested(
        events=sum(report["events"] for report in reports),
        bytes=sum(report["bytes"] for report in reports),
        seconds=passed,
        latencies=[ms for report in reports for ms in report["latencies"]],
        superseded=sum(report["superseded"] for report in reports),
        server_peak=peak,
        server_before=before,
    )


@contextmanager
def serving(
    run: Path, module: str = "log_server", address: str = "log.url"
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A worker's process, and the address that it says it listens at."""
    command = [sys.executable, "-m", f"mmzero_async.workers.{module}", "--run-dir", str(run)]
    server = subprocess.Popen(command, text=True, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + PATIENCE
        while not (run / address).exists():
            if server.poll() is not None or time.monotonic() > deadline:
                server.kill()
                raise ServerFailed(f"the {module} did not start: {server.communicate()[1]}")
            time.sleep(0.05)
        yield server, (run / address).read_text()
    finally:
        server.terminate()
        server.communicate()


def _start(module: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"mmzero_async.ops.bench.{module}", *arguments]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise ServerFailed(f"a client ended early: {process.communicate()[1][-2000:]}")
    return line


def _peak_of(pid: int) -> int:
    """VmHWM of a process, in bytes; 0 where /proc does not tell."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [line.split()[1] for line in text.splitlines() if line.startswith("VmHWM")]
    return int(found[0]) * 1024 if found else 0
