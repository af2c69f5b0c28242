"""`mmzero run-cluster`: a run on many hosts, from nothing to a printed result.

    hosts reached and checked -> log server -> engine -> learner -> the course of the run -> stopped

Holds no state that matters: killed anywhere, hosts go on for `link_seconds`, and the same command
goes on where the log ends.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from mmzero_async import telemetry
from mmzero_async.engines.pool import EnginePool, urls_of
from mmzero_async.ops.cluster import inventory as inventories
from mmzero_async.ops.cluster import plan as plans
from mmzero_async.ops.cluster import secrets
from mmzero_async.ops.cluster.control import Answer, Order, OrderRefused, taking_orders
from mmzero_async.ops.cluster.fleet import Fleet
from mmzero_async.ops.cluster.inventory import STAGES, Inventory, InventoryError
from mmzero_async.ops.cluster.plan import LOG_ROLES, Plan
from mmzero_async.ops.cluster.table import engines
from mmzero_async.ops.course import Course, Helm, Progress, Say
from mmzero_async.ops.rundir import take_run
from mmzero_async.projections.report import Report
from mmzero_async.schemas.events import ROLES
from mmzero_async.transport.remote_reader import RemoteReader

START_SECONDS = 180.0  # for a server on a busy host to answer for the first time


class Driver:
    """One start of one run on many hosts.

    Args:
        folder: of the run on this machine: configuration, logs, the socket for orders.
        reread: gives the inventory as it is now, for a host that joins.
    """

    def __init__(
        self,
        folder: Path,
        inventory: Inventory,
        plan: Plan,
        reread: Callable[[], Inventory],
        say: Say,
        progress: Progress,
    ) -> None:
        self.folder, self.inventory, self.reread = folder, inventory, reread
        self.say = say
        self.lock = take_run(folder, plan.config)
        self.logger: Any = telemetry.configure(folder, "driver", plan.config.logs, run=plan.run)
        self.fleet = Fleet(plan, self._tell)
        self.helm = Helm(
            plan.config, say, progress, self.logger, self._figures, lambda: self.fleet.trouble
        )

    async def run(self) -> Report:
        """Returns the run's report. Raises what keeps it from going on."""
        self.helm.stop_on_signals()
        plan = self.fleet.plan
        if made := secrets.ready(plan):
            self.say(f"made keys for {', '.join(made)} in {plan.keys}")
        keys, engine_key = secrets.ours(plan)
        async with contextlib.AsyncExitStack() as stack:
            self.say(f"hosts: {', '.join(plan.hosts)}")
            await stack.enter_async_context(self.fleet.reached())
            await stack.enter_async_context(taking_orders(self.folder, self.carry_out))
            base_digest = self._one_base_model()
            self.say(f"log server at {plan.log_url}")
            self.fleet.phase("log-server", others_stay=True)
            client = await stack.enter_async_context(
                self.helm.joined(plan.log_url, keys, START_SECONDS)
            )
            self.fleet.phase(*LOG_ROLES, "engine", others_stay=True)
            reader = await asyncio.to_thread(
                RemoteReader.open, plan.read_url, keys=keys, patience=START_SECONDS
            )
            stack.callback(reader.close)
            engine = await stack.enter_async_context(
                EnginePool(
                    urls_of(plan.engine_url),
                    plan.config.engine,
                    numbered=plan.config.learner.weights == "full",
                    key=engine_key,
                )
            )
            course = Course(self.helm, reader, client, engine)
            await course.start(plan.run, plan.config.run.base_model, base_digest)
            self.say(f"engine at {engines(plan)}: vLLM starts in half a minute or so")
            await self._until(engine.health, "the engine")
            self.say("learner")
            self.fleet.phase(*LOG_ROLES, "engine", "learner", others_stay=True)
            await course.see_through(self._workers)
            self.say("stopping")
        self.lock.release()
        return self.helm.report

    @contextlib.asynccontextmanager
    async def _workers(self) -> AsyncIterator[None]:
        """They run until the end, wherever there are hosts for them."""
        self.fleet.phase(*LOG_ROLES, "engine", "learner", *STAGES)
        yield
        self.fleet.phase(*LOG_ROLES, "engine", "learner")
        await self.fleet.settle()

    async def _until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        begun, told = time.monotonic(), False
        while not await condition() and not self.helm.stopping.is_set():
            if not told and time.monotonic() - begun > 60:
                self.say(f"still waiting for {what}; see its host's logs")
                told = True
            await asyncio.sleep(0.5)

    def _one_base_model(self) -> str:
        """Its digest. InventoryError when two hosts would serve and train different ones."""
        digests = self.fleet.base_digests()
        if len(set(digests.values())) > 1:
            named = ", ".join(f"{host} has {digest}" for host, digest in digests.items())
            raise InventoryError(f"the hosts have different base models: {named}")
        return next(iter(digests.values()))

    async def _figures(self) -> dict[str, float]:
        return {"restarts": float(self.fleet.restarts)}

    def _tell(self, what: str, **fields: Any) -> None:
        self.logger.warning(what, **fields)
        self.say(f"{what}: " + ", ".join(f"{key} {value}" for key, value in fields.items()))

    # --- orders --------------------------------------------------------------------------------

    async def carry_out(self, order: Order) -> Answer:
        """ConfigError for what cannot be."""
        plan = self.fleet.plan
        match order.do:
            case "status":
                return Answer(figures=self._status())
            case "stop":
                self.helm.stopping.set()
                return Answer(said="stopping; the same command goes on later")
            case "scale":
                new = plans.scaled(plan, self.inventory, order.what, order.count)
                said = f"{order.what}: {order.count}, " + ", ".join(
                    f"{new.counts[host][order.what]} on {host}" for host in new.may[order.what]
                )
            case "drain":
                new = plans.drained(plan, self.inventory, order.what)
                said = f"{order.what} has no workers any more"
            case "join":
                self.inventory = self.reread()
                new = plans.joined(plan, self.inventory, order.what)
                said = f"{order.what} takes part"
            case "restart":
                host = self.fleet.restart(order.what)
                self.logger.info("order", do=order.do, what=order.what)
                return Answer(said=f"{order.what} on {host} is started again")
            case _:
                raise OrderRefused(f"no such order: {order.do[:50]!r}")
        self.logger.info("order", do=order.do, what=order.what, count=order.count)
        await self.fleet.change(new)
        settled = await self.fleet.settle()
        return Answer(said=said if settled else f"{said}; it is still being carried out")

    def _status(self) -> dict[str, Any]:
        plan = self.fleet.plan
        steps = self.helm.report.pipeline.policies.step
        return {
            "run": plan.run,
            "log": plan.log_url,
            "events": self.helm.report.pipeline.next_offset,
            "steps": {role: steps[role] for role in ROLES},
            "hosts": self.fleet.figures(),
        }


async def drive(
    folder: Path, file: Path, inventory: Inventory, plan: Plan, say: Say, progress: Progress
) -> Report:
    """Starts or resumes the run of an inventory, and sees it to its end."""
    driver = Driver(folder, inventory, plan, lambda: inventories.load(file), say, progress)
    return await driver.run()
