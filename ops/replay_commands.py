"""`mmzero replay`: a run rebuilt from its log, a step taken again, a step taken otherwise."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mmzero_async.config import ConfigError
from mmzero_async.ops import replay as replays
from mmzero_async.ops import summary
from mmzero_async.ops import under as unders
from mmzero_async.ops import what_if as what_ifs
from mmzero_async.ops.command_line import (
    AsJson,
    RunFolder,
    reading,
    report_of,
    role_named,
    run_folder,
    say,
    with_section,
)
from mmzero_async.ops.run_commands import show


def replay(
    run: RunFolder,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="for --what-if, --train, --under: section.key=value; [learner] needs none, "
            "rewards are their role's, as solver.answer_weight=0.5"
        ),
    ] = None,
    audit: Annotated[bool, typer.Option("--audit", help="check every promise")] = False,
    step: Annotated[int, typer.Option(help="take this step again, bit by bit")] = 0,
    role: Annotated[str, typer.Option(help="whose step")] = "solver",
    what_if: Annotated[bool, typer.Option("--what-if", help="that step, otherwise")] = False,
    under: Annotated[
        bool, typer.Option("--under", help="rewards, groups and windows under other settings")
    ] = False,
    train: Annotated[bool, typer.Option("--train", help="the whole learner, offline")] = False,
    steps: Annotated[int, typer.Option(help="of --train, the first so many; 0: all")] = 0,
    out: Annotated[Path | None, typer.Option(help="of --train, where versions go")] = None,
    as_json: AsJson = False,
) -> None:
    """Walk the log from its first event and rebuild counts, rewards and windows from it alone;
    with --step, take one committed step again and compare it bit by bit, with --what-if beside
    itself under other settings; with --train, take every step again, or under other settings; with
    --under, say what other settings would have made of every reward, group and window."""
    otherwise = [with_section(o, "learner") for o in overrides or []]
    if otherwise and not (what_if or train or under):
        raise ConfigError("a replay takes settings only with --what-if, --train or --under")
    if under:
        _under(run, otherwise, as_json)
        return
    if train:
        _retrain(run, otherwise, steps, out, as_json)
        return
    if what_if:
        _what_if(run, role, step, otherwise, as_json)
        return
    if step:
        _again(run, role, step, as_json)
        return
    report, stats = report_of(run)
    with reading(run) as reader:
        rebuilt = replays.rebuild_figures(reader)
        audited = replays.audit(reader) if audit else None
    if as_json:
        found = {**summary.figures(report, stats), "rebuilt": rebuilt}
        print(json.dumps(found | ({"audit": replays.audit_figures(audited)} if audited else {})))
    else:
        show(report, stats, as_json=False)
        for line in replays.rebuild_lines(rebuilt) + (
            replays.audit_lines(audited) if audited else []
        ):
            say(line, "red" if line.startswith("  ") else None)
    if rebuilt["differences"] or (audited is not None and not audited.clean):
        raise typer.Exit(1)


def _under(run: Path, otherwise: list[str], as_json: bool) -> None:
    if not otherwise:
        raise ConfigError(
            "--under needs what is to be otherwise: "
            "mmzero replay RUN --under filters.solver_easy_consistency=0.6"
        )
    with reading(run) as reader:
        found = unders.figures(reader, otherwise)
    if as_json:
        print(json.dumps(found))
    else:
        for line in unders.lines(found):
            say(line)


def _what_if(run: Path, role: str, step: int, otherwise: list[str], as_json: bool) -> None:
    if not step or not otherwise:
        raise ConfigError(
            "--what-if needs a step and what is to be otherwise: "
            "mmzero replay RUN --step 7 --role solver --what-if loss=dapo"
        )
    with reading(run) as reader:
        found = what_ifs.figures(run_folder(run), reader, role_named(role), step, otherwise)
    if as_json:
        print(json.dumps(found))
    else:
        for line in what_ifs.lines(found):
            say(line)


def _retrain(run: Path, otherwise: list[str], steps: int, out: Path | None, as_json: bool) -> None:
    taken = same = changed = 0
    with reading(run) as reader:
        for found in what_ifs.retrained(run_folder(run), reader, out, otherwise, steps):
            taken, same = taken + 1, same + found["same"]
            changed = found["differing_settings"]
            if as_json:
                print(json.dumps(found))
            else:
                say(what_ifs.retrained_line(found))
    if not as_json:
        said = f"{taken} steps, {same} of them with the committed bits"
        say(said if out is None else f"{said}; versions in {out}/checkpoints")
    if not changed and same < taken:
        raise typer.Exit(1)


def _again(run: Path, role: str, step: int, as_json: bool) -> None:
    with reading(run) as reader:
        found = replays.rerun_figures(run_folder(run), reader, role_named(role), step)
    if as_json:
        print(json.dumps(found))
    else:
        for line in replays.rerun_lines(found):
            say(line)
    if not all(figure["equal"] for figure in found):
        raise typer.Exit(1)
