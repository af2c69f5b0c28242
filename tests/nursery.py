"""Processes that start in milliseconds: a child forked from an interpreter that has imported all.

    with Nursery("mmzero_async.workers.log_server") as nursery:
        child = nursery.start("mmzero_async.workers.log_server:main", ["--run-dir", "x"], log)
        child.kill()

What is killed and started again hundreds of times would otherwise import for most of that time. A
child is a process of its own: real signals, real sockets, nothing shared but the imported code.
Only imports happen before the fork: no thread, socket, ZeroMQ context or LMDB environment.
"""

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

PR_SET_PDEATHSIG = 1
PATIENCE = 240.0  # seconds for imports and for a killed child to be gone, on a busy machine


class Child:
    """One forked process."""

    def __init__(self, nursery: "Nursery", name: str, pid: int, log: Path) -> None:
        self.nursery, self.name, self.pid, self.log = nursery, name, pid, log
        self.status: int | None = None  # once it has ended: the exit status, or minus the signal

    def send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def poll(self) -> int | None:
        if self.status is None:
            self.status = self.nursery.ask(["poll", self.pid])
        return self.status

    def wait(self, seconds: float = PATIENCE) -> int:
        deadline = time.monotonic() + seconds
        while (status := self.poll()) is None:
            assert time.monotonic() < deadline, f"{self.name} does not end: {self.last_words()}"
            time.sleep(0.005)
        return status

    def kill(self) -> None:
        """kill -9, and until it is gone; also one that is stopped, or has ended already."""
        self.send(signal.SIGKILL)
        self.wait()

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""


class Nursery:
    """The parent of them all; at its end none is left."""

    def __init__(self, *modules: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # One thread each, as the supervisor starts them; a fork must not find others.
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        self._children: list[Child] = []
        assert self.ask(["ready"]) == "ready"

    def ask(self, request: list[Any]) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the nursery is gone"
        return json.loads(answer)

    def start(self, target: str, arguments: Sequence[str | Path], log: Path) -> Child:
        """`target` is `module:function`; it finds the arguments in sys.argv and writes to `log`."""
        pid = self.ask(["start", target, [str(a) for a in arguments], str(log)])
        child = Child(self, target, pid, log)
        self._children = [c for c in self._children if c.status is None] + [child]
        return child

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for child in self._children:
            child.kill()
        self._process.communicate()


def _serve(modules: Sequence[str]) -> None:
    for module in modules:
        importlib.import_module(module)
    for line in sys.stdin:
        match json.loads(line):
            case ["start", str(target), list(arguments), str(log)]:
                answer: Any = os.fork()
                if answer == 0:
                    _live(target, arguments, log)
            case ["poll", int(pid)]:
                ended, status = os.waitpid(pid, os.WNOHANG)
                answer = os.waitstatus_to_exitcode(status) if ended else None
            case _:
                answer = "ready"
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _live(target: str, arguments: Sequence[str], log: str) -> None:
    """In the child; never returns."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody outlives a killed test
    for descriptor, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        (2, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
    ):
        os.dup2(os.open(path, flags, 0o644), descriptor)
    module, _, function = target.partition(":")
    sys.argv = [module, *arguments]
    status = 1
    try:
        status = getattr(importlib.import_module(module), function)() or 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve(sys.argv[1:])
