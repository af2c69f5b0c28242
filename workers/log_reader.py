"""The read server's process: pages of a run's log for readers on other hosts, and their log lines.

`python -m mmzero_async.workers.log_reader --run-dir runs/demo`; the run may be going on or over. It
takes nothing from the log server but the processor's idle time, and may die without harm.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from msgspec.structs import replace

from mmzero_async import telemetry
from mmzero_async.collected import Collected
from mmzero_async.config import from_json
from mmzero_async.log.errors import LogError
from mmzero_async.log.reader import LogReader
from mmzero_async.metrics import Metrics
from mmzero_async.metrics_http import serving
from mmzero_async.transport.errors import TransportError
from mmzero_async.transport.read_server import ReadServer

URL_FILE = "log.read.url"
_NICENESS = 5  # appends come first


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--port", type=int, default=None, help="default: log.read_port")
    args = parser.parse_args(argv)
    run_dir: Path = args.run_dir
    os.nice(_NICENESS)
    config = from_json((run_dir / "config.json").read_text())
    logger = telemetry.configure(run_dir, "log-reader", config.logs, run=run_dir.name)
    try:
        listen = config.log if args.port is None else replace(config.log, read_port=args.port)
        reader = LogReader.open(run_dir / "log")
        try:
            metrics = Metrics()
            collected = Collected(run_dir, config.logs)
            server = ReadServer(reader, listen, logger, metrics=metrics, collected=collected)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: server.stop())
            _publish_url(run_dir, server.url)
            logger.info("read server ready", url=server.url, next_offset=reader.next_offset)
            with serving(metrics, config.metrics, run_dir, "log-reader", logger):
                server.run()
        finally:
            reader.close()
    except (LogError, TransportError, ValueError, OSError) as error:
        logger.error("read server failed", error=str(error))
        print(f"read server: {error}", file=sys.stderr)
        return 1
    return 0


def _publish_url(run_dir: Path, url: str) -> None:
    """Atomically, so that nobody reads half an address."""
    draft = run_dir / f"{URL_FILE}.{os.getpid()}"
    draft.write_text(url)
    draft.replace(run_dir / URL_FILE)


if __name__ == "__main__":
    sys.exit(main())
