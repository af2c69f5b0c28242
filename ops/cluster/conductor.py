"""Sees a run through where another scheduler keeps its processes alive: Slurm, Kubernetes.

`python -m mmzero_async.ops.cluster.conductor --run-dir DIR ...`. Does what the driver of `mmzero
run-cluster` does but for starting and stopping: tells the log what the run is, takes the held-out
scores, ends the run at its limit. What its neighbours must know of it are two files in its folder:
`generating` while workers are wanted, `finished` when the run is over.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmzero_async import telemetry
from mmzero_async.config import Config, ConfigError, from_json
from mmzero_async.engines.errors import EngineError, EngineKeyUnusable, ModelUnusable
from mmzero_async.engines.pool import EnginePool, urls_of
from mmzero_async.engines.secret import read_secret
from mmzero_async.log.errors import LogError
from mmzero_async.ops.course import Course, Helm
from mmzero_async.ops.rundir import base_model_folder, take_run, weights_digest
from mmzero_async.transport.errors import TransportError, hopeless
from mmzero_async.transport.keys import client_keys
from mmzero_async.transport.remote_reader import RemoteReader
from mmzero_async.workers.loop import HOPELESS

GENERATING, FINISHED = "generating", "finished"
PATIENCE = 600.0  # seconds for servers to answer for the first time: images are pulled, nodes boot
INTERRUPTED = os.EX_TEMPFAIL  # exit status of one that was stopped before the run was over


@dataclass(frozen=True, slots=True)
class Addresses:
    log: str
    read: str
    engine: str


async def conduct(
    run_dir: Path,
    config: Config,
    addresses: Addresses,
    key: Path,
    engine_key: Path | None,
    base_model: str,
    logger: Any,
) -> bool:
    """Until the run is over (True) or a signal asks to stop. Raises what keeps it from going on."""

    async def no_figures() -> dict[str, float]:
        return {}  # of processes that are not ours

    helm = Helm(config, _say, lambda _report, _seconds: None, logger, no_figures, lambda: "")
    helm.stop_on_signals()
    lock = take_run(run_dir, config)
    for name in (GENERATING, FINISHED):
        (run_dir / name).unlink(missing_ok=True)
    keys = client_keys(key)
    secret = read_secret(engine_key) if engine_key is not None else ""
    base = base_model_folder(config, base_model)
    digest = await asyncio.to_thread(weights_digest, base)

    @asynccontextmanager
    async def working() -> AsyncIterator[None]:
        (run_dir / GENERATING).touch()
        yield
        (run_dir / GENERATING).unlink(missing_ok=True)

    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(helm.joined(addresses.log, keys, PATIENCE))
        reader = await asyncio.to_thread(
            RemoteReader.open, addresses.read, keys=keys, patience=PATIENCE
        )
        stack.callback(reader.close)
        engine = await stack.enter_async_context(
            EnginePool(urls_of(addresses.engine), config.engine, key=secret)
        )
        course = Course(helm, reader, client, engine)
        await course.start(run_dir.name, config.run.base_model, digest)
        _say("waiting for the engine and the learner")
        await course.see_through(working)
    over = helm.report.pipeline.finished is not None
    if over:
        (run_dir / FINISHED).touch()
    _say("finished" if over else "stopped; started again, it goes on")
    lock.release()
    return over


def _say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--log-url", required=True)
    parser.add_argument("--read-url", required=True)
    parser.add_argument("--engine-url", required=True)
    parser.add_argument("--key", type=Path, required=True, help="secret key that may write as any")
    parser.add_argument("--engine-key", type=Path, help="key file of an engine that wants one")
    parser.add_argument("--base-model", default="", help="default: what the configuration says")
    args = parser.parse_args()
    run_dir: Path = args.run_dir
    logger = telemetry.configure(run_dir, "conductor", run=run_dir.name)
    addresses = Addresses(args.log_url, args.read_url, args.engine_url)
    try:
        config = from_json((run_dir / "config.json").read_text())
        over = asyncio.run(
            conduct(run_dir, config, addresses, args.key, args.engine_key, args.base_model, logger)
        )
    except (ConfigError, TransportError, EngineError, LogError, OSError) as error:
        logger.error("conductor stopped", error=str(error))
        print(f"conductor: {error}", file=sys.stderr)
        amiss = isinstance(error, ConfigError | EngineKeyUnusable | ModelUnusable)
        return HOPELESS if amiss or hopeless(error) else 1
    return 0 if over else INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
