"""The log server process: the one writer of the log, and the one who hands out what is due.

`python -m mmzero_async.workers.log_server --run-dir runs/demo`. Given a port, it listens there
again after a restart, so that workers find it.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from msgspec.structs import replace

from mmzero_async import telemetry
from mmzero_async.config import from_json
from mmzero_async.log.errors import ForeignLog, LogError, LogLocked
from mmzero_async.log.writer import LogWriter
from mmzero_async.metrics import Metrics
from mmzero_async.metrics_http import serving
from mmzero_async.projections.dispatcher import PipelineDispatcher
from mmzero_async.transport.errors import KeysUnusable, NotSecured, TransportError
from mmzero_async.transport.server import LogServer

HOPELESS = os.EX_CONFIG  # exit status: starting it again would end the same way
HOPELESS_ERRORS = (ForeignLog, LogLocked, KeysUnusable, NotSecured)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--port", type=int, default=None, help="default: log.port")
    args = parser.parse_args(argv)
    run_dir: Path = args.run_dir
    config = from_json((run_dir / "config.json").read_text())
    logger = telemetry.configure(run_dir, "log-server", config.logs, run=run_dir.name)
    try:
        writer = LogWriter(
            run_dir / "log", run=run_dir.name, map_gib=config.log.map_gib, sync=config.log.sync
        )
        try:
            listen = config.log if args.port is None else replace(config.log, port=args.port)
            metrics = Metrics()
            server = LogServer(
                writer,
                PipelineDispatcher(config),
                listen,
                config.digest(),
                logger,
                metrics=metrics,
            )
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: server.stop())
            _publish_url(run_dir, server.url)
            logger.info("log server ready", url=server.url, next_offset=writer.next_offset)
            with serving(metrics, config.metrics, run_dir, "log-server", logger):
                server.run()
            logger.info("log server stopped", next_offset=writer.next_offset)
        finally:
            writer.close()
    except (LogError, TransportError, ValueError) as error:
        logger.error("log server failed", error=str(error))
        print(f"log server: {error}", file=sys.stderr)
        return HOPELESS if isinstance(error, HOPELESS_ERRORS) else 1
    return 0


def _publish_url(run_dir: Path, url: str) -> None:
    """Atomically, so that nobody reads half an address."""
    draft = run_dir / f"log.url.{os.getpid()}"
    draft.write_text(url)
    draft.replace(run_dir / "log.url")


if __name__ == "__main__":
    sys.exit(main())
