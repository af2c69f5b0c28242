"""The learner process: the log's next window becomes a step, the step a published policy.

    catch up with the log -> reject what filters refuse -> train the fullest window
    -> checkpoint -> commit rewards and step in one transaction -> publish

Killed anywhere, it goes on from the last committed step: a checkpoint that no step names is
overwritten, a version that was committed but not published is published at start.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from mmzero_async.config import Config, LearnerConfig
from mmzero_async.engines.errors import EngineError
from mmzero_async.engines.launch import address_file
from mmzero_async.engines.pool import urls_of
from mmzero_async.engines.publisher import AdapterPublisher, Publisher
from mmzero_async.engines.weight_client import WeightClient
from mmzero_async.engines.weight_publisher import WeightPublisher
from mmzero_async.learner import checkpoint, measured
from mmzero_async.learner.checkpoint import Saved
from mmzero_async.learner.committed import committed_step
from mmzero_async.learner.errors import LearnerError, PicturesUnseen, RanksError
from mmzero_async.learner.model import PolicyModel
from mmzero_async.learner.rerun import policy_for
from mmzero_async.learner.start import source_of
from mmzero_async.learner.step import StepResult, Trainer
from mmzero_async.learner.window import Window
from mmzero_async.learner.windows import Candidates, events_from
from mmzero_async.log.errors import LogError
from mmzero_async.log.interface import Reader
from mmzero_async.log.reader import LogReader
from mmzero_async.projections.pipeline import Pipeline
from mmzero_async.scale_options import under_torchrun
from mmzero_async.schemas.events import (
    ROLES,
    GroupRejected,
    PolicyPublished,
    Role,
    WorkerFailed,
)
from mmzero_async.transport.client import LogClient
from mmzero_async.transport.errors import TransportError, hopeless
from mmzero_async.transport.remote_reader import RemoteReader
from mmzero_async.workers.loop import (
    HOPELESS,
    Setting,
    beating,
    setting_from_command_line,
    until_stopped,
)

CHECK_ENGINE_SECONDS = 2.0
REJECTIONS_A_MESSAGE = 256
READ_PATIENCE = 180.0  # seconds that the read server may be out of reach
DISK_PAUSE = 5.0  # seconds before a checkpoint that found no room is tried again
Trainers = Callable[[PolicyModel, LearnerConfig], dict[Role, Trainer]]


def alone(policy: PolicyModel, learner: LearnerConfig) -> dict[Role, Trainer]:
    """Each role's trainer in a learner of one process."""
    return {role: Trainer(policy, role, learner) for role in ROLES}


class Learner:
    """Glue alone: what a window is, a loss, a checkpoint, stands in the rooms below."""

    def __init__(
        self,
        setting: Setting,
        client: LogClient,
        publisher: Publisher,
        reader: Reader,
        base_folder: Path,
        make_trainers: Trainers = alone,
    ) -> None:
        self.config: Config = setting.config
        self.run_dir, self.logger, self.worker = setting.run_dir, setting.logger, setting.worker
        self.client, self.publisher, self.reader = client, publisher, reader
        self.metrics = setting.metrics
        self.pipeline = Pipeline()
        self.candidates = Candidates(setting.config)
        self.events = events_from(reader)
        self.base_folder, self.make_trainers = base_folder, make_trainers
        self.trainers: dict[Role, Trainer] = {}
        self.saved: dict[Role, Saved] = {}
        self.waited = 0.0
        self.looked: dict[Role, int] = {}  # the last step whose pictures were found to matter

    # --- start ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Back to where the log ends: weights, optimisers, published versions."""
        await self.catch_up()
        await asyncio.to_thread(self._load)
        for role in ROLES:
            await self.publish(role)

    def _load(self) -> None:
        policy = policy_for(self.base_folder, self.config)
        self.trainers = self.make_trainers(policy, self.config.learner)
        for role, trainer in self.trainers.items():
            policies = self.pipeline.policies
            newest = policies.committed.get(role) or policies.published.get(role)
            if newest is None:
                self._begin(trainer)
                self.saved[role] = trainer.save(self.run_dir, 0)
            else:
                self.saved[role] = Saved(newest.checkpoint, newest.digest)
                trainer.restore(self.run_dir, self.saved[role])

    def _begin(self, trainer: Trainer) -> None:
        """With a fresh adapter, as it is, or with what `schedule.start` names."""
        start, started = self.config.schedule.start, self.pipeline.started
        place = start.of(trainer.role)
        if not place:
            return
        source = source_of(Path(place), trainer.role, started.base_digest if started else "")
        trainer.begin_with(source.run, source.saved, optimizer=start.optimizer == "kept")
        self.logger.info(
            "begins with", role=trainer.role, run=str(source.run), version=source.saved.checkpoint
        )

    # --- the loop ------------------------------------------------------------------------------

    async def run(self) -> None:
        checked = time.monotonic()
        while True:
            await self.catch_up()
            rejections = await asyncio.to_thread(
                self.candidates.refresh, self.pipeline, self.events
            )
            for start in range(0, len(rejections), REJECTIONS_A_MESSAGE):
                await self.client.append(rejections[start : start + REJECTIONS_A_MESSAGE])
            role = self._due()
            if self.pipeline.finished is not None:
                return
            if role is not None:
                await self.step(role)
            elif not rejections:
                await self._wait()
            if time.monotonic() - checked > CHECK_ENGINE_SECONDS:
                await self.keep_published()
                checked = time.monotonic()

    def _due(self) -> Role | None:
        """Whose window is full, once nothing is in the making where a step is to wait for that."""
        if self.config.admission.drain and self.pipeline.lineage.trees:
            return None
        return self.candidates.fullest()

    async def catch_up(self) -> None:
        """On a thread, for a log on another host may keep us waiting."""
        await asyncio.to_thread(self._catch_up)

    def _catch_up(self) -> None:
        for record in self.reader.scan(self.pipeline.next_offset):
            self.pipeline.apply(record.offset, record.event())

    async def _wait(self) -> None:
        started = time.monotonic()
        await self.reader.wait(self.pipeline.next_offset, seconds=0.5)
        self.waited += time.monotonic() - started

    async def step(self, role: Role) -> None:
        """Trains on the role's oldest window and commits; a window that cannot be is rejected."""
        window, chosen = await asyncio.to_thread(self.candidates.window, role, self.events)
        number = self.pipeline.policies.step[role] + 1
        version = self.pipeline.policies.version(role) + 1
        started = time.monotonic()
        try:
            figures = await asyncio.to_thread(self._look, role, window, number)
            result, saved = await asyncio.to_thread(self._train, role, window, version)
        except PicturesUnseen as error:
            failed = WorkerFailed(worker=self.worker, role="learner", error=str(error))
            await self.client.append([failed])
            raise
        except RanksError:
            raise
        except LearnerError as error:
            self.logger.error("window rejected", role=role, step=number, error=str(error))
            detail = str(error)[:500]
            await self.client.append(
                [
                    GroupRejected(role=role, group=s.group.id, reason="untrainable", detail=detail)
                    for s in chosen
                ]
            )
            return
        except OSError as error:
            # The step is in memory alone: back to the last version, and again when there is room.
            self.logger.error("checkpoint not saved", role=role, step=number, error=str(error))
            await asyncio.to_thread(self.trainers[role].restore, self.run_dir, self.saved[role])
            await asyncio.sleep(DISK_PAUSE)
            return
        seconds = time.monotonic() - started
        staleness = [version - 1 - scored.group.version for scored in chosen]
        metrics = {
            **result.metrics,
            **figures,
            "seconds": seconds,
            "waited_seconds": self.waited,
            "staleness_max": float(max(staleness)),
            "staleness_mean": sum(staleness) / len(staleness),
        }
        self.waited = 0.0
        rewarded, step = committed_step(role, number, version, chosen, result, saved, metrics)
        paced = self.pipeline.pace.decide(step, self.config.admission)
        await self.client.append([*rewarded, step, *([paced] if paced else [])])
        await self.catch_up()
        measured.count(self.metrics, step)
        self.saved[role] = saved
        self.logger.info(
            "step committed",
            role=role,
            step=number,
            version=version,
            groups=len(chosen),
            seconds=round(seconds, 2),
            loss=round(result.loss, 5),
            reward=round(result.metrics["reward_mean"], 4),
        )
        if paced is not None:
            self.logger.warning(
                "staleness relaxed" if paced.reason == "calm" else "staleness tightened",
                role=role,
                step=number,
                eta=paced.eta,
                before=paced.before,
                reason=paced.reason,
                figure=paced.figure,
                bound=paced.bound,
            )
        await self.publish(role)
        kept = self.config.learner.keep_checkpoints
        if kept:
            await asyncio.to_thread(checkpoint.prune, self.run_dir, role, kept)

    def _look(self, role: Role, window: Window, number: int) -> dict[str, float]:
        """At start and every so many steps: whether the replies depend on their pictures."""
        every, last = self.config.learner.canary_steps, self.looked.get(role)
        if not every or (last is not None and number - last < every):
            return {}
        figures = self.trainers[role].check_pictures(window, self.reader.blob)
        self.looked[role] = number
        return figures

    def _train(self, role: Role, window: Window, version: int) -> tuple[StepResult, Saved]:
        trainer = self.trainers[role]
        result = trainer.train(window, self.reader.blob)
        return result, trainer.save(self.run_dir, version)

    # --- publishing ----------------------------------------------------------------------------

    async def publish(self, role: Role) -> None:
        """Puts the newest version into the engine and says so in the log, if that is news.

        An engine that is away leaves the old version in place; `keep_published` tries again.
        """
        version, saved = self.pipeline.policies.version(role), self.saved[role]
        started = time.monotonic()
        try:
            folder = self.run_dir / saved.checkpoint
            policy = await self.publisher.publish(role, version, folder, saved.digest)
        except EngineError as error:
            self.logger.warning("not published", role=role, version=version, error=str(error))
            return
        known = self.pipeline.policies.published.get(role)
        if known is not None and known.version == version and known.policy == policy:
            return
        event = PolicyPublished(
            role=role,
            version=version,
            policy=policy,
            checkpoint=saved.checkpoint,
            digest=saved.digest,
            seconds=time.monotonic() - started,
        )
        await self.client.append([event])
        await self.catch_up()

    async def keep_published(self) -> None:
        """After a restart of an engine it has nothing of ours: publishes what is missing."""
        for role in ROLES:
            published = self.pipeline.policies.published.get(role)
            version = self.pipeline.policies.version(role)
            try:
                served = await self.publisher.serves(role, version)
            except EngineError:
                continue
            if published is None or published.version != version or not served:
                await self.publish(role)


@asynccontextmanager
async def _publishing(setting: Setting) -> AsyncIterator[Publisher]:
    """To the engines of all roles' adapters, or to those of each role for its weights."""
    weights = setting.config.learner.weights
    async with AsyncExitStack() as stack:
        if weights == "lora":
            pool = await stack.enter_async_context(setting.engine())
            yield AdapterPublisher(*pool.clients, hand_over=setting.hand_over, up=pool.is_up)
            return
        urls = setting.role_engines or {
            role: (setting.run_dir / address_file(weights, role)).read_text() for role in ROLES
        }
        yield WeightPublisher(
            {
                role: [
                    await stack.enter_async_context(WeightClient(url, key=setting.engine_key))
                    for url in urls_of(urls[role])
                ]
                for role in ROLES
            },
            hand_over=setting.hand_over,
        )


def _reader(setting: Setting) -> Reader:
    """Of the log in the run's folder, or on the host that has it."""
    if setting.read_url:
        return RemoteReader.open(setting.read_url, keys=setting.keys, patience=READ_PATIENCE)
    return LogReader.open(setting.run_dir / "log")


async def serve(setting: Setting, log_url: str, make_trainers: Trainers = alone) -> None:
    async with AsyncExitStack() as stack:
        reader = await asyncio.to_thread(_reader, setting)
        stack.callback(reader.close)
        publisher = await stack.enter_async_context(_publishing(setting))
        client = await stack.enter_async_context(
            LogClient.connect(
                log_url,
                worker=setting.worker,
                role="learner",
                config_digest=setting.config.digest(),
                keys=setting.keys,
            )
        )
        base_folder = Path((setting.run_dir / "base_model").read_text().strip())
        learner = Learner(setting, client, publisher, reader, base_folder, make_trainers)
        telling = asyncio.create_task(
            beating(setting.metrics, lambda: client.joined and bool(learner.trainers))
        )
        stack.callback(telling.cancel)
        await learner.start()
        setting.logger.info("learner ready", steps=dict(learner.pipeline.policies.step))
        await learner.run()


def main() -> int:
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ["RANK"] != "0":
        from mmzero_async.workers import learner_follower

        return learner_follower.main()
    setting, log_url = setting_from_command_line("learner")
    learner = setting.config.learner
    make_trainers: Trainers = alone
    try:
        with ExitStack() as stack:
            stack.enter_context(setting.serving_metrics())
            if under_torchrun(learner):  # a learner of one process loads nothing of this
                from mmzero_async.learner import parallel

                group = stack.enter_context(parallel.join(learner))
                make_trainers = partial(parallel.trainers, group)
            return asyncio.run(until_stopped(serve(setting, log_url, make_trainers)))
    except (TransportError, EngineError, LearnerError, LogError) as error:
        setting.logger.error("learner stopped", error=str(error))
        print(f"learner: {error}", file=sys.stderr)
        # Another start would see no more of the pictures and be welcome no sooner: the run ends.
        return HOPELESS if isinstance(error, PicturesUnseen) or hopeless(error) else 1


if __name__ == "__main__":
    sys.exit(main())
