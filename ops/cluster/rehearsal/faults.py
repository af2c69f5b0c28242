"""What may go wrong with a run on many hosts, made to happen and timed."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Collection
from typing import Any

from mmzero_async.ops.cluster.plan import LOG_ROLES
from mmzero_async.ops.cluster.rehearsal.scene import Scene
from mmzero_async.schemas.events import (
    AnyEvent,
    Coded,
    Proposed,
    Rendered,
    WorkerJoined,
    WorkerLeft,
)


def say(**figures: Any) -> dict[str, Any]:
    """One JSON line."""
    print(json.dumps(figures), flush=True)
    return figures


class Faults:
    """Each method makes one fault, waits until it is made up for, and tells how long that took."""

    def __init__(self, scene: Scene, *, pulled: float, bad: float) -> None:
        self.scene, self.pulled, self.bad = scene, pulled, bad

    async def kill(self, name: str) -> dict[str, Any]:
        """A worker or the learner: noticed by the driver or the log server, back in the log."""
        scene = self.scene
        os.kill(await scene.pid(name), signal.SIGKILL)
        began = time.monotonic()
        noticed = await scene.until(
            lambda: (
                scene.first_told(began, "process started again", process=name)
                or scene.first(began, lambda e: isinstance(e, WorkerLeft) and e.worker == name)
            ),
            f"{name} is missed",
        )
        back = await self._joined(began, name)
        return say(
            fault=f"kill {name}", detected=since(began, noticed), recovered=since(began, back)
        )

    async def kill_log_server(self) -> dict[str, Any]:
        """Everybody keeps what is in hand; recovered when a worker's event is in the log again."""
        scene = self.scene
        os.kill(await scene.pid("log-server"), signal.SIGKILL)
        began = time.monotonic()
        noticed = await scene.until(
            lambda: scene.first_told(began, "process started again", process="log-server"),
            "the driver starts the log server again",
        )
        back = await scene.event(noticed, _work, "work goes on")
        return say(
            fault="restart log-server",
            detected=since(began, noticed),
            recovered=since(began, back),
        )

    async def kill_engine(self, name: str) -> dict[str, Any]:
        """Recovered when it generates again, which needs its policies published again."""
        scene = self.scene
        os.kill(await scene.pid(name), signal.SIGKILL)
        began = time.monotonic()
        noticed = await scene.until(
            lambda: scene.first_told(began, "process started again", process=name), "it is missed"
        )
        back = await scene.event(
            noticed + 1.0, lambda e: isinstance(e, Proposed | Coded), "it generates again"
        )
        return say(
            fault=f"kill {name}", detected=since(began, noticed), recovered=since(began, back)
        )

    async def kill_driver(self, host: str) -> dict[str, Any]:
        """The same command takes over what the hosts have kept running meanwhile."""
        scene, before = self.scene, await self._pids(host)
        began = time.monotonic()
        await scene.replace_driver()
        last = sorted(before)[-1]
        await scene.pid(last)
        return say(
            fault="kill the driver",
            recovered=since(began, time.monotonic()),
            processes_lived_on=await self._pids(host) == before,
        )

    async def pull(self, host: str) -> dict[str, Any]:
        """A link that is down for a while; the host's processes live on, and come back with it."""
        scene, at = self.scene, self.scene.hosts.hosts[host]
        before = await self._pids(host)
        workers = {name for name in before if _joins(name)}
        at.pull()
        began = time.monotonic()
        try:
            noticed = max([await self._left(began, name) for name in workers])
            driver = await scene.until(
                lambda: scene.first_told(began, "host out of reach", host=host), "the driver knows"
            )
            while time.monotonic() < began + self.pulled:
                scene.look()
                await asyncio.sleep(0.1)
        finally:
            at.push()
        mended = time.monotonic()
        back = max([await self._joined(mended - 0.2, name) for name in sorted(workers)])
        await scene.until(lambda: scene.first_told(mended - 0.2, "host is back", host=host), "line")
        return say(
            fault=f"pull {host} for {self.pulled:g} s",
            detected=since(began, noticed),
            driver_detected=since(began, driver),
            recovered=since(mended, back),
            processes_lived_on=await self._pids(host) == before,
        )

    async def worsen(self, host: str) -> dict[str, Any]:
        """A long and lossy line: nobody is missed, work goes on."""
        scene, at = self.scene, self.scene.hosts.hosts[host]
        assert at.cable is not None
        at.worsen(0.2, 0.05)
        began = time.monotonic()
        lost = at.cable.lost
        while time.monotonic() < began + self.bad:
            scene.look()
            await asyncio.sleep(0.1)
        at.worsen(0.0, 0.0)
        missed = [
            e.worker
            for t, e in scene.seen
            if t > began and isinstance(e, WorkerLeft) and e.worker.startswith(f"{host}.")
        ]
        return say(
            fault=f"{host} with 200 ms and 5 % loss for {self.bad:g} s",
            packets_lost=at.cable.lost - lost,
            events=len([t for t, _ in scene.seen if t > began]),
            missed=missed,
        )

    async def join(self, host: str, roles: Collection[str]) -> dict[str, Any]:
        scene = self.scene
        began = time.monotonic()
        await scene.order("join", host)
        workers = [f"{host}.{role}-0" for role in roles]
        back = max([await self._joined(began, name) for name in workers])
        return say(fault=f"join {host}", recovered=since(began, back))

    async def drain(self, host: str) -> dict[str, Any]:
        scene = self.scene
        workers = set(filter(_joins, await self._pids(host)))
        began = time.monotonic()
        await scene.order("drain", host)
        left = [await self._left(began, name) for name in workers]
        reasons = {
            e.reason
            for t, e in scene.seen
            if t > began and isinstance(e, WorkerLeft) and e.worker in workers
        }
        return say(fault=f"drain {host}", recovered=since(began, max(left)), left=sorted(reasons))

    async def scale(self, stage: str, count: int) -> dict[str, Any]:
        began = time.monotonic()
        await self.scene.order("scale", stage, count)
        status = await self.scene.order("status")
        names = [p for h in status["hosts"].values() for p in h["processes"] if f".{stage}-" in p]
        return say(
            fault=f"scale {stage}={count}", recovered=since(began, time.monotonic()), now=names
        )

    async def _left(self, since: float, name: str) -> float:
        return await self.scene.event(
            since, lambda e: isinstance(e, WorkerLeft) and e.worker == name, f"{name} is missed"
        )

    async def _joined(self, since: float, name: str) -> float:
        return await self.scene.event(
            since, lambda e: isinstance(e, WorkerJoined) and e.worker == name, f"{name} is back"
        )

    async def _pids(self, host: str) -> dict[str, int]:
        status = await self.scene.order("status")
        return {n: int(p["pid"]) for n, p in status["hosts"][host]["processes"].items()}


def _joins(process: str) -> bool:
    """Whether the log server knows it."""
    return not process.endswith(LOG_ROLES)


def _work(event: AnyEvent) -> bool:
    return isinstance(event, Proposed | Coded | Rendered)


def since(began: float, moment: float) -> float:
    return round(moment - began, 2)
