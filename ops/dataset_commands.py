"""`mmzero dataset`: a dataset from a run's log."""

from pathlib import Path
from typing import Annotated

import typer

from mmzero_async.ops.command_line import RunFolder, reading, run_folder, say


def dataset(
    run: RunFolder,
    out: Annotated[Path | None, typer.Option(help="default: <run>/dataset.parquet")] = None,
) -> None:
    """Write answered pictures with questions, votes and scores as Parquet."""
    from mmzero_async.ops import dataset as datasets

    target = out or run_folder(run) / "dataset.parquet"
    with reading(run) as reader:
        count = datasets.write(reader, target)
    say(f"{count} rows in {target}")
