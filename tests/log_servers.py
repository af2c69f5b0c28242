"""A log server on a log of its own, in a thread of the test's process."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import structlog

from mmzero_async.config import LogConfig
from mmzero_async.log.writer import LogWriter
from mmzero_async.transport.server import LogServer


@contextlib.contextmanager
def serving(
    path: Path, dispatcher, config: LogConfig, logger=None, sync="nosync"
) -> Iterator[LogServer]:
    writer = LogWriter(path, run="r", map_gib=1, sync=sync)
    server = LogServer(writer, dispatcher, config, "digest", logger or structlog.get_logger())
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
        assert thread.is_alive(), "the server died"
    finally:
        server.stop()
        thread.join()
        writer.close()
