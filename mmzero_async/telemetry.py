"""Structured logs: every process writes JSON lines of its own under `<run>/logs/`.

Each line has time, level, event and whatever was bound (run, process, worker, role). `mmzero tail`
merges the files for people.
"""

import contextlib
import logging
import sys
from pathlib import Path
from typing import Any

import structlog

LOGS = "logs"


class Lines:
    """A file of lines that outlives a full disk: a line that finds no room is lost, no more."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._file.write(text.encode())

    def flush(self) -> None:
        """Nothing is held back."""


def configure(run_dir: Path | None, process: str, **bound: Any) -> structlog.stdlib.BoundLogger:
    """A logger of JSON lines to `<run_dir>/logs/<process>.jsonl`, or to stderr without one."""
    stream: Any = sys.stderr
    if run_dir is not None:
        folder = run_dir / LOGS
        folder.mkdir(parents=True, exist_ok=True)
        stream = Lines(folder / f"{process}.jsonl")
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
    logger: structlog.stdlib.BoundLogger = structlog.get_logger().bind(process=process, **bound)
    return logger
