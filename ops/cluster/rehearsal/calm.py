"""A rehearsal in which nothing goes wrong: a small cluster at work, to be measured.

Hosts, SSH, keys and processes are as in `just cluster-demo`; what it did stands in its log.
"""

import asyncio
import time
from pathlib import Path

from mmzero_async.ops.cluster.rehearsal.demo import ROLES, Engine, seedling
from mmzero_async.ops.cluster.rehearsal.faults import say
from mmzero_async.ops.cluster.rehearsal.hosts import rehearsal_hosts
from mmzero_async.ops.cluster.rehearsal.scene import (
    PORTS,
    RUN,
    Roles,
    Stuck,
    playing,
    write_inventory,
)
from mmzero_async.schemas.events import StepCommitted

__all__ = ["Stuck", "undisturbed"]


async def undisturbed(
    folder: Path,
    seconds: float,
    *,
    engine: Engine = seedling,
    roles: Roles = ROLES,
    patience: float = 600.0,
) -> Path:
    """Starts the run, lets it work for so long after its first step, stops it. The run's folder on
    the log server's host. Stuck."""
    async with rehearsal_hosts(folder / "net", list(roles)) as hosts, engine(hosts) as overrides:
        say(hosts={n: h.address for n, h in hosts.hosts.items()}, namespaces=hosts.real)
        inventory = write_inventory(hosts, folder, roles, overrides, PORTS)
        at = next(name for name, counts in roles.items() if counts.get("log"))
        async with playing(hosts, folder, inventory, at, patience) as scene:
            await scene.event(0.0, lambda e: isinstance(e, StepCommitted), "a first step")
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                scene.look()
                await asyncio.sleep(0.5)
            say(event="stopped", status=await scene.stop(), events=len(scene.seen))
            return folder / at / RUN
