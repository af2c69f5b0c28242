"""A command on a pseudo terminal: what it writes there, escapes and all."""

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PATIENCE = 60.0
COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3[0-8]|9[0-7])(?:;[0-9]+)*m")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass
class Screen:
    process: subprocess.Popen[bytes]
    master: int
    written: bytes = b""
    _open: bool = field(default=True)

    @property
    def text(self) -> str:
        return self.written.decode(errors="replace")

    @property
    def plain(self) -> str:
        return ESCAPE.sub("", self.text)

    def read_until(self, words: str, seconds: float = PATIENCE) -> None:
        """Until these words were written since the call; AssertionError when they never are."""
        start, deadline = len(self.written), time.monotonic() + seconds
        while words.encode() not in self.written[start:]:
            assert self._open and time.monotonic() < deadline, (
                f"no {words!r} in {self.text[-2000:]}"
            )
            self._read()

    def end(self, seconds: float = PATIENCE) -> int:
        """Everything that is written until the process ends; its exit status."""
        deadline = time.monotonic() + seconds
        while self._open:
            assert time.monotonic() < deadline, self.text[-2000:]
            self._read()
        return self.process.wait(seconds)

    def _read(self) -> None:
        if not select.select([self.master], [], [], 0.2)[0]:
            self._open = self.process.poll() is None
            return
        try:
            data = os.read(self.master, 1 << 16)
        except OSError:  # EIO: nobody has the other end any more
            data = b""
        self.written += data
        self._open = bool(data)


@contextmanager
def on_terminal(
    *arguments: str | Path, columns: int = 110, rows: int = 40, env: Mapping[str, str] | None = None
) -> Iterator[Screen]:
    """`mmzero` with these arguments on a terminal of that size."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    inherited = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", "mmzero_async.ops.cli", *map(str, arguments)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env={**inherited, "TERM": "xterm-256color", **(env or {})},
    )
    os.close(slave)
    screen = Screen(process, master)
    try:
        yield screen
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        with contextlib.suppress(OSError):
            os.close(master)
