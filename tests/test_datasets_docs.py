"""Every command of docs/DATASETS.md runs, in its order."""

import re
import shlex
from pathlib import Path

import pytest
from dataset_runs import lineage, story, write_run
from typer.testing import CliRunner

from mmzero_async.ops.cli import app

TEXT = (Path(__file__).parent.parent / "docs" / "DATASETS.md").read_text()
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
]


def test_every_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "runs" / "demo", story())
    write_run(tmp_path / "runs" / "other", lineage("g9"))
    monkeypatch.chdir(tmp_path)
    assert len(COMMANDS) > 8 and all(command.startswith("mmzero ") for command in COMMANDS)
    for command in COMMANDS:
        ran = CliRunner().invoke(app, shlex.split(command)[1:])
        assert ran.exit_code == 0, (command, ran.exception, ran.output)
    assert (tmp_path / "runs" / "demo" / "datasets" / "solver" / "README.md").exists()
    assert (tmp_path / "elsewhere" / "log" / "data.mdb").exists()
    assert (tmp_path / "both" / "manifest.json").exists()


def test_the_options_that_it_names_are_the_commands_own() -> None:
    named = set(re.findall(r"--[a-z][a-z-]+", TEXT))
    told = "".join(
        CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "300"}).stdout
        for command in (["dataset"], ["replay"], ["log", "scan"])
    )
    assert {option for option in named if option not in told} == set()
