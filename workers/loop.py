"""The loop that every worker of a stage runs: lease, work, append, acknowledged.

A stage is a function from a lease to events; all else is here: several pieces of work in hand at
once, give back what failed, stop cleanly on a signal, structured log lines with the lineage id.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmzero_async import metrics as figures
from mmzero_async import telemetry
from mmzero_async.config import Config, from_json
from mmzero_async.engines.errors import (
    EngineError,
    EngineKeyUnusable,
    EngineUnavailable,
    PolicyNotLoaded,
)
from mmzero_async.engines.launch import address_file
from mmzero_async.engines.pool import EnginePool, urls_of
from mmzero_async.engines.secret import read_secret
from mmzero_async.metrics import Metrics
from mmzero_async.metrics_http import serving
from mmzero_async.schemas.events import Event, WorkerFailed
from mmzero_async.schemas.work import Stage
from mmzero_async.transport.client import Lease, LogClient
from mmzero_async.transport.errors import KeysUnusable, TransportError, hopeless
from mmzero_async.transport.keys import ClientKeys, client_keys, local_keys

BEAT_SECONDS = 1.0
ENGINE_PAUSE = 1.0  # seconds to wait before asking a lost engine again
HOPELESS = os.EX_CONFIG  # exit status: starting it again would end the same way


@dataclass(frozen=True, slots=True)
class Result:
    """What a piece of work came to: events for the log, and the blobs that they name."""

    events: list[Event]
    blobs: Mapping[str, bytes] = field(default_factory=dict)


Job = Callable[[Lease], Awaitable[Result]]
Jobs = Callable[["Setting"], AbstractAsyncContextManager[Job]]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a worker process knows when it starts."""

    run_dir: Path
    worker: str
    config: Config
    engine_url: str  # of several engines: separated by commas
    logger: Any
    keys: ClientKeys | None = None  # for the log server
    engine_key: str = field(default="", repr=False)
    read_url: str = ""  # of the read server, for who has no log on this host
    hand_over: bool = False  # the engine is on a host that does not see our folders
    role_engines: Mapping[str, str] = field(default_factory=dict)  # role -> its engines' addresses
    metrics: Metrics = field(default_factory=Metrics)

    def engine(self) -> EnginePool:
        """The engines of the role's work; enter it to have them looked after, and closed."""
        return EnginePool(
            urls_of(self.engine_url),
            self.config.engine,
            self.metrics,
            numbered=self.config.learner.weights == "full",
            request_seconds=self.config.engine.request_seconds,
            key=self.engine_key,
        )

    def serving_metrics(self) -> AbstractContextManager[None]:
        """Enter it for as long as the process lives."""
        return serving(self.metrics, self.config.metrics, self.run_dir, self.worker, self.logger)


def main(role: str, stage: Stage, in_flight: Callable[[Config], int], jobs: Jobs) -> int:
    """Entry point of a stage's process; the exit status."""
    setting, log_url = setting_from_command_line(role)
    status = 1
    try:
        with setting.serving_metrics():
            work = _serve(setting, log_url, role, stage, in_flight, jobs)
            return asyncio.run(until_stopped(work))
    except* (TransportError, EngineError) as errors:
        for error in errors.exceptions:
            setting.logger.error("worker stopped", error=str(error))
            print(f"{setting.worker}: {error}", file=sys.stderr)
        status = HOPELESS if errors.subgroup(hopeless) else 1
    return status


def setting_from_command_line(role: str) -> tuple[Setting, str]:
    """Reads `--run-dir`, `--worker`, and from the run folder the configuration and addresses.

    Exits with HOPELESS and a line of why when the key file cannot be used.
    """
    parser = argparse.ArgumentParser(description=f"{role} worker of a run")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--worker", default=f"{role}-0")
    parser.add_argument("--log-url", default="", help="default: what the log server published")
    parser.add_argument("--key", type=Path, help="secret key file; default: `local` of log.keys")
    parser.add_argument("--engine-url", default="", help="default: what the engine published")
    parser.add_argument("--engine-key", type=Path, help="key file of an engine that wants one")
    parser.add_argument("--read-url", default="", help="read server; default: the log is here")
    parser.add_argument("--hand-over", action="store_true", help="send policies to the engine")
    parser.add_argument(
        "--role-engines", action="append", default=[], help="ROLE=URLS, to publish weights to"
    )
    args = parser.parse_args()
    config = from_json((args.run_dir / "config.json").read_text())
    logger = telemetry.configure(
        args.run_dir,
        args.worker,
        config.logs,
        run=args.run_dir.name,
        worker=args.worker,
        role=role,
    )
    engine = args.engine_url or _published(
        args.run_dir / address_file(config.learner.weights, role)
    )
    log = args.log_url or _published(args.run_dir / "log.url")
    try:
        keys = client_keys(args.key) if args.key else local_keys(config.log.keys)
        engine_key = read_secret(args.engine_key) if args.engine_key else ""
    except (KeysUnusable, EngineKeyUnusable) as error:
        logger.error("worker stopped", error=str(error))
        print(f"{args.worker}: {error}", file=sys.stderr)
        raise SystemExit(HOPELESS) from None
    setting = Setting(
        args.run_dir,
        args.worker,
        config,
        engine,
        logger,
        keys,
        engine_key=engine_key,
        read_url=args.read_url,
        hand_over=args.hand_over,
        role_engines=dict(given.split("=", 1) for given in args.role_engines),
    )
    return setting, log


def _published(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


async def until_stopped(work: Awaitable[None]) -> int:
    """Runs until the work ends or a signal asks to stop; 0 in both cases."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return 0


async def _serve(
    setting: Setting,
    log_url: str,
    role: str,
    stage: Stage,
    in_flight: Callable[[Config], int],
    jobs: Jobs,
) -> None:
    async with (
        jobs(setting) as job,
        LogClient.connect(
            log_url,
            worker=setting.worker,
            role=role,
            config_digest=setting.config.digest(),
            keys=setting.keys,
        ) as client,
        asyncio.TaskGroup() as group,
    ):
        setting.logger.info("worker ready", pid=os.getpid())
        group.create_task(beating(setting.metrics, lambda: client.joined))
        for _ in range(in_flight(setting.config)):
            group.create_task(_work(setting, client, role, stage, job))


@contextlib.asynccontextmanager
async def _measured(metrics: Metrics, stage: Stage) -> AsyncIterator[None]:
    outcome, began = "failed", time.monotonic()
    metrics.add(figures.IN_HAND, stage=stage)
    try:
        yield
        outcome = "done"
    except (EngineUnavailable, PolicyNotLoaded):
        outcome = "engine not ready"
        raise
    finally:
        metrics.add(figures.IN_HAND, -1, stage=stage)
        seconds = time.monotonic() - began
        metrics.observe(figures.WORK, seconds, stage=stage, outcome=outcome)


async def beating(metrics: Metrics, ready: Callable[[], bool]) -> None:
    """Tells who asks that the loop turns, and whether the process is at work."""
    while True:
        metrics.beat(ready=ready())
        await asyncio.sleep(BEAT_SECONDS)


async def _work(setting: Setting, client: LogClient, role: str, stage: Stage, job: Job) -> None:
    """One hand of the worker: one piece of work after the other."""
    while True:
        lease = await client.lease(stage)
        key = lease.work.key
        logger = setting.logger.bind(
            work=key, lineage=lease.work.target, version=lease.work.version
        )
        try:
            async with asyncio.timeout(lease.seconds), _measured(setting.metrics, stage):
                result = await job(lease)
        except (EngineUnavailable, PolicyNotLoaded) as error:
            # Not the work's fault: the engine is restarting or the policy was just replaced.
            logger.warning("engine not ready", error=str(error))
            await client.fail(key, str(error), counts=False)
            await asyncio.sleep(ENGINE_PAUSE)
            continue
        except Exception as error:  # one piece of work must not end the worker
            logger.exception("work failed")
            reason = f"{type(error).__name__}: {error}"[:500]
            await client.append(
                [WorkerFailed(worker=setting.worker, role=role, error=reason, work=key)]
            )
            await client.fail(key, reason)
            continue
        await client.append(result.events, result.blobs)
        client.done(key)
        logger.info("done")
