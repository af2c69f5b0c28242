"""`just cluster-demo`: a run on hosts of its own on this machine, and everything that may go wrong.

Starts the seedling's run with `mmzero run-cluster`, then kills every kind of process, pulls a
host's link, makes one long and lossy, kills the log server, lets a host join and drains another.
Prints a JSON line a fault: seconds until it was noticed, and until the run had made up for it.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from mmzero_async.ops.cluster.rehearsal.engines import rehearse_engines
from mmzero_async.ops.cluster.rehearsal.faults import Faults, say, since
from mmzero_async.ops.cluster.rehearsal.hosts import Hosts, rehearsal_hosts
from mmzero_async.ops.cluster.rehearsal.scene import (
    PORTS,
    Roles,
    Stuck,
    audit,
    playing,
    write_inventory,
)
from mmzero_async.ops.cluster.rehearsal.secrecy import told_secrets
from mmzero_async.schemas.events import PolicyPublished, StepCommitted

NOTICED_WITHIN = 5.0  # seconds
ROLES: Roles = {
    "alpha": {"log": 1, "proposer": 1},
    "beta": {"engine": 1, "solver": 1},
    "gamma": {"coder": 1, "renderer": 1, "solver": 1},
    "delta": {"learner": 1, "coder": 1, "renderer": 1, "solver": 1},
}
LATER: Roles = {"epsilon": {"renderer": 1, "solver": 1}}
KILLED = ("alpha.proposer-0", "gamma.coder-0", "gamma.renderer-0", "beta.solver-0")
FAR = "delta"  # on a cable that may be made bad; far from the log and from the engine


Engine = Callable[[Hosts], AbstractAsyncContextManager[Sequence[str]]]


@contextlib.asynccontextmanager
async def seedling(hosts: Hosts) -> AsyncIterator[Sequence[str]]:
    """The seedling behind vLLM on a host, as the inventory says."""
    yield ("run.evaluate=false", "run.max_minutes=0", "log.map_gib=4")


async def rehearse(
    folder: Path, engine: Engine = seedling, *, short: bool = False, patience: float = 400.0
) -> list[dict[str, Any]]:
    """The whole play: what was measured, the audit last. Stuck.

    `engine` gives the overrides of the configuration; with engine.url among them the run has none
    of its own.
    """
    found: list[dict[str, Any]] = []
    async with (
        rehearsal_hosts(folder / "net", [*ROLES, *LATER], on_cable=[FAR]) as hosts,
        engine(hosts) as overrides,
    ):
        named = {name: host.address for name, host in hosts.hosts.items()}
        found.append(say(hosts=named, namespaces=hosts.real))
        if not hosts.real:
            found.append(say(left_out=["pulled link", "200 ms and 5 % loss"], why=hosts.why))
        own_engine = not any(override.startswith("engine.url=") for override in overrides)
        roles = {
            n: {r: c for r, c in counts.items() if own_engine or r != "engine"}
            for n, counts in ROLES.items()
        }
        inventory = write_inventory(hosts, folder, roles, overrides, PORTS)
        began = time.monotonic()
        async with playing(hosts, folder, inventory, "alpha", patience) as scene:
            await scene.event(0.0, lambda e: isinstance(e, StepCommitted), "a first step")
            found.append(say(event="a first step", after=since(began, time.monotonic())))
            faults = Faults(scene, pulled=10.0 if short else 30.0, bad=8.0 if short else 30.0)
            for name in KILLED[1:3] if short else KILLED:
                found.append(await faults.kill(name))
            found.append(await faults.kill_log_server())
            if hosts.real:
                found.append(await faults.pull("gamma"))
                found.append(await faults.worsen(FAR))
            if not short:
                found.append(await faults.kill(f"{FAR}.learner-0"))
                if own_engine:
                    found.append(await faults.kill_engine("beta.engine"))
            found.append(await faults.kill_driver("gamma"))
            write_inventory(hosts, folder, {**roles, **LATER}, overrides, PORTS)
            found.append(await faults.join("epsilon", LATER["epsilon"]))
            found.append(await faults.scale("solver", 5))
            found.append(await faults.drain("gamma"))
            moment = time.monotonic()
            await scene.event(moment, lambda e: isinstance(e, StepCommitted), "a step after it all")
            await scene.event(moment, lambda e: isinstance(e, PolicyPublished), "its policy")
            secrets = await asyncio.to_thread(told_secrets, folder)
            found.append(say(event="secrets", **secrets))
            found.append(say(event="stopped", status=await scene.stop()))
    found.append(say(**await audit(folder)))
    return found


def late(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was noticed too late."""
    return [f for f in found if f.get("detected", 0.0) > NOTICED_WITHIN]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="a new folder; default: a temporary one")
    parser.add_argument("--engines", choices=("lora", "full"), help="several, one of them lost")
    parser.add_argument("--short", action="store_true", help="fewer faults, shorter ones")
    args = parser.parse_args()
    folder = args.out or Path(tempfile.mkdtemp(prefix="mmz-"))
    folder.mkdir(parents=True, exist_ok=True)
    say(folder=str(folder))
    try:
        if args.engines:
            play = rehearse_engines(folder.absolute(), full=args.engines == "full")
        else:
            play = rehearse(folder.absolute(), short=args.short)
        found = asyncio.run(play)
    except Stuck as error:
        print(f"cluster-demo: {error}", file=sys.stderr)
        return 1
    told = [f for f in found if f.get("told_by")]
    return 0 if found[-1]["clean"] and not late(found) and not told else 1


if __name__ == "__main__":
    sys.exit(main())
