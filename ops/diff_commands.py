"""`mmzero diff`: two runs beside each other."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mmzero_async.ops.command_line import AsJson, say
from mmzero_async.ops.log_commands import reading

Run = Annotated[Path, typer.Argument(help="a run's folder, its name under runs/, or a log's own")]


def diff(run_a: Run, run_b: Run, as_json: AsJson = False) -> None:
    """Configuration, counts and the ends of the curves of two runs, and where their logs part."""
    from mmzero_async.ops import diff as diffs

    with reading(run_a) as one, reading(run_b) as other:
        names = [one.run, other.run] if one.run != other.run else [str(run_a), str(run_b)]
        found = diffs.figures(diffs.Side(names[0], one), diffs.Side(names[1], other))
    if as_json:
        typer.echo(json.dumps(found))
        return
    for line in diffs.lines(found):
        say(line)
