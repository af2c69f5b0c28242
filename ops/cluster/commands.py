"""`mmzero run-cluster` and `mmzero cluster`: the command line of a run on many hosts."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from mmzero_async import config as configuration
from mmzero_async.ops.cluster import inventory as inventories
from mmzero_async.ops.cluster import plan as plans
from mmzero_async.ops.cluster import table
from mmzero_async.ops.cluster.inventory import Inventory

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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan alone")] = False,
    commands: Annotated[bool, typer.Option("--commands", help="with every command line")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a run on the hosts of an inventory, follow it, and stop it."""
    _, plan = read(file)
    if as_json:
        typer.echo(msgspec.json.encode(plan).decode())
    else:
        for line in table.lines(plan, commands=commands):
            typer.echo(line)
    if not dry_run:
        raise inventories.InventoryError("not built yet: only --dry-run")
