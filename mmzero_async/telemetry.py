"""Structured logs: every process writes JSON lines of its own under `<run>/logs/`.

Each line has time, level, event and whatever was bound (run, process, worker, role). `mmzero tail`
merges the files for people.
"""

import logging
import sys
from pathlib import Path
from typing import Any, TextIO

import structlog

LOGS = "logs"


def configure(run_dir: Path | None, process: str, **bound: Any) -> structlog.stdlib.BoundLogger:
    """A logger of JSON lines to `<run_dir>/logs/<process>.jsonl`, or to stderr without one."""
    stream: TextIO = sys.stderr
    if run_dir is not None:
        folder = run_dir / LOGS
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / f"{process}.jsonl").open("a", buffering=1)
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
