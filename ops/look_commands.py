"""`mmzero tail`, `why`, `explain`, `trace`: what a run says, waits for, and where one item went."""

import json
from typing import Annotated

import typer

from mmzero_async.config import ConfigError
from mmzero_async.log.errors import LogError
from mmzero_async.ops import explain as explanations
from mmzero_async.ops import log_commands, otlp
from mmzero_async.ops import scan as scans
from mmzero_async.ops import tail as tails
from mmzero_async.ops import trace as traces
from mmzero_async.ops import why as reasons
from mmzero_async.ops.command_line import (
    AsJson,
    RunFolder,
    reading,
    role_named,
    run_folder,
    say,
)
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


def explain(
    run: log_commands.RunOrUrl,
    step: Annotated[int, typer.Option(min=1, help="the last step before the change")],
    role: Annotated[str, typer.Option(help="whose steps")] = "solver",
    span: Annotated[int, typer.Option(min=1, help="steps looked at on each side")] = 20,
    key: log_commands.KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Why a role's reward changed after a step: its terms, what else moved, what happened."""
    with log_commands.reading_anywhere(run, key) as reader:
        found = explanations.explain(reader, role_named(role), step, span)
    if as_json:
        print(json.dumps(explanations.figures(found)))
        return
    for line in explanations.lines(found):
        say(line)


def trace(
    run: log_commands.RunOrUrl,
    lineage: Annotated[
        str, typer.Argument(help="its id; or a picture: a PNG file, or its digest's beginning")
    ],
    key: log_commands.KeyFile = None,
    to: Annotated[
        str, typer.Option("--otlp", help="send it to an OpenTelemetry collector, http://host:4318")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """One lineage (g12, g12.s0, g12.s0.d3) from proposal to gradient step."""
    with log_commands.reading_anywhere(run, key) as reader:
        if (picture := traces.picture_named(lineage)) is not None:
            lineage = traces.drawing_of(reader, picture)
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
