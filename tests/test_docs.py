"""What the pages for people say can be done is done here, on a small finished run.

A block marked "sh run" has commands that run on it, in their order; a page's blocks share a folder.
"""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from learned_run import learned
from typer.testing import CliRunner

from mmzero_async.ops.cli import app

DOCS = Path(__file__).parent.parent / "docs"
PAGES = [DOCS / "TUTORIAL.md", *sorted((DOCS / "howto").glob("*.md"))]
ALL = [*PAGES, *(DOCS / name for name in ("FAQ.md", "EVALUATION.md", "TRACKERS.md", "EVENTS.md"))]
BLOCK = re.compile(r"^```sh run\n(.*?)^```$", re.M | re.S)


def commands(page: Path) -> list[str]:
    lines = [line for block in BLOCK.findall(page.read_text()) for line in block.splitlines()]
    return [line.partition(" #")[0].strip() for line in lines if line.strip()]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    return learned(tmp_path_factory.mktemp("docs") / "demo", tiny_folder)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_marked_command_of_a_page_runs(
    page: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deterministic: None
) -> None:
    pytest.importorskip("tensorboard")
    shutil.copytree(demo, tmp_path / "runs" / "demo")
    monkeypatch.chdir(tmp_path)
    found = commands(page)
    assert found, "a page for people has something to try"
    for command in found:
        assert command.startswith("mmzero "), command
        ran = CliRunner().invoke(app, shlex.split(command)[1:])
        assert ran.exit_code == 0, (command, ran.exception, ran.output[-1500:])


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.stem)
def test_every_link_and_file_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    files = re.findall(r"`((?:mmzero_async|schemas|workers|ops|tests|docs)/[\w./]+)`", text)
    assert [file for file in files if not (DOCS.parent / file).exists()] == []


def test_every_command_that_a_page_names_exists() -> None:
    named = {
        words
        for page in ALL
        for words in re.findall(
            r"mmzero ((?:log|keys|cluster) [a-z]+|[a-z]+(?:-[a-z]+)*)", page.read_text()
        )
    }
    assert len(named) > 15
    for words in sorted(named):
        asked = CliRunner().invoke(app, [*words.split(), "--help"])
        assert asked.exit_code == 0, words
