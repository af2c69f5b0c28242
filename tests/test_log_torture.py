"""The log under torment: processes killed, stopped and repeating themselves; then the audit.

    TORTURE_SEED=7 TORTURE_SECONDS=600 python -m pytest -m slow tests/test_log_torture.py -s

After every round: each (worker, number) that was acknowledged is in the log exactly once, at the
offset that was told and with its blob; offsets are dense, each worker's numbers in order, and
`verify` is clean. Chance comes from the seed, which a failure names; when a signal strikes is up to
the machine.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from torture_children import BLOB_EVERY, ROLE, blob_of

from mmzero_async.config import Config, LogConfig
from mmzero_async.log.reader import LogReader
from mmzero_async.log.verify import verify
from mmzero_async.ports import free_port
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import WorkerFailed

CHILDREN = Path(__file__).with_name("torture_children.py")
CLIENTS = ("anna", "ben")
REPEATER = "echo"
A_LIFE = 1_000_000  # numbers that one life of a worker has for itself
PATIENCE = 60.0  # seconds in which everybody must get on again, on a busy machine


@dataclass
class Audit:
    """Reads on where it stopped, and holds against it what workers were promised."""

    run_dir: Path
    places: dict[tuple[str, int], int] = field(default_factory=dict)  # (worker, number) -> offset
    last: dict[str, int] = field(default_factory=dict)
    offset: int = 0
    promised: int = 0
    read: Counter[Path] = field(default_factory=Counter)  # bytes of each file of promises

    def __call__(self) -> None:
        promises = self._new_promises()  # before the log is read: it must hold them all
        reader = LogReader.open(self.run_dir / "log")
        try:
            for record in reader.scan(self.offset):
                assert record.offset == self.offset, "a hole in the log"
                self.offset += 1
                event = record.event()
                if isinstance(event, WorkerFailed) and event.role == ROLE:
                    self._place(record.envelope.producer, event, record.offset)
            for worker, number, offset in promises:
                assert self.places.get((worker, number)) == offset, (
                    f"{worker} was promised {number} at offset {offset}, the log has it at "
                    f"{self.places.get((worker, number))}"
                )
                if number % BLOB_EVERY == 0:
                    blob = blob_of(worker, number)
                    assert reader.blob(blob_digest(blob)) == blob
            self.promised += len(promises)
        finally:
            reader.close()
        found = verify(self.run_dir / "log")
        assert found.clean, found.problems
        assert found.events >= self.offset

    def _place(self, producer: str, event: WorkerFailed, offset: int) -> None:
        number = int(event.error.split()[0])
        assert producer == event.worker
        assert (producer, number) not in self.places, f"{producer} {number} is in the log twice"
        assert number > self.last.get(producer, -1), f"{producer} {number} comes too late"
        self.places[producer, number] = offset
        self.last[producer] = number

    def _new_promises(self) -> list[tuple[str, int, int]]:
        found = []
        for path in sorted(self.run_dir.glob("*.promised")):
            with path.open("rb") as file:
                file.seek(self.read[path])
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self.read[path] += len(whole)
            for line in whole.decode().splitlines():
                number, offset = line.split()
                found.append((path.stem, int(number), int(offset)))
        return found


class Torment:
    """The processes, and what can be done to them."""

    def __init__(self, run_dir: Path, rng: random.Random) -> None:
        self.run_dir, self.rng = run_dir, rng
        log = LogConfig(map_gib=1, heartbeat_seconds=0.2, dead_seconds=2.0)
        self.config = Config(log=log)
        (run_dir / "config.json").write_text(self.config.to_json())
        self.port = free_port("127.0.0.1", 0, key="log.port")
        self.lives: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.workers: dict[str, subprocess.Popen[str]] = {}
        self.reader: subprocess.Popen[str] | None = None
        self.server = self._start_server()
        for worker in (*CLIENTS, REPEATER):
            self._start_worker(worker)

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(CHILDREN), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self.run_dir / f"{arguments[0]}.stderr").open("a"),
            text=True,
        )

    def _start_server(self) -> subprocess.Popen[str]:
        seed = str(self.rng.random())
        return self._start("server", str(self.run_dir), str(self.port), seed)

    def _start_worker(self, worker: str) -> None:
        first, self.lives[worker] = self.lives[worker] * A_LIFE, self.lives[worker] + 1
        self.workers[worker] = self._start(
            "repeater" if worker == REPEATER else "client",
            f"tcp://127.0.0.1:{self.port}",
            self.config.digest(),
            worker,
            str(first),
            str(self.rng.random()),
            str(self.run_dir / f"{worker}.promised"),
        )

    # --- faults ----------------------------------------------------------------------------

    def kill_server(self) -> None:
        kill(self.server)
        time.sleep(self.rng.random() * 0.3)
        self.server = self._start_server()

    def kill_server_as_it_starts(self) -> None:
        self.kill_server()
        time.sleep(self.rng.random() * 1.5)
        kill(self.server)
        self.server = self._start_server()

    def kill_worker(self) -> None:
        worker = self.rng.choice(list(self.workers))
        kill(self.workers[worker])
        self._start_worker(worker)

    def kill_all(self) -> None:
        everybody = [self.server, *self.workers.values()]
        self.rng.shuffle(everybody)
        for process in everybody:
            kill(process)
        self.server = self._start_server()
        for worker in list(self.workers):
            self._start_worker(worker)

    def stop_server(self) -> None:
        """Beyond the heartbeat's patience, sometimes: then it looks dead and comes back."""
        self.server.send_signal(signal.SIGSTOP)
        time.sleep(self.rng.choice((0.1, 0.5, 2.5)))
        self.server.send_signal(signal.SIGCONT)

    def stop_worker(self) -> None:
        worker = self.workers[self.rng.choice(list(self.workers))]
        worker.send_signal(signal.SIGSTOP)
        time.sleep(self.rng.choice((0.1, 0.5, 2.5)))
        worker.send_signal(signal.SIGCONT)

    def change_slow_reader(self) -> None:
        """One that has held its snapshot over some rounds lets go, another takes its place."""
        self.check_slow_reader()
        self.reader = self._start("slow_reader", str(self.run_dir / "log"))
        assert self.reader.stdout is not None
        assert int(self.reader.stdout.readline()) >= 0

    def check_slow_reader(self) -> None:
        if self.reader is not None:
            told, _ = self.reader.communicate("look again\n")
            assert told.strip() == "same", "a snapshot changed under its reader"
            self.reader = None

    # --- rounds ----------------------------------------------------------------------------

    def round(self) -> None:
        faults: list[Callable[[], None]] = [
            self.kill_server,
            self.kill_server_as_it_starts,
            self.kill_worker,
            self.kill_worker,
            self.kill_all,
            self.stop_server,
            self.stop_worker,
            self.change_slow_reader,
        ]
        for _ in range(self.rng.randint(1, 3)):
            time.sleep(self.rng.random() * 0.5)
            fault = self.rng.choice(faults)
            fault()
            self.faults[fault.__name__] += 1

    def all_get_on(self) -> None:
        """Everybody is alive and is promised something new."""
        before = self._promised()
        deadline = time.monotonic() + PATIENCE
        while any(size <= before[worker] for worker, size in self._promised().items()):
            for name, process in {"server": self.server, **self.workers}.items():
                assert process.poll() is None, f"{name} ended by itself: {self._last_words()}"
            assert time.monotonic() < deadline, f"nothing goes on: {before}, {self._promised()}"
            time.sleep(0.05)

    def _promised(self) -> dict[str, int]:
        paths = {worker: self.run_dir / f"{worker}.promised" for worker in self.workers}
        return {w: path.stat().st_size if path.exists() else 0 for w, path in paths.items()}

    def _last_words(self) -> str:
        return "".join(path.read_text()[-500:] for path in self.run_dir.glob("*.stderr"))

    def end(self) -> None:
        self.server.send_signal(signal.SIGCONT)
        for process in (self.server, *self.workers.values(), self.reader):
            if process is not None:
                kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_nothing_acknowledged_is_lost_repeated_or_moved_whoever_is_killed(tmp_path: Path) -> None:
    seed = int(os.environ.get("TORTURE_SEED", time.time_ns() % 10**9))
    seconds = float(os.environ.get("TORTURE_SECONDS", "100"))
    run_dir = tmp_path / "torture"
    run_dir.mkdir()
    torment, audit = Torment(run_dir, random.Random(seed)), Audit(run_dir)
    began, rounds = time.monotonic(), 0
    try:
        torment.all_get_on()
        while time.monotonic() - began < seconds:
            torment.round()
            audit()
            torment.all_get_on()
            rounds += 1
        torment.check_slow_reader()
        torment.server.send_signal(signal.SIGTERM)
        assert torment.server.wait(30) == 0
        audit()
    except BaseException as error:
        error.add_note(f"TORTURE_SEED={seed}, round {rounds}, faults {dict(torment.faults)}")
        raise
    finally:
        torment.end()
    assert audit.promised > 0 and rounds > 0
    print(
        f"\n{rounds} rounds, {torment.faults.total()} faults {dict(torment.faults)}; "
        f"{audit.promised} promises kept, {audit.offset} events audited (seed {seed})"
    )
