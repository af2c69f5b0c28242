"""What the commands have in common: a run's folder, its log, a line for people."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mmzero_async.config import ConfigError
from mmzero_async.log.errors import LogError
from mmzero_async.log.reader import LogReader, LogStats
from mmzero_async.projections.report import Report
from mmzero_async.schemas.events import ROLES, Role

RunFolder = Annotated[Path, typer.Argument(help="a run's folder, or its name under runs/")]
AsJson = Annotated[bool, typer.Option("--json", help="figures for programs")]
console = Console(highlight=False)  # keeps NO_COLOR
_complaints = Console(highlight=False, stderr=True)


def say(text: str, style: str | None = None) -> None:
    """One line for people; where there is no terminal it stays one line."""
    console.print(text, style=style, markup=False, soft_wrap=True)


def complain(text: str) -> None:
    """One line on standard error."""
    _complaints.print(text, style="red", markup=False, soft_wrap=True)


def run_folder(path: Path) -> Path:
    """The folder itself, or the one of that name under runs/. LogError if there is neither."""
    for candidate in (path, Path("runs") / path):
        if (candidate / "config.json").exists():
            return candidate
    raise LogError(f"no run at {path} nor at runs/{path}: start one with `mmzero run`")


@contextmanager
def reading(path: Path) -> Iterator[LogReader]:
    reader = LogReader.open(run_folder(path) / "log")
    try:
        yield reader
    finally:
        reader.close()


def report_of(path: Path) -> tuple[Report, LogStats]:
    """The run's report from its log alone."""
    with reading(path) as reader:
        report = Report()
        for record in reader.scan():
            report.apply(record)
        return report, reader.stats()


def role_named(name: str) -> Role:
    """ConfigError for a word that is no role."""
    for role in ROLES:
        if role == name:
            return role
    raise ConfigError(f"--role {name!r}: choose one of {', '.join(ROLES)}")


def with_section(override: str, section: str) -> str:
    """`max_minutes=5` means `run.max_minutes=5` where `run` is the section."""
    key = override.partition("=")[0]
    return override if "." in key or key == "templates" else f"{section}.{override}"
