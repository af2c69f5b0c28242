"""The tormentor of the log: real server and clients on a bad network and a small disk.

Holds the processes of one run, and one method a fault. Chance comes from the generator given;
when a signal strikes is up to the machine.
"""

import contextlib
import json
import random
import resource
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

from nursery import PATIENCE, Child, Nursery
from small_disk import SmallDisk
from torture_proxy import Proxy

from mmzero_async.config import Config, LogConfig
from mmzero_async.log.verify import verify
from mmzero_async.ports import free_port

CLIENTS = ("anna", "ben")
REPEATER = "echo"
A_LIFE = 1_000_000  # numbers that one life of a worker has for itself
DEAD_SECONDS = 1.5
PAGE = 4096


class Torment:
    """`faults()` names what can be done here; `do` does one of them."""

    def __init__(self, nursery: Nursery, run_dir: Path, rng: random.Random) -> None:
        self.nursery, self.run_dir, self.rng = nursery, run_dir, rng
        self.disk = SmallDisk(run_dir / "log")
        log = LogConfig(map_gib=1, heartbeat_seconds=0.2, dead_seconds=DEAD_SECONDS)
        self.config = Config(log=log)
        (run_dir / "config.json").write_text(self.config.to_json())
        self.port = free_port("127.0.0.1", 0, key="log.port")
        self.network = Proxy(self.port, rng)
        self.lives: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()  # what faults came to: torn copies named, ...
        self.workers: dict[str, Child] = {}
        self.reader: Child | None = None
        self.server = self._start_server()
        for worker in (*CLIENTS, REPEATER):
            self._start_worker(worker)

    def _start(self, what: str, *arguments: str | Path, log: str = "") -> Child:
        path = self.run_dir / f"{log or what}.output"
        return self.nursery.start(f"torture_children:{what}", arguments, path)

    def _start_server(self) -> Child:
        return self._start("server", self.run_dir, str(self.port), str(self.rng.random()))

    def _start_worker(self, worker: str) -> None:
        first, self.lives[worker] = self.lives[worker] * A_LIFE, self.lives[worker] + 1
        self.workers[worker] = self._start(
            "repeater" if worker == REPEATER else "client",
            f"tcp://127.0.0.1:{self.network.port}",
            self.config.digest(),
            worker,
            str(first),
            str(self.rng.random()),
            self.run_dir / f"{worker}.promised",
            log=worker,
        )

    def faults(self) -> list[str]:
        names = [
            *("kill_server", "kill_server", "kill_server_as_it_starts", "kill_worker"),
            *("kill_worker", "kill_all", "stop_server", "stop_worker", "change_slow_reader"),
            *("cut_connections", "cut_and_deliver_late", "stall_network", "slow_network"),
            *("limit_file_size", "tear_a_copy"),
        ]
        return [*names, "fill_disk", "kill_server_on_full_disk"] if self.disk.mounted else names

    def do(self, fault: str) -> None:
        getattr(self, fault)()

    # --- processes -------------------------------------------------------------------------

    def kill_server(self) -> None:
        self.server.kill()
        time.sleep(self.rng.random() * 0.2)
        self.server = self._start_server()

    def kill_server_as_it_starts(self) -> None:
        self.kill_server()
        time.sleep(self.rng.random() * 0.2)
        self.kill_server()

    def kill_worker(self) -> None:
        worker = self.rng.choice(list(self.workers))
        self.workers[worker].kill()
        self._start_worker(worker)

    def kill_all(self) -> None:
        everybody = [self.server, *self.workers.values()]
        self.rng.shuffle(everybody)
        for process in everybody:
            process.kill()
        self.server = self._start_server()
        for worker in list(self.workers):
            self._start_worker(worker)

    def stop_server(self) -> None:
        self._stop(self.server)

    def stop_worker(self) -> None:
        self._stop(self.workers[self.rng.choice(list(self.workers))])

    def _stop(self, process: Child) -> None:
        """Beyond the heartbeat's patience, sometimes: then it looks dead and comes back."""
        process.send(signal.SIGSTOP)
        time.sleep(self.rng.choice((0.05, 0.1, 0.3, DEAD_SECONDS + 0.3)))
        process.send(signal.SIGCONT)

    def change_slow_reader(self) -> None:
        """One that has held its snapshot over some rounds lets go, another takes its place."""
        self.check_slow_reader()
        name = f"slow_reader-{self.seen['snapshots held']}"
        self.reader = self._start("slow_reader", self.run_dir / "log", log=name)
        self.seen["snapshots held"] += 1
        self._until("a reader holds a snapshot", lambda: "holds" in self._reader_said())

    def check_slow_reader(self) -> None:
        if self.reader is not None:
            self.reader.send(signal.SIGTERM)
            assert self.reader.wait() == 0, self.reader.last_words()
            said = self._reader_said().split()
            assert said[-1] == "same", f"a snapshot changed under its reader: {said}"
            self.reader = None

    def _reader_said(self) -> str:
        assert self.reader is not None and not self.reader.poll(), "the slow reader died"
        return self.reader.last_words()

    # --- network ---------------------------------------------------------------------------

    def cut_connections(self) -> None:
        for _ in range(self.rng.randint(1, 3)):
            self.network.cut()
            time.sleep(self.rng.random() * 0.2)

    def cut_and_deliver_late(self) -> None:
        self.network.cut_and_deliver_late(self.rng.random())

    def stall_network(self) -> None:
        self.network.stall(flows=False)
        time.sleep(self.rng.choice((0.1, 0.3, DEAD_SECONDS + 0.3)))
        if self.rng.random() < 0.5:
            self.network.cut()
        self.network.stall(flows=True)

    def slow_network(self) -> None:
        self.network.delay(self.rng.random() * 0.1)
        time.sleep(0.3)
        self.network.delay(0.0)

    # --- disk ------------------------------------------------------------------------------

    def fill_disk(self) -> None:
        self.disk.fill()
        try:
            self._until_refused()
        finally:
            self.disk.make_room()

    def kill_server_on_full_disk(self) -> None:
        """It may or may not be able to start while there is no room; then there is room again."""
        self.disk.fill()
        try:
            self._until_refused()
            self.server.kill()
            self.server = self._start_server()
            time.sleep(self.rng.random() * 0.3)
        finally:
            self.disk.make_room()
        self.server.kill()
        self.server = self._start_server()

    def limit_file_size(self) -> None:
        """A full disk for those who may not mount one: the server's files cannot grow."""
        size = (self.run_dir / "log" / "data.mdb").stat().st_size
        unlimited = resource.RLIM_INFINITY
        resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE, (size, unlimited))
        try:
            self._until_refused()
        finally:
            if self.server.poll() is None:
                whole = (unlimited, unlimited)
                resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE, whole)

    def _until_refused(self) -> None:
        before = self._refusals()
        self._until("an append is refused for want of room", lambda: self._refusals() > before)
        self.seen["full disk refused"] += 1

    def _refusals(self) -> int:
        path = self.run_dir / "logs" / "log-server.jsonl"
        return path.read_text().count('"disk full"') if path.exists() else 0

    def tear_a_copy(self) -> None:
        """What a crash of the disk may leave of the file's end: it is named, or nothing is lost."""
        self.server.kill()
        copy = self.run_dir / "torn"
        copy.mkdir()
        try:
            shutil.copy(self.run_dir / "log" / "data.mdb", copy)
            self.server = self._start_server()
            whole = verify(copy)
            assert whole.clean, whole.problems
            data = copy / "data.mdb"
            truncated = self.rng.random() < 0.5
            (_truncate if truncated else _garble)(data, self.rng)
            found = verify(copy)
            assert not found.clean or found.events == whole.events, "lost in silence"
            self.seen["torn copies named" if not found.clean else "torn copies whole"] += 1
            if truncated or found.clean:
                reader = self._start("read_all", copy, log="read_all")
                assert reader.wait() == 0, f"reading a torn file ended: {reader.status}"
                said = reader.last_words().splitlines()[-1]
                assert said in ("torn", f"whole {whole.events}"), said
                assert said != "torn" or not found.clean, "refused, though verify finds it whole"
        finally:
            shutil.rmtree(copy)

    # --- between the rounds ----------------------------------------------------------------

    def all_get_on(self) -> None:
        """Everybody is alive and is promised something new."""
        before = self._promised()

        def got_on() -> bool:
            for process in (self.server, *self.workers.values()):
                assert process.poll() is None, f"{process.name} ended: {process.last_words()}"
            return all(size > before[worker] for worker, size in self._promised().items())

        self._until("everybody gets on", got_on)

    def _promised(self) -> dict[str, int]:
        paths = {worker: self.run_dir / f"{worker}.promised" for worker in self.workers}
        return {w: path.stat().st_size if path.exists() else 0 for w, path in paths.items()}

    def repeated(self) -> int:
        """Events that the repeater said again after their first time, in its last life."""
        path = self.run_dir / f"{REPEATER}.promised.repeated"
        return int(path.read_text() or 0) if path.exists() else 0

    def _until(self, what, condition) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain: {what}"
            time.sleep(0.01)

    def stop(self) -> None:
        """The server ends as it is asked to; the log is left as it is."""
        self.check_slow_reader()
        self.server.send(signal.SIGTERM)
        assert self.server.wait() == 0, self.server.last_words()

    def end(self) -> None:
        """All that is left is ended."""
        for process in (self.server, *self.workers.values(), self.reader):
            if process is not None:
                process.kill()
        self.network.close()

    def keep_evidence(self, folder: Path) -> None:
        """Before the disk goes."""
        with contextlib.suppress(shutil.Error):
            shutil.copytree(self.run_dir, folder, dirs_exist_ok=True)
        (folder / "network.json").write_text(json.dumps(self.network.carried))


def _truncate(file: Path, rng: random.Random) -> None:
    size = file.stat().st_size
    with file.open("r+b") as handle:
        handle.truncate(rng.randrange(max(size - 64 * PAGE, 2 * PAGE), size))


def _garble(file: Path, rng: random.Random) -> None:
    """The last pages: written with zeros, with noise, or with one byte changed."""
    size = file.stat().st_size
    start = rng.randrange(max(size - 16 * PAGE, 2 * PAGE), size)
    length = rng.choice((1, 512, size - start))
    with file.open("r+b") as handle:
        handle.seek(start)
        handle.write(bytes(length) if rng.random() < 0.5 else rng.randbytes(length))
