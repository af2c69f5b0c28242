"""The secrets of a cluster: made where they are missing, read to be handed to the hosts.

They lie in one folder on the driver's machine (docs/KEYS.md), and leave it by the SSH line alone.
"""

from pathlib import Path

from mmzero_async.engines.secret import new_secret, read_secret
from mmzero_async.ops.cluster.plan import ENGINE_KEY, Plan
from mmzero_async.transport.keys import (
    AUTHORIZED,
    LOCAL_KEY,
    ClientKeys,
    authorized_files,
    client_keys,
    new_keys,
)


def ready(plan: Plan) -> list[str]:
    """Makes what the plan needs and the folder lacks; the names of what was made. KeysUnusable."""
    folder = _folder(plan)
    missing = [host for host in plan.hosts if not (folder / f"{host}.key_secret").exists()]
    missing = [host for host in missing if not (folder / AUTHORIZED / f"{host}.key").exists()]
    made = new_keys(folder, missing) if missing else []
    if not (folder / ENGINE_KEY).exists():
        new_secret(folder / ENGINE_KEY)
        made.append("engine")
    return made


def of_host(plan: Plan, host: str) -> dict[str, str]:
    """File in the host's folder of keys -> content. KeysUnusable; EngineKeyUnusable."""
    folder = _folder(plan)
    client_keys(folder / f"{host}.key_secret")  # a broken one is told here, not by every worker
    found: dict[str, str] = {}
    for name in plan.hosts[host].secrets:
        if name == f"{AUTHORIZED}/":
            for path in authorized_files(folder):
                found[f"{AUTHORIZED}/{path.name}"] = path.read_text(encoding="ascii")
        else:
            found[name] = (folder / name).read_text(encoding="ascii")
    return found


def ours(plan: Plan) -> tuple[ClientKeys, str]:
    """What the driver itself needs: keys for the log, and the engine's key."""
    folder = _folder(plan)
    engine = read_secret(folder / ENGINE_KEY) if plan.engine_host else ""
    return client_keys(folder / f"{LOCAL_KEY}.key_secret"), engine


def _folder(plan: Plan) -> Path:
    return Path(plan.keys).expanduser()
