"""What a run goes through, from its first event to its last, wherever its processes are.

    held-out score before -> generating and learning, until the limit -> score after -> finished

Sees the run through its log and its engine alone. Who starts and stops the processes, on this
machine or on many, hands over those two and keeps the rest to itself.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from mmzero_async import __version__
from mmzero_async.config import Config, from_json
from mmzero_async.engines.errors import PolicyNotLoaded
from mmzero_async.engines.pool import Engine
from mmzero_async.log.interface import Reader
from mmzero_async.ops.evaluate import evaluate
from mmzero_async.ops.rundir import check_same
from mmzero_async.projections.admission import role_learning
from mmzero_async.projections.report import Report, accuracy
from mmzero_async.roles.grading import GRADER
from mmzero_async.schemas.events import (
    ROLES,
    Evaluated,
    Event,
    Measured,
    RunFinished,
    RunStarted,
    kind_of,
)
from mmzero_async.transport.client import LogClient
from mmzero_async.transport.errors import NotReachable
from mmzero_async.transport.keys import ClientKeys

SAMPLE_SECONDS = 5.0
PATIENCE = 20.0  # seconds that an event of ours may wait for the log server
GRACE = 1.0
Say = Callable[[str], None]
Progress = Callable[[Report, float], None]


@dataclass(slots=True)
class Helm:
    """Who sees a run through, as its course sees them: what they say, and what they are asked.

    Args:
        figures: of the processes, for the log: resident memory, restarts and the like.
        trouble: what keeps the processes from going on, for people; empty: nothing.
        report: is kept up to date, whoever holds it.
        stopping: set when somebody asks to stop.
    """

    config: Config
    say: Say
    progress: Progress
    logger: Any
    figures: Callable[[], Awaitable[dict[str, float]]]
    trouble: Callable[[], str]
    report: Report = field(default_factory=Report)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    begun: float = field(default_factory=time.monotonic)

    def stop_on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stopping.set)

    def joined(
        self, url: str, keys: ClientKeys | None, patience: float = 30.0
    ) -> AbstractAsyncContextManager[LogClient]:
        """The line to the log server by which a course writes. Raises as LogClient.connect does."""
        return LogClient.connect(
            url,
            worker="supervisor",
            role="supervisor",
            config_digest=self.config.digest(),
            patience=patience,
            keys=keys,
        )


class Course:
    """One start of one run."""

    def __init__(self, helm: Helm, reader: Reader, client: LogClient, engine: Engine) -> None:
        self.helm, self.config, self.report = helm, helm.config, helm.report
        self.say, self.stopping = helm.say, helm.stopping
        self.reader, self.client, self.engine = reader, client, engine
        self._unread = ""  # why the log cannot be read now

    async def start(self, run: str, base_model: str, base_digest: str) -> None:
        """Says in the log what the run is, once. ConfigError for a log that says otherwise: its
        host's folder may have been another driver's."""
        await self.catch_up()
        if (started := self.report.pipeline.started) is not None:
            what, made_with = f"the log of {started.run}", from_json(started.config)
            check_same(what, made_with, self.config, "give the run another name")
        else:
            event = RunStarted(
                run=run,
                config=self.config.to_json(),
                config_digest=self.config.digest(),
                base_model=base_model,
                base_digest=base_digest,
                seed=self.config.run.seed,
                code_version=__version__,
                grader=GRADER,
            )
            await self._append(event)

    @property
    def goes_on(self) -> bool:
        return not self.stopping.is_set() and self.report.pipeline.finished is None

    async def see_through(self, working: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        """From the first published policies to the end, or until somebody asks to stop. `working`
        is entered for as long as workers are wanted."""
        await self.published()
        self.say(f"ready after {time.monotonic() - self.helm.begun:.0f} s")
        if self.goes_on:
            await self.evaluated("before")
            async with working():
                self.say("generating and learning; Ctrl-C stops, the same command goes on later")
                await self.generate()
            await self.finish()
        await self.catch_up()

    async def published(self) -> None:
        """Until the engine serves the newest version of every role."""
        await self.until(self._all_published, "the learner to publish its policies")

    async def generate(self) -> None:
        """Looks on until a limit is reached or somebody asks to stop."""
        earlier = self._running_seconds()
        begun, sampled, trouble = time.monotonic(), 0.0, ""
        while not self.stopping.is_set():
            running = earlier + time.monotonic() - begun
            await self.catch_up()
            self.helm.progress(self.report, running)
            if (news := self._trouble()) != trouble:
                trouble = news
                self.say(trouble or "goes on")
            if time.monotonic() - sampled > SAMPLE_SECONDS:
                sampled = time.monotonic()
                await self._measure(running)
            if self._limit_reached(running):
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self.stopping.wait()
        await self._measure(earlier + time.monotonic() - begun)

    async def finish(self) -> None:
        """The score after, unless the run was interrupted and is to go on."""
        if self.stopping.is_set():
            return
        await self.until(self._all_published, "the last policies to be published")
        await self.evaluated("after")
        if self.stopping.is_set():
            return
        await self._measure(self._running_seconds())
        over = self.report.pipeline.schedule.over
        await self._append(RunFinished(reason="schedule" if over else "limit"))

    async def evaluated(self, moment: str) -> None:
        """The held-out score, unless the log has it already."""
        if not self.config.run.evaluate:
            return
        done = {(e.moment, e.mode) for e in self.report.evaluations}
        for mode in ("greedy", "sampled") if self.config.eval.sampled else ("greedy",):
            if (moment, mode) in done or self.stopping.is_set():
                continue
            self.say(f"held-out score {moment}, {mode}: {self.config.eval.scenes} scenes")
            event = await self._score(moment, mode)
            await self._append(event)
            for name, hard in (("easy", False), ("hard", True)):
                correct, asked = accuracy(event, hard=hard)
                self.say(f"  {name}: {correct / asked:.1%} of {asked}")
        await self.catch_up()

    async def _score(self, moment: str, mode: str) -> Evaluated:
        """Of the newest solver. Whole groups that are left are trained on meanwhile, and a version
        that was replaced twice is served no more: then the newer one is scored from the start."""
        while True:
            published = self.report.pipeline.policies.published["solver"]
            try:
                return await evaluate(
                    self.engine,
                    self.config,
                    policy=published.policy,
                    version=published.version,
                    moment=moment,
                    mode=mode,
                )
            except* PolicyNotLoaded:
                await self.catch_up()
                newest = self.report.pipeline.policies.published["solver"]
                if newest.version == published.version:
                    raise
            self.say(f"  {published.policy} was replaced meanwhile: {newest.policy} is asked")

    async def catch_up(self) -> None:
        """Reads on in the log; one on another host may be out of reach, and is asked again."""
        try:
            await asyncio.to_thread(self._read_on)
            self._unread = ""
        except NotReachable as error:
            self._unread = str(error)

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Reads on until it is so, as long as nobody asks to stop; a process that keeps dying ends
        the waiting from outside."""
        begun = time.monotonic()
        told = False
        await self.catch_up()
        while not condition() and not self.stopping.is_set():
            if not told and time.monotonic() - begun > 30:
                self.say(f"still waiting for {what}")
                told = True
            await asyncio.sleep(0.2)
            await self.catch_up()

    # --- parts ---------------------------------------------------------------------------------

    def _read_on(self) -> None:
        for record in self.reader.scan(self.report.pipeline.next_offset):
            self.report.apply(record)

    def _limit_reached(self, running: float) -> bool:
        limits, steps = self.config.run, self.report.pipeline.policies.step
        if limits.max_minutes and running >= limits.max_minutes * 60:
            return True
        if self.report.pipeline.schedule.over:
            return True
        trained = [role for role in ROLES if role_learning(self.config.learner, role).train]
        fewest = min((steps[role] for role in trained), default=0)
        return bool(limits.max_steps) and fewest >= limits.max_steps

    def _all_published(self) -> bool:
        policies = self.report.pipeline.policies
        return all(
            role in policies.published
            and policies.published[role].version == policies.version(role)
            for role in ROLES
        )

    def _trouble(self) -> str:
        log = self.client.trouble or self._unread
        return self.helm.trouble() or (log and f"log server: {log}")

    async def _measure(self, running: float) -> None:
        figures = {"running_seconds": running, **await self.helm.figures()}
        await self._append(Measured(source="supervisor", figures=figures))

    def _running_seconds(self) -> float:
        return self.report.figures.get("supervisor", {}).get("running_seconds", 0.0)

    async def _append(self, event: Event) -> None:
        """Into the log. A log server that has no room for it must not keep the run from stopping:
        then the event is given up when somebody asks to stop or after PATIENCE seconds."""
        append = asyncio.ensure_future(self.client.append([event]))
        stop = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait(
                {append, stop}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED
            )
            await asyncio.wait({append}, timeout=GRACE)
            if append.done():
                append.result()
            else:
                why = self.client.trouble
                self.helm.logger.warning("not in the log", event_kind=kind_of(event), why=why)
        finally:
            append.cancel()
            stop.cancel()
