"""`mmzero`: the command line. Each command is a few lines over a room below.

A command imports what it runs when it runs, where that is more than the log and what it means
(servers, engines, Arrow, SSH, the learner): who only looks waits for none of it.
"""

import sys
from collections.abc import Iterator

import typer

from mmzero_async.config import ConfigError
from mmzero_async.engines.errors import EngineError
from mmzero_async.learner.errors import LearnerError
from mmzero_async.log.errors import LogError
from mmzero_async.ops import (
    dataset_commands,
    diff_commands,
    eval_commands,
    export_commands,
    key_commands,
    log_commands,
    log_exchange,
    log_retention,
    look_commands,
    replay_commands,
    run_commands,
    track_commands,
    ui_commands,
)
from mmzero_async.ops.cluster import commands as cluster_commands
from mmzero_async.ops.cluster.render.commands import render as render_cluster
from mmzero_async.ops.command_line import complain
from mmzero_async.ops.errors import ProcessKeepsDying, RunLost
from mmzero_async.ports import PortTaken
from mmzero_async.schemas.record import RecordDamaged
from mmzero_async.trackers.port import TrackerUnusable
from mmzero_async.transport.errors import TransportError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Self-evolving vision-language training over one event log.",
)
for command in (
    run_commands.run,
    run_commands.status,
    replay_commands.replay,
    look_commands.tail,
    look_commands.why,
    look_commands.explain,
    look_commands.trace,
    run_commands.metrics,
    track_commands.track,
    dataset_commands.dataset,
    ui_commands.ui,
    diff_commands.diff,
):
    app.command()(command)
app.command(name="eval")(eval_commands.eval_)
app.command(name="export-model")(export_commands.export_model)
log_commands.app.add_typer(log_retention.app)
log_commands.app.add_typer(log_exchange.app)
app.add_typer(log_commands.app, name="log")
app.add_typer(key_commands.app, name="keys")
app.command(name="run-cluster")(cluster_commands.run_cluster)
cluster_commands.app.command(name="render")(render_cluster)
app.add_typer(cluster_commands.app, name="cluster")

ERRORS = (
    ConfigError,
    LogError,
    TransportError,
    EngineError,
    LearnerError,
    PortTaken,
    ProcessKeepsDying,
    RunLost,
    TrackerUnusable,
    RecordDamaged,
    FileNotFoundError,
    ValueError,
)


def main() -> None:
    """Errors that have something to say to people are said in one line, with exit status 1."""
    try:
        app()
    except* ERRORS as group:
        for error in _leaves(group):
            complain(f"mmzero: {error}")
        sys.exit(1)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


if __name__ == "__main__":
    main()
