"""`mmzero run-cluster` and `mmzero cluster`: the command line of a run on many hosts."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from mmzero_async import config as configuration
from mmzero_async.ops import summary
from mmzero_async.ops.cluster import inventory as inventories
from mmzero_async.ops.cluster import plan as plans
from mmzero_async.ops.cluster import table
from mmzero_async.ops.cluster.control import Order, order
from mmzero_async.ops.cluster.inventory import Inventory
from mmzero_async.ops.command_line import console, say
from mmzero_async.ops.display import display

InventoryFile = Annotated[Path, typer.Argument(help="the inventory; docs/cluster.example.toml")]
AsJson = Annotated[bool, typer.Option("--json", help="figures for programs")]


def read(path: Path) -> tuple[Inventory, plans.Plan]:
    """The inventory, and the plan that follows from it. ConfigError."""
    inventory = inventories.load(path)
    source = inventory.config
    beside = path.parent / source  # a file is named as the inventory sees it
    if source not in configuration.preset_names() and beside.is_file():
        source = str(beside)
    return inventory, plans.make(inventory, configuration.load(source, inventory.overrides))


def run_cluster(
    file: InventoryFile,
    run: Annotated[
        Path | None, typer.Option(help="the run's folder on this machine; default: runs/NAME")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan alone")] = False,
    commands: Annotated[bool, typer.Option("--commands", help="with every command line")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a run on the hosts of an inventory, or go on with it; follow it, and stop it."""
    inventory, plan = read(file)
    if as_json:
        typer.echo(msgspec.json.encode(plan).decode())
    else:
        for line in table.lines(plan, commands=commands):
            typer.echo(line)
    if dry_run:
        return
    from mmzero_async.ops.cluster.driver import drive

    folder = run or Path("runs") / plan.run
    with display(console, plan.config, say) as shown:
        report = asyncio.run(drive(folder, file, inventory, plan, shown.say, shown.progress))
    for line in summary.lines(report):
        say(line)
    host = plan.hosts[plan.log_host]
    look = f"on {host.name}: {Path(host.python).parent}/mmzero replay {host.run_dir} --audit"
    if report.pipeline.finished is None:
        say(f"stopped; the same command goes on. Look, {look}")
    else:
        say(f"finished. Look, {look}")


# --- orders to a run that is going on -------------------------------------------------------------

app = typer.Typer(no_args_is_help=True, help="Look at a cluster's run, and change it as it goes.")

Run = Annotated[Path, typer.Option("--run", help="the run's folder on this machine")]
DEFAULT = Path("runs/demo")


def _folder(run: Path) -> Path:
    return run if run.exists() else Path("runs") / run


@app.command()
def status(run: Run = DEFAULT, as_json: AsJson = False) -> None:
    """Hosts and processes, as the driver sees them now."""
    figures = order(_folder(run), Order(do="status")).figures
    if as_json:
        typer.echo(json.dumps(figures))
        return
    steps = " ".join(f"{role} {step}" for role, step in figures["steps"].items())
    typer.echo(f"run {figures['run']}, log {figures['log']}, {figures['events']} events")
    typer.echo(f"steps: {steps}")
    for name, host in figures["hosts"].items():
        state = host["trouble"] or ("drained" if host["drained"] else "up")
        typer.echo(f"{name}  {host['address']}  {state}")
        for process, seen in host["processes"].items():
            how = seen["given_up"] or (f"pid {seen['pid']}" if seen["pid"] else "not running")
            again = f", started again {seen['restarts']} times" if seen["restarts"] else ""
            typer.echo(f"    {process}  {how}{again}")


@app.command()
def scale(
    wanted: Annotated[str, typer.Argument(help="e.g. solver=8: so many in all")], run: Run = DEFAULT
) -> None:
    """Run so many processes of a stage, spread over the hosts that may."""
    stage, equals, count = wanted.partition("=")
    if not equals or not count.isdecimal():
        raise inventories.InventoryError(f"scale {wanted!r}: write STAGE=NUMBER, e.g. solver=8")
    typer.echo(order(_folder(run), Order(do="scale", what=stage, count=int(count))).said)


@app.command()
def drain(host: Annotated[str, typer.Argument()], run: Run = DEFAULT) -> None:
    """Stop a host's workers; what they had in hand is done by others."""
    typer.echo(order(_folder(run), Order(do="drain", what=host)).said)


@app.command()
def join(host: Annotated[str, typer.Argument()], run: Run = DEFAULT) -> None:
    """Take in a host that was written into the inventory, or one that was drained."""
    typer.echo(order(_folder(run), Order(do="join", what=host)).said)


@app.command()
def restart(worker: Annotated[str, typer.Argument()], run: Run = DEFAULT) -> None:
    """End one process and start it, also one that was given up."""
    typer.echo(order(_folder(run), Order(do="restart", what=worker)).said)


@app.command()
def stop(run: Run = DEFAULT) -> None:
    """Stop the run on all hosts; `mmzero run-cluster` goes on with it."""
    typer.echo(order(_folder(run), Order(do="stop")).said)
