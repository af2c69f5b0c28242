"""Several engines on hosts of their own, one of them lost on the way: adapters, or full weights.

With adapters both engines serve every role, and the run goes on with the other. With full weights
each role has its own, whose work waits until it is back.
"""

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.errors import EngineError
from mmzero_async.engines.secret import read_secret
from mmzero_async.ops.cluster.plan import ENGINE_KEY
from mmzero_async.ops.cluster.rehearsal.faults import say, since
from mmzero_async.ops.cluster.rehearsal.hosts import rehearsal_hosts
from mmzero_async.ops.cluster.rehearsal.scene import (
    PORTS,
    Roles,
    Scene,
    Stuck,
    audit,
    playing,
    write_inventory,
)
from mmzero_async.schemas.events import (
    ROLES,
    Answered,
    Coded,
    PolicyPublished,
    Proposed,
    StepCommitted,
    kind_of,
)

TAKES_PART = 20  # tokens: a publish draws one to see whether a version answers
OVERRIDES = (  # small windows: a step is soon taken
    *("run.evaluate=false", "run.max_minutes=0", "log.map_gib=1", "probe.share=0"),
    *("learner.proposer.groups=2", "learner.coder.groups=3", "learner.solver.groups=3"),
    *("filters.solver_agreement=0", "filters.solver_hard_consistency=[0.2, 0.9]"),
    "filters.solver_easy_consistency=0.25",
)
FULL = ("learner.weights=full", *(f"learner.{role}.lr=1e-5" for role in ROLES))
POOL: Roles = {
    "alpha": {"log": 1, "learner": 1, "proposer": 1},
    "beta": {"engine": 1, "coder": 1, "solver": 1},
    "gamma": {"engine": 1, "renderer": 1, "solver": 1},
}
ENGINE_A_ROLE: Roles = {
    "alpha": {"log": 1, "learner": 1, "renderer": 1},
    "beta": {"engine": 1, "proposer": 1},
    "gamma": {"engine": 1, "coder": 1},
    "delta": {"engine": 1, "solver": 1},
}
SERVES = {"beta": "proposer", "gamma": "coder", "delta": "solver"}


async def rehearse_engines(
    folder: Path, *, full: bool = False, patience: float = 400.0
) -> list[dict[str, Any]]:
    """The whole play: what was measured, the audit last. Stuck."""
    roles, serves = (ENGINE_A_ROLE, SERVES) if full else (POOL, {})
    lost = "delta" if full else "gamma"
    found: list[dict[str, Any]] = []
    async with rehearsal_hosts(folder / "net", list(roles)) as hosts:
        found.append(say(hosts={n: h.address for n, h in hosts.hosts.items()}, why=hosts.why))
        chosen = (*OVERRIDES, *FULL) if full else OVERRIDES
        inventory = write_inventory(hosts, folder, roles, chosen, PORTS, serves)
        began = time.monotonic()
        async with playing(hosts, folder, inventory, "alpha", patience) as scene:
            trained = await scene.until(
                lambda: next(iter(_later(scene, 0.0, serves.get(lost, ""))), None),
                "a trained version is published",
            )
            found.append(say(event="a trained version", after=since(began, trained)))
            found.append(await lose_engine(scene, lost, serves))
            moment = time.monotonic()
            await scene.event(moment, lambda e: isinstance(e, StepCommitted), "a step after it")
            after = await scene.until(lambda: _later(scene, moment, ""), "its policy")
            for host in (n for n, counts in roles.items() if "engine" in counts):
                await until_held(scene, host, serves)
            found.append(say(event="published to all of them", after=since(moment, after[0])))
            found.append(say(event="stopped", status=await scene.stop()))
    found.append(say(**await audit(folder)))
    return found


async def lose_engine(scene: Scene, host: str, serves: Mapping[str, str]) -> dict[str, Any]:
    """Kills it. Noticed when its host starts it again, back when it answers, recovered when it
    holds the newest version of what it serves and draws samples from it."""
    name = f"{host}.engine"
    os.kill(await scene.pid(name), signal.SIGKILL)
    began = time.monotonic()
    noticed = await scene.until(
        lambda: scene.first_told(began, "process started again", process=name), "it is missed"
    )
    async with _client(scene, host) as client:
        while not await client.health():
            scene.look()
            if time.monotonic() > began + scene.patience:
                raise Stuck(f"{name} does not come back. {scene.words()}")
            await asyncio.sleep(0.1)
        back = time.monotonic()
        held, versions = await until_held(scene, host, serves)
        before = (await client.metrics())["tokens_generated"]
        while (drawn := (await client.metrics())["tokens_generated"] - before) < TAKES_PART:
            scene.look()
            if time.monotonic() > held + scene.patience:
                raise Stuck(f"nobody asks {name} for anything. {scene.words()}")
            await asyncio.sleep(0.1)
        draws = time.monotonic()
    meanwhile = [
        kind_of(e)
        for t, e in scene.seen
        if noticed < t < back and isinstance(e, Proposed | Coded | Answered)
    ]
    return say(
        fault=f"kill {name}",
        detected=since(began, noticed),
        answers=since(began, back),
        published=since(began, held),
        recovered=since(began, draws),
        generated_meanwhile={kind: meanwhile.count(kind) for kind in sorted(set(meanwhile))},
        holds=versions,
        drawn=drawn,
    )


async def until_held(
    scene: Scene, host: str, serves: Mapping[str, str]
) -> tuple[float, dict[str, int]]:
    """When the host's engine holds the newest published version of what it serves, and which."""
    deadline = time.monotonic() + scene.patience
    async with _client(scene, host) as client:
        while time.monotonic() < deadline:
            scene.look()
            newest = {e.role: e for _, e in scene.seen if isinstance(e, PolicyPublished)}
            with suppress(EngineError):
                if role := serves.get(host):
                    wanted = {e.role: e for e in newest.values() if e.role == role}
                    number = await client.weight_version()
                    holds = all(str(event.version) == number for event in wanted.values())
                else:
                    wanted, served = dict(newest), await client.policies()
                    holds = all(event.policy in served for event in wanted.values())
                if holds and wanted:
                    return time.monotonic(), {r: event.version for r, event in wanted.items()}
            await asyncio.sleep(0.1)
    raise Stuck(f"the engine on {host} does not get the newest versions. {scene.words()}")


def _client(scene: Scene, host: str) -> VllmClient:
    key = read_secret(scene.folder / "keys" / ENGINE_KEY)
    url = f"http://{scene.hosts.hosts[host].address}:{PORTS[2]}"
    return VllmClient(url, key=key, retries=0)


def _later(scene: Scene, moment: float, role: str) -> list[float]:
    """When versions that were trained were published, of a role or of any."""
    return [
        at
        for at, e in scene.seen
        if at > moment and isinstance(e, PolicyPublished) and e.version and role in ("", e.role)
    ]
