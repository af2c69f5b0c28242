"""`mmzero export-model`: a version of a role as a model of its own."""

from pathlib import Path
from typing import Annotated

import typer

from mmzero_async.ops.command_line import RunFolder, reading, run_folder, say


def export_model(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="a folder that does not exist yet")],
    role: Annotated[str, typer.Option(help="proposer, coder or solver")] = "solver",
    version: Annotated[int | None, typer.Option(min=0, help="default: the newest")] = None,
    base: Annotated[
        Path | None, typer.Option(help="the base model's folder, where it lies elsewhere by now")
    ] = None,
) -> None:
    """Write a merged model that transformers and vLLM load, with a card that tells its lineage."""
    from mmzero_async.ops.export_model import export
    from mmzero_async.ops.model_card import CARD

    folder = run_folder(run)
    with reading(run) as reader:
        made = export(reader, folder, out, role, version, base)
    say(f"{made.version.name} in {out}: {made.changed} tensors changed; {out}/{CARD}")
