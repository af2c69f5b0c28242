"""The tracker's process: shows a run's figures where `tracker.kind` says.

`python -m mmzero_async.workers.tracker --run-dir runs/demo [--kind tensorboard]`; the run may be
going on or over. It takes nothing from anybody but the processor's idle time, and may die without
harm: a later one goes on where the tracker has no more.
"""

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from mmzero_async import telemetry
from mmzero_async.config import from_json
from mmzero_async.log.errors import LogError
from mmzero_async.log.reader import LogReader
from mmzero_async.trackers.follow import Follower, opened
from mmzero_async.trackers.port import TrackerUnusable

_NICENESS = 10  # everybody else comes first


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--worker", default="tracker")
    args = parser.parse_args(argv)
    run_dir: Path = args.run_dir
    os.nice(_NICENESS)
    config = from_json((run_dir / "config.json").read_text())
    logger = telemetry.configure(run_dir, args.worker, config.logs, run=run_dir.name)
    try:
        reader = LogReader.open(run_dir / "log")
        try:
            with opened(config.tracker.kind, run_dir, config.tracker.project) as tracker:
                follower = Follower(reader, tracker)
                logger.info("tracker ready", kind=config.tracker.kind)
                asyncio.run(_follow(follower))
            logger.info("tracker ended", points=follower.logged)
        finally:
            reader.close()
    except TrackerUnusable as error:
        return _told(logger, error, os.EX_CONFIG)
    except (LogError, OSError, RuntimeError) as error:
        return _told(logger, error, 1)
    return 0


def _told(logger: Any, error: Exception, status: int) -> int:
    logger.error("tracker failed", error=str(error))
    print(f"tracker: {error}", file=sys.stderr)
    return status


async def _follow(follower: Follower) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await follower.follow(stopping.is_set, every=1.0)


if __name__ == "__main__":
    sys.exit(main())
