"""Where the servers of a run are in a Kubernetes cluster, and the plan's commands with that."""

from mmzero_async.ops.cluster.plan import Plan, Process
from mmzero_async.ops.cluster.render.places import moved
from mmzero_async.ops.cluster.render.pods import PYTHON, name_of, run_dir


def command_of(plan: Plan, process: Process) -> tuple[str, ...]:
    """A process's command as its container runs it."""
    at = run_dir(plan)
    values = {
        "--run-dir": at,
        "--log-url": server_url(plan, plan.log_url),
        "--read-url": server_url(plan, plan.read_url),
        "--engine-url": engine_url(plan),
        "--key": f"{at}/keys/{process.host}.key_secret",
        "--engine-key": f"{at}/keys/engine.key_secret",
    }
    return (PYTHON, *moved(process.command[1:], values))


def server_url(plan: Plan, url: str) -> str:
    """A server of the log's, at its pod's own name."""
    log = name_of(plan, "log")
    return f"tcp://{log}-0.{log}:{url.rpartition(':')[2]}"


def engine_url(plan: Plan) -> str:
    if not plan.engine_host:
        return plan.engine_url
    return f"http://{name_of(plan, 'engine')}:{plan.engine_url.rpartition(':')[2]}"
