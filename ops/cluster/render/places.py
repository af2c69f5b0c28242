"""What every rendering shares: a process of the plan, moved to other addresses and folders.

Besides the plan's processes a rendering starts a *conductor*, which does what the driver of `mmzero
run-cluster` does but for starting and stopping: ops/cluster/conductor.py.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from mmzero_async.ops.cluster.inventory import STAGES, InventoryError
from mmzero_async.ops.cluster.plan import ENGINE_KEY, Plan, Process
from mmzero_async.ops.processes import ENVIRONMENT
from mmzero_async.transport.keys import LOCAL_KEY, SERVER_KEY

CONDUCTOR = "conductor"

_STAGES = frozenset(STAGES)


class Rendering(msgspec.Struct, frozen=True, kw_only=True):
    """Files, and what somebody has to do by hand."""

    files: dict[str, str]  # name -> text
    steps: tuple[str, ...]  # shell lines, in order; # begins a comment


def moved(
    command: Sequence[str], values: Mapping[str, str], also: Iterable[str] = ()
) -> tuple[str, ...]:
    """The command with other values of its options, where it has them, and options more."""
    found = list(command)
    for i, word in enumerate(found[:-1]):
        if word in values:
            found[i + 1] = values[word]
    return (*found, *also)


def scheduled(plan: Plan) -> Plan:
    """The plan as a scheduler is given it: without log shippers (Slurm's machines see one folder,
    and Kubernetes has ways of its own for what pods say) and without a tracker, whose program the
    log's image lacks. InventoryError for a learner on several hosts, whose ranks would not find
    each other there."""
    learners = [process.host for process in plan.processes if process.role == "learner"]
    if len(learners) > 1:
        raise InventoryError(
            f"the learner is on {', '.join(learners)}: on several hosts it is started by `mmzero "
            "run-cluster` alone; give the role to one of them"
        )
    left_out = ("log-shipper", "tracker")
    kept = tuple(process for process in plan.processes if process.role not in left_out)
    return replace(plan, processes=kept)


def image_kind(role: str) -> str:
    """Which of the images (ops/docker/) has what a process needs."""
    if role in ("log-server", "log-reader", CONDUCTOR):
        return "log"
    return "worker" if role in _STAGES else role


def environment(process: Process) -> dict[str, str]:
    """Of a process whose GPUs the scheduler chooses; one that is promised none still sees none."""
    env = {**ENVIRONMENT, **process.env}
    if process.gpus:
        env.pop("CUDA_VISIBLE_DEVICES", None)
    return env


def secrets(plan: Plan, holder: str) -> tuple[str, ...]:
    """Files in the folder of keys that the processes of a host, or the conductor, need."""
    name = LOCAL_KEY if holder == CONDUCTOR else holder
    if name == LOCAL_KEY:
        found: tuple[str, ...] = (f"{LOCAL_KEY}.key_secret", f"{SERVER_KEY}.key", ENGINE_KEY)
    else:
        found = tuple(file for file in plan.hosts[name].secrets if not file.endswith("/"))
    return tuple(f for f in found if plan.engine_host or f != ENGINE_KEY)


def one_engine(plan: Plan) -> None:
    """InventoryError for a plan with engines on several hosts."""
    if len(plan.engine_hosts) > 1:
        raise InventoryError(
            f"engines on {', '.join(plan.engine_hosts)}: only `mmzero run-cluster` starts several. "
            "Give one host the engine, with data_parallel over its GPUs, or name engines that run "
            "already in engine.url, separated by commas"
        )


def nodes_of(process: Process, gpus_a_node: int) -> int:
    """How many machines a process's GPUs fill. InventoryError where vLLM could not lie so."""
    needed = -(-len(process.gpus) // gpus_a_node) or 1
    if needed == 1:
        return 1
    if process.role != "engine":
        raise InventoryError(
            f"{process.name}: {len(process.gpus)} GPUs, and a machine has {gpus_a_node}: a learner "
            "lies on one. Give it fewer, or --gpus-per-node"
        )
    if len(process.gpus) % needed or "--data-parallel 1" not in " ".join(process.command):
        raise InventoryError(
            f"{process.name}: {len(process.gpus)} GPUs over {needed} machines: only "
            "tensor_parallel may cross machines, with as many GPUs on each"
        )
    return needed


def key_steps(plan: Plan, keys: str) -> tuple[str, ...]:
    """How the keys are made, once; `keys` is their folder here, as the shell reads it."""
    names = " ".join(f"--name {host}" for host in plan.hosts)
    lines = [f"mmzero keys new {keys} {names}"]
    if plan.engine_host:
        lines.append(f"( umask 077 && openssl rand -hex 32 > {keys}/{ENGINE_KEY} )")
    return tuple(lines)


def label(*parts: str, most: int = 40) -> str:
    """A name that Kubernetes takes for anything (RFC 1035), different for different parts.

    Where the parts had to be changed, a digest tells it from others. Short, for a pod's name is
    part of its worker's, which has at most 100 characters.
    """
    plain = "-".join(parts)
    name = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
    if name == plain and len(name) <= most:
        return name
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]
    return f"{name[: most - 9].rstrip('-')}-{digest}"
