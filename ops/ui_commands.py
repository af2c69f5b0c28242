"""`mmzero ui`: one page over a run, while it goes on and when it is over."""

import os
from typing import Annotated

import typer

from mmzero_async.ops.command_line import RunFolder, reading, run_folder, say

NICER = 5  # than the run


def ui(
    run: RunFolder,
    host: Annotated[str, typer.Option(help="address to listen at")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="0: any free one; -1: the first free one from 8600 on")
    ] = -1,
    token: Annotated[
        str, typer.Option(envvar="MMZERO_UI_TOKEN", help="what a visitor has to know")
    ] = "",
) -> None:
    """Show a run in a browser: pipeline, curves, pictures, workers, audit. Ctrl-C ends it."""
    from mmzero_async.config import from_json
    from mmzero_async.ops.ui import serving

    folder = run_folder(run)
    config = from_json((folder / "config.json").read_text())
    os.nice(NICER)
    with reading(folder) as reader:
        serving.run(folder, reader, config, host=host, port=port, token=token, say=say)
