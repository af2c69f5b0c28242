"""`mmzero log export | import | merge`: logs between machines, and several as one collection."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmzero_async.log.collection import Part
from mmzero_async.log.collection import merge as merge_logs
from mmzero_async.log.errors import LogError
from mmzero_async.ops.log_commands import AsJson, RunFolder, beside, log_folder, reading

if TYPE_CHECKING:
    from mmzero_async.log.manifest import Manifest

app = typer.Typer()


@app.command(name="export")
def export_(
    run: RunFolder,
    file: Annotated[Path, typer.Argument(help="a file that does not exist yet")],
    as_json: AsJson = False,
) -> None:
    """Write the whole log to one file, read back and compared, while the run goes on."""
    from mmzero_async.log.portable import export_log

    with reading(run) as reader:
        made = export_log(reader, file, beside(log_folder(run)))
    size = file.stat().st_size
    _tell(made, f"exported to {file}, {size / 1e6:.2f} MB", as_json, file=str(file), bytes=size)


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(help="a file that `mmzero log export` wrote")],
    run: Annotated[Path, typer.Argument(help="a run's folder that does not exist yet")],
    as_json: AsJson = False,
) -> None:
    """Make the log again from an exported file, checked, the same to the bit."""
    from mmzero_async.log.portable import import_log

    made = import_log(file, run)
    _tell(made, f"imported to {run}, the same to the bit", as_json, run_folder=str(run))


@app.command()
def merge(
    folders: Annotated[
        list[Path], typer.Argument(help="runs' folders, and last a folder that does not exist yet")
    ],
    as_json: AsJson = False,
) -> None:
    """Copy several runs' logs, verified, into one read-only collection, for `mmzero dataset`.

    Each log keeps its offsets and ids; a row names its member and its offset there."""
    *runs, out = folders
    if len(runs) < 1 or (out / "log").exists():
        raise LogError(
            "name the runs and then a folder that does not exist yet: mmzero log merge RUN_A RUN_B "
            "OUT"
        )
    with ExitStack() as stack:
        parts = [Part(stack.enter_context(reading(run)), beside(log_folder(run))) for run in runs]
        made = merge_logs(parts, out)
    if as_json:
        members = [
            {"name": m.name, "run": m.run, "events": m.events, "blobs": m.blobs}
            for m in made.members
        ]
        typer.echo(json.dumps({"out": str(out), "members": members}))
        return
    for member in made.members:
        typer.echo(
            f"{out / member.name}: run {member.run}, {member.events} events, {member.blobs} blobs"
        )
    typer.echo(f"{len(made.members)} logs in {out}, verified. Use them: mmzero dataset {out}")


def _tell(made: "Manifest", what: str, as_json: bool, **more: str | int) -> None:
    if as_json:
        figures = {"run": made.run, "events": made.events, "pictures": made.pictures}
        typer.echo(json.dumps(figures | more))
    else:
        typer.echo(
            f"{made.events} events and {made.pictures} pictures of run {made.run} {what}; "
            "checkpoints are not in it"
        )
