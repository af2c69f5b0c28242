"""Structured logs: every process writes JSON lines of its own under `<run>/logs/`.

Each line has time, level, event, run, host and process, and whatever else was bound (role, worker).
`<process>.jsonl` is written to, `<process>.jsonl.1` is the one before; the oldest goes. `mmzero
tail` merges the files for people. What a process prints lies beside them, as bounded. In a cluster
a host's lines are sent to the log server's host besides: see collected.py.
"""

import contextlib
import logging
import os
import shutil
import socket
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

import structlog

from mmzero_async.telemetry_options import LogsOptions

LOGS = "logs"
HOSTS = "hosts"  # in it, on the log server's host: a file of lines for each other host
LINES = ".jsonl"
PRINTED = (".err", ".log")  # of what children and engines print
LOOK_SECONDS = 5.0  # between two looks at what was printed
HOST = "MMZERO_HOST"  # the host's name in the lines, where it is not its own


class Lines:
    """A file of lines that outlives a full disk: a line that finds no room is lost, no more.

    Bounded: see LogsOptions. Two processes of one name (a worker and its successor) may write at
    once; of both only the one whose file is the newest begins another.
    """

    def __init__(self, path: Path, options: LogsOptions) -> None:
        self._path, self._options = path, options
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._size = 0
        self._torn = False  # the last line stopped short of its end
        with contextlib.suppress(OSError):
            self._open()

    def write(self, text: str) -> None:
        data = text.encode()
        with self._lock, contextlib.suppress(OSError):
            if self._size + len(data) > self._options.file_bytes and self._size:
                self._begin_another()
            file = self._file or self._open()
            if self._torn:
                data = b"\n" + data
            written = file.write(data)
            self._size += written
            self._torn = written < len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def _open(self) -> BinaryIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = file = self._path.open("a+b", buffering=0)
        self._size = file.seek(0, os.SEEK_END)
        self._torn = False
        if self._size:
            file.seek(-1, os.SEEK_END)
            self._torn = file.read(1) != b"\n"
        return file

    def _begin_another(self) -> None:
        """Raises OSError, and is tried again with the next line: the bound comes first."""
        if self._file is not None:
            ours = os.fstat(self._file.fileno())
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(ours, self._path.stat()):
                    _shift(self._path, self._options.keep)
            self._file.close()
            self._file = None
        self._open()


def _shift(path: Path, keep: int) -> None:
    """Makes room at `path`: what is there becomes .1, .1 becomes .2; the oldest goes."""
    if not keep:
        path.unlink()
        return
    for number in range(keep, 0, -1):
        with contextlib.suppress(FileNotFoundError):
            generation(path, number - 1).replace(generation(path, number))


def generation(path: Path, number: int) -> Path:
    """The file that was written to so many files ago; 0: now."""
    return path.with_name(f"{path.name}.{number}") if number else path


def bound_printed(run_dir: Path, options: LogsOptions) -> None:
    """Keeps what processes print within the bound. Their files are open for appending and cannot
    be taken from them: a full one is copied to `.1` and emptied, the lines in between are lost."""
    for path in (run_dir / LOGS).glob("*"):
        if path.suffix not in PRINTED:
            continue
        with contextlib.suppress(OSError):
            if path.stat().st_size <= options.file_bytes:
                continue
            for number in range(options.keep, 1, -1):
                with contextlib.suppress(FileNotFoundError):
                    generation(path, number - 1).replace(generation(path, number))
            try:
                if options.keep:
                    _copy_end(path, generation(path, 1), options.file_bytes)
            finally:  # without room for a copy all the more
                os.truncate(path, 0)


def _copy_end(path: Path, target: Path, size: int) -> None:
    with path.open("rb") as source, target.open("wb") as copy:
        source.seek(max(0, path.stat().st_size - size))
        shutil.copyfileobj(source, copy)


def host_name() -> str:
    """What the lines call this host: the cluster's name of it, else its own."""
    return os.environ.get(HOST) or socket.gethostname()


def configure(
    run_dir: Path | None, process: str, options: LogsOptions | None = None, **bound: Any
) -> structlog.stdlib.BoundLogger:
    """A logger of JSON lines to `<run_dir>/logs/<process>.jsonl`, or to stderr without one."""
    stream: Any = sys.stderr
    if run_dir is not None:
        stream = Lines(run_dir / LOGS / f"{process}{LINES}", options or LogsOptions())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    logger: structlog.stdlib.BoundLogger = structlog.get_logger().bind(
        host=host_name(), process=process, **bound
    )
    return logger
