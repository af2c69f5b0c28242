"""`mmzero cluster render`: the plan of an inventory, written for another scheduler."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from mmzero_async.ops.cluster.commands import InventoryFile, read
from mmzero_async.ops.cluster.inventory import InventoryError

Scheduler = Literal["slurm", "kubernetes"]


def render(
    file: InventoryFile,
    scheduler: Annotated[Scheduler, typer.Option("--for", help="who starts the processes")],
    out: Annotated[Path, typer.Option(help="folder to write into")],
    gpus_per_node: Annotated[int, typer.Option(help="of a machine there", min=1)] = 8,
    images: Annotated[str, typer.Option(help="Kubernetes: what stands before /log:VERSION")] = (
        "mmzero-async"
    ),
    models_claim: Annotated[
        str, typer.Option(help="Kubernetes: volume claim with the base model's parent folder")
    ] = "models",
    checkpoints_gib: Annotated[int, typer.Option(help="Kubernetes: the learner's claim")] = 64,
    time: Annotated[str, typer.Option(help="Slurm: limit of one start")] = "1-00:00:00",
    partition: Annotated[str, typer.Option(help="Slurm")] = "",
    account: Annotated[str, typer.Option(help="Slurm")] = "",
) -> None:
    """Write files that start the inventory's run on Slurm or Kubernetes (docs/DEPLOY.md).

    Nothing is started, and no key is read; what is to be done by hand is printed.
    """
    from mmzero_async.ops.cluster.render import kubernetes, slurm
    from mmzero_async.ops.cluster.render.pods import Cluster

    _, plan = read(file)
    keys = Path(plan.keys).expanduser().absolute()
    if scheduler == "slurm":
        site = slurm.Site(
            time=time, partition=partition, account=account, gpus_per_node=gpus_per_node
        )
        found = slurm.render(plan, site, str(keys))
    else:
        cluster = Cluster(
            images=images,
            gpus_per_node=gpus_per_node,
            models_claim=models_claim,
            checkpoints_gib=checkpoints_gib,
        )
        found = kubernetes.render(plan, cluster, shlex.quote(str(keys)))
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in found.files.items():
            (out / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InventoryError(f"--out {out}: {error.strerror}: choose a folder of yours") from None
    typer.echo(f"# in {out}: {', '.join(found.files)}")
    for line in found.steps:
        typer.echo(line)
