"""`mmzero track`: a run's figures in TensorBoard, wandb or trackio, from its log."""

import asyncio
import signal
from typing import Annotated

import typer
from msgspec import ValidationError, convert

from mmzero_async.config import ConfigError, from_json
from mmzero_async.ops.command_line import RunFolder, reading, run_folder, say
from mmzero_async.tracker_options import TrackerOptions
from mmzero_async.trackers.follow import FOLDER, Follower, opened


def track(
    run: RunFolder,
    kind: Annotated[str, typer.Option(help="tensorboard, wandb or trackio; default: as set")] = "",
    project: Annotated[str, typer.Option(help="of wandb and trackio; default: as set")] = "",
    follow: Annotated[bool, typer.Option("--follow/--no-follow", "-f", help="go on")] = True,
) -> None:
    """Show a run's figures in a tracker: those that it lacks, and with --follow those that come.

    A run with `tracker.kind` set does it by itself; this is for runs that are over, say."""
    folder = run_folder(run)
    options = from_json((folder / "config.json").read_text()).tracker
    given = {key: value for key, value in (("kind", kind), ("project", project)) if value}
    try:
        wanted = convert({"kind": options.kind, "project": options.project} | given, TrackerOptions)
    except ValidationError as error:
        raise ConfigError(f"--kind {kind}: {error}") from error
    with reading(run) as reader, opened(wanted.kind, folder, wanted.project) as tracker:
        follower = Follower(reader, tracker)
        if follow:
            asyncio.run(_follow(follower))
        else:
            follower.catch_up()
    where = f"tensorboard --logdir {folder / FOLDER}" if wanted.kind == "tensorboard" else "there"
    say(f"{follower.logged} new points in {wanted.kind}; look: {where}")


async def _follow(follower: Follower) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stopping.set)
    await follower.follow(stopping.is_set)
