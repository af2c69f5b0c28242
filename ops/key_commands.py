"""`mmzero keys`: CURVE keys for log servers that other hosts reach. Prints no secret.

How they travel, and what happens when one is revoked: docs/KEYS.md.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mmzero_async.ops.command_line import say
from mmzero_async.transport.keys import (
    AUTHORIZED,
    LOCAL_KEY,
    MAX_KEYS,
    SERVER_KEY,
    new_keys,
    read_authorized,
    server_public,
)

app = typer.Typer(no_args_is_help=True, help="Make and list CURVE keys of a log server.")

KeyFolder = Annotated[Path, typer.Argument(help="the folder of keys: log.keys")]
AsJson = Annotated[bool, typer.Option("--json", help="figures for programs")]


@app.command()
def new(
    folder: KeyFolder,
    name: Annotated[
        list[str] | None, typer.Option(help="a client, best one a host; may be given often")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, max=MAX_KEYS, help="as many clients: worker-0, worker-1 ...")
    ] = 0,
) -> None:
    """Make keys for the log server and for what runs beside it, and one pair for each client.

    In a folder that has keys, add clients. Nothing is ever overwritten.
    """
    made = new_keys(folder, [*(name or []), *(f"worker-{i}" for i in range(workers))])
    for each in made:
        typer.echo(f"made {folder / each}.key_secret (mode 0600)")
    for each in made:
        if each not in (SERVER_KEY, LOCAL_KEY):
            typer.echo(
                f"for {each}: move {each}.key_secret and copy {SERVER_KEY}.key to its host; start "
                f"workers there with --key {each}.key_secret --worker {each}.NAME"
            )
    typer.echo(f"the log server: log.keys={folder}")


@app.command()
def show(folder: KeyFolder, as_json: AsJson = False) -> None:
    """List names and public keys: the server's, and those that may come in. Exit status 1 when a
    file there cannot be used."""
    server = server_public(folder).decode()
    clients, problems = read_authorized(folder)
    if as_json:
        shown: dict[str, Any] = {
            "server": server,
            "clients": [
                {"name": c.name, "public": c.public.decode(), "producers": c.producers}
                for c in clients.values()
            ],
            "problems": problems,
        }
        typer.echo(json.dumps(shown))
    else:
        typer.echo(f"{server}  {SERVER_KEY}")
        for client in clients.values():
            names = client.producers if client.producers == "*" else f"{client.producers}[.*]"
            typer.echo(f"{client.public.decode()}  {client.name}, writes as {names}")
        for problem in problems:
            say(f"  {problem}", "red")
        typer.echo(f"{len(clients)} in {folder / AUTHORIZED}: delete a file to revoke its key")
    if problems:
        raise typer.Exit(1)
