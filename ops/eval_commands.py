"""`mmzero eval`: a policy's score."""

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mmzero_async import config as configuration
from mmzero_async.config import Config, ConfigError
from mmzero_async.log.errors import LogError
from mmzero_async.ops import summary
from mmzero_async.ops.command_line import AsJson, RunFolder, report_of, run_folder, say


def eval_(
    run: RunFolder,
    mode: Annotated[str, typer.Option(help="greedy or sampled")] = "greedy",
    scenes: Annotated[int, typer.Option(help="0: as configured")] = 0,
    as_json: AsJson = False,
) -> None:
    """Score the solver that a running run serves on the held-out scenes."""
    folder = run_folder(run)
    if mode not in ("greedy", "sampled"):
        raise ConfigError(f"--mode {mode}: choose greedy or sampled")
    loaded = configuration.from_json((folder / "config.json").read_text())
    event = asyncio.run(_evaluate(folder, loaded, mode, scenes))
    found = summary.evaluation_figures(event)
    if as_json:
        print(json.dumps(found))
        return
    for name in ("easy", "hard"):
        say(f"{name}: {found[name]}")
    for kind, (correct, asked) in event.by_kind.items():
        say(f"  {kind:22} {correct / asked:6.1%} of {asked}")


async def _evaluate(folder: Path, loaded: Config, mode: str, scenes: int) -> Any:
    from mmzero_async.engines.launch import address_file
    from mmzero_async.engines.pool import EnginePool, urls_of
    from mmzero_async.ops.evaluate import evaluate

    weights = loaded.learner.weights
    urls = urls_of((folder / address_file(weights, "solver")).read_text())
    report, _ = report_of(folder)
    published = report.pipeline.policies.published.get("solver")
    if published is None:
        raise LogError(f"{folder} has published no solver yet")
    async with EnginePool(urls, loaded.engine, numbered=weights == "full") as engine:
        return await evaluate(
            engine,
            loaded,
            policy=published.policy,
            version=published.version,
            moment="manual",
            mode=mode,
            scenes=scenes,
        )
