"""`mmzero dataset`: a dataset from a run's log, or from the logs of a collection."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmzero_async.log.collection import is_collection
from mmzero_async.ops.command_line import AsJson, console, run_folder, say
from mmzero_async.ops.datasets.options import SHARD_BYTES, options

if TYPE_CHECKING:
    from mmzero_async.ops.datasets.export import Told
    from mmzero_async.ops.datasets.manifest import Manifest

_BAR_STEPS = 500
_PLAIN_STEPS = 10  # lines at most where there is no terminal


def dataset(
    run: Annotated[
        Path, typer.Argument(help="a run's folder, its name under runs/, or a merged collection")
    ],
    kind: Annotated[
        str, typer.Option(help="solver, coder, proposer, preference, sft or trajectories")
    ] = "solver",
    where: Annotated[
        str, typer.Option(help="such as 'reward=0.5.. version=3..'; see docs/DATASETS.md")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="a folder; default: <run>/datasets/<kind>")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="parquet or webdataset")] = "parquet",
    split: Annotated[
        str, typer.Option(help="shares of the lineages: 0.9/0.1, or train=0.9/test=0.1")
    ] = "",
    dedup: Annotated[
        bool, typer.Option("--dedup/--no-dedup", help="leave out what says the same again")
    ] = True,
    shard_mb: Annotated[float, typer.Option(help="of values a file")] = SHARD_BYTES / 1e6,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with an export that was killed")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="in place of an earlier dataset in OUT")
    ] = False,
    processes: Annotated[
        int | None,
        typer.Option(help="that make the rows; default: the cores but one, fewer for a small log"),
    ] = None,
    push: Annotated[str, typer.Option(help="a hub's OWNER/NAME that it is sent to")] = "",
    as_json: AsJson = False,
) -> None:
    """Write a dataset that `datasets.load_dataset` opens, with its pictures, splits and a card: the
    same bytes for the same log and options."""
    from mmzero_async.ops.datasets.export import export
    from mmzero_async.ops.datasets.push import push as push_to_hub

    wanted = options(kind, form, where, split, deduplicate=dedup, shard_mb=shard_mb)
    folder = run if is_collection(run) else run_folder(run)
    target = out or folder / "datasets" / kind
    with _progress(f"{kind} of {folder.name}", quiet=as_json) as told:
        manifest, written = export(
            folder,
            target,
            wanted,
            resume=resume,
            overwrite=overwrite,
            processes=processes,
            told=told,
        )
    pushed = push_to_hub(target, push) if push else None
    if as_json:
        typer.echo(json.dumps(figures(manifest, target, written, pushed)))
        return
    for line in lines(manifest, target, written):
        say(line)
    if pushed:
        say(f"sent to {pushed}")


def figures(manifest: "Manifest", out: Path, written: bool, pushed: str | None) -> dict[str, Any]:
    counts = manifest.counts
    return {
        "out": str(out),
        "written": written,
        "kind": manifest.plan.kind,
        "format": manifest.plan.form,
        "rows": manifest.rows,
        "bytes": manifest.bytes,
        "files": len(manifest.files),
        "lineages": counts.lineages,
        "groups": counts.groups,
        "left_out": counts.left_out,
        "splits": {n: {"rows": s.rows, "files": s.shards} for n, s in manifest.splits.items()},
        "pushed": pushed,
    }


def lines(manifest: "Manifest", out: Path, written: bool) -> list[str]:
    counts = manifest.counts
    left_out = ", ".join(f"{n} {reason}" for reason, n in sorted(counts.left_out.items()))
    return [
        f"{manifest.rows} rows in {out}"
        + ("" if written else ", which were there already: the same log and options"),
        *(
            f"  {name}: {it.rows} rows in {it.shards} files, {it.bytes / 1e6:.2f} MB"
            for name, it in manifest.splits.items()
        ),
        f"of {counts.groups} complete groups in {counts.lineages} lineages; left out: "
        f"{left_out or 'none'}",
        f'open it: datasets.load_dataset("{out}")',
    ]


@contextmanager
def _progress(title: str, *, quiet: bool) -> Iterator["Told"]:
    """A bar on a terminal; a line for each tenth elsewhere; nothing for programs."""
    if quiet:
        yield lambda done, of: None
    elif not console.is_terminal:
        shown = 0

        def line(done: int, of: int) -> None:
            nonlocal shown
            tenth = _PLAIN_STEPS * done // max(of, 1)
            if tenth > shown:
                shown = tenth
                say(f"{title}: {done} of {of} events")

        yield line
    else:
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task, shown = bar.add_task(title, total=None), 0

            def drawn(done: int, of: int) -> None:
                """Seldom: to move the bar takes as long as to make a row."""
                nonlocal shown
                if abs(done - shown) * _BAR_STEPS >= of or done == of:
                    shown = done
                    bar.update(task, completed=done, total=of)

            yield drawn
