"""`mmzero run` as its users start it, to be looked into and tormented from outside."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from mmzero_async.log.errors import LogError
from mmzero_async.log.reader import LogReader

PATIENCE = 420.0  # seconds for any one thing to happen, on a busy machine
MARK = "MMZERO_TEST_RUN"  # children inherit it


def mmzero(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mmzero_async.ops.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
    )


def until(what: str, condition: Callable[[], bool], patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.2)


@dataclass
class WholeRun:
    run: Path

    @property
    def output(self) -> Path:
        return self.run.parent / "output.txt"

    def start(self, *overrides: str) -> subprocess.Popen[str]:
        output = self.output.open("a")
        return subprocess.Popen(
            [sys.executable, "-m", "mmzero_async.ops.cli", "run", "--run", self.run, *overrides],
            stdout=output,
            stderr=output,
            text=True,
            env={**os.environ, MARK: str(self.run), "COLUMNS": "200"},
        )

    def family(self, part: str = "") -> list[psutil.Process]:
        """Every process that works for the run, the engine's included, or those with this in their
        command line. One may end between being listed and being asked: it is no longer there."""
        found = []
        for process in psutil.process_iter():
            try:
                command = " ".join(process.cmdline())
                ours = str(self.run) in command or process.environ().get(MARK) == str(self.run)
            except psutil.Error:
                continue
            if ours and part in command:
                found.append(process)
        return found

    def reader(self) -> LogReader:
        return LogReader.open(self.run / "log")

    def events(self, *kinds: type[Any]) -> list[Any]:
        """None as long as there is no log."""
        if not (self.run / "log" / "data.mdb").exists():
            return []
        try:
            reader = self.reader()
        except LogError:  # being made this moment
            return []
        try:
            events = [record.event() for record in reader.scan()]
        finally:
            reader.close()
        return [event for event in events if isinstance(event, kinds)]

    def count(self, kind: type[Any], **wanted: Any) -> int:
        return sum(
            all(getattr(event, key) == value for key, value in wanted.items())
            for event in self.events(kind)
        )

    def end(self, process: subprocess.Popen[str]) -> None:
        """Nothing of it is left afterwards."""
        process.kill()
        process.wait()
        for left in self.family():
            left.kill()

    def evidence(self) -> str:
        tail = mmzero("tail", self.run, "--no-follow", "-n", "60").stdout
        return self.output.read_text() + tail
