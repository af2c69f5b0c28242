"""`mmzero tail`, `why` and `trace`: what a run says, what it waits for, where one item went."""

import json
from typing import Annotated

import typer

from mmzero_async.config import ConfigError
from mmzero_async.log.errors import LogError
from mmzero_async.ops import log_commands, otlp
from mmzero_async.ops import scan as scans
from mmzero_async.ops import tail as tails
from mmzero_async.ops import trace as traces
from mmzero_async.ops import why as reasons
from mmzero_async.ops.command_line import AsJson, RunFolder, reading, run_folder, say
from mmzero_async.projections.spans import trace_id


def tail(
    run: RunFolder,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", "-f")] = True,
    last: Annotated[int, typer.Option("-n", help="lines to begin with")] = 20,
    role: Annotated[str, typer.Option(help="role or process")] = "",
    level: Annotated[str, typer.Option(help="at least this level")] = "info",
    lineage: Annotated[str, typer.Option(help="lineage id")] = "",
    host: Annotated[str, typer.Option(help="host's name")] = "",
    as_json: AsJson = False,
) -> None:
    """Follow the structured logs of all processes, merged."""
    if level not in tails.LEVELS:
        raise ConfigError(f"--level {level}: choose one of {', '.join(tails.LEVELS)}")
    wanted = tails.Wanted(role=role, level=level, lineage=lineage, host=host)
    try:
        for line in tails.follow(run_folder(run), wanted, forever=follow, last=last):
            if as_json:
                print(json.dumps(line), flush=True)
            else:
                text, colour = tails.text(line)
                say(text, colour or None)
    except KeyboardInterrupt:
        return


def why(
    run: RunFolder,
    item: Annotated[str, typer.Argument(help="lineage id or work's key; none: everything")] = "",
    as_json: AsJson = False,
) -> None:
    """What every stage of a run, or one item, waits for: who holds it, since when."""
    with reading(run) as reader:
        told, pipeline = reasons.answer(run_folder(run), reader)
        if as_json:
            about = {"item": list(reasons.item_lines(told, pipeline, reader, item))} if item else {}
            print(json.dumps(told.figures() | about))
        elif item:
            for line in reasons.item_lines(told, pipeline, reader, item):
                say(line)
        else:
            for line, colour in reasons.lines(told):
                say(line, colour or None)


def trace(
    run: log_commands.RunOrUrl,
    lineage: Annotated[str, typer.Argument()],
    key: log_commands.KeyFile = None,
    to: Annotated[
        str, typer.Option("--otlp", help="send it to an OpenTelemetry collector, http://host:4318")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """One lineage (g12, g12.s0, g12.s0.d3) from proposal to gradient step."""
    with log_commands.reading_anywhere(run, key) as reader:
        found = False
        if to:
            spans = traces.spans_of(reader, lineage)
            found = bool(spans)
            if found:
                otlp.export(spans, reader.run, lineage, to)
                say(f"{len(spans)} spans, trace {trace_id(reader.run, lineage):032x}")
        elif as_json:
            for record in traces.records(reader, lineage):
                found = True
                print(scans.figures(record).decode())
        else:
            for line in traces.trace(reader, lineage):
                found = True
                say(line)
    if not found:
        raise LogError(f"the log of {run} knows nothing of {lineage}")
