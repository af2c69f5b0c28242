"""The plan for people: a table of what runs where."""

import shlex
from collections.abc import Sequence

from mmzero_async.ops.cluster.plan import Plan, totals

_HEADINGS = ("host", "address", "process", "listens at", "GPUs")


def lines(plan: Plan, *, commands: bool = False) -> list[str]:
    """The table, and above it what the run is; with `commands` each process's command line too."""
    found = [
        f"run {plan.run}, configuration {plan.config.digest()}",
        ", ".join(f"{count} {role}" for role, count in totals(plan).items()),
        f"log {plan.log_url}, reading {plan.read_url}, engine {engines(plan)}",
        "",
    ]
    rows: list[Sequence[str]] = [_HEADINGS]
    for host in plan.hosts.values():
        shown, address = host.name, host.address
        for process in plan.on(host.name):
            listens = ", ".join(f"{port} ({what})" for what, port in process.listens.items())
            gpus = ",".join(map(str, process.gpus))
            rows.append((shown, address, process.name, listens, gpus))
            shown = address = ""
        if not plan.on(host.name):
            rows.append((shown, address, "(drained)" if shown in plan.drained else "", "", ""))
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADINGS))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        found.append("  ".join(cells).rstrip())
    if commands:
        found.append("")
        found += [f"{p.host}$ {_shell(p.env, p.command)}" for p in plan.processes]
    return found


def engines(plan: Plan) -> str:
    """Where they are, by role where each has its own."""
    roles = [f"of {role} {urls}" for role, urls in plan.role_engines.items()]
    return ", ".join(roles) or plan.engine_url


def _shell(env: dict[str, str], command: Sequence[str]) -> str:
    settings = [f"{key}={shlex.quote(value)}" for key, value in env.items()]
    return " ".join([*settings, shlex.join(command)])
