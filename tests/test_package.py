"""The wheel: all rooms under the project's own name, with the files they need."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = (
    "engines families learner log ops projections rendering roles schemas seedling transport "
    "workers"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    source = (
        out / "source"
    )  # building leaves folders behind, and old ones would end up in the wheel
    skipped = shutil.ignore_patterns(".*", "build", "dist", "runs", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=skipped)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", str(source), "--wheel-dir", str(out)),
            *("--no-deps", "--no-build-isolation", "--quiet"),
        ],
        check=True,
        cwd=out,
        timeout=110,
    )
    [found] = out.glob("*.whl")
    return found


def test_every_folder_of_code_is_in_the_wheel_and_nothing_clashes(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"mmzero_async"}
    for room in ROOMS.split():
        assert f"mmzero_async/{room}/__init__.py" in names
    here = {
        "mmzero_async/" + str(path.relative_to(ROOT)).removeprefix("mmzero_async/")
        for top in ("mmzero_async", "schemas", "workers", "ops")
        for path in (ROOT / top).rglob("*.py")
    }
    assert here <= set(names)


@pytest.mark.parametrize(
    "needed",
    [
        "presets/seedling.toml",
        "roles/templates/mmzero/proposer.txt",
        "roles/templates/seedling/solver.txt",
        "rendering/fonts/DejaVuSans.ttf",
        "seedling/weights/model.safetensors",
        "seedling/weights/chat_template.jinja",
        "ops/ui/static/index.html",
        "ops/ui/static/vendor/uPlot.esm.js",
    ],
)
def test_what_the_code_reads_is_in_the_wheel(wheel: Path, needed: str) -> None:
    assert f"mmzero_async/{needed}" in zipfile.ZipFile(wheel).namelist()


def test_the_wheel_works_without_the_repository(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import mmzero_async, mmzero_async.workers.renderer, mmzero_async.ops.cli as cli\n"
        "from mmzero_async.ops.rundir import base_model_folder\n"
        "from mmzero_async.config import load\n"
        "print(cli.__file__, base_model_folder(load('seedling')))"
    )
    # -S: without the editable installation's hook, but with what is installed beside it.
    site = [p for p in sys.path if p.endswith("site-packages")]
    code = f"import sys; sys.path += {site!r}\n" + code
    run = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [
        str(tmp_path / "site" / "mmzero_async" / "ops" / "cli.py"),
        str(tmp_path / "site" / "mmzero_async" / "seedling" / "weights"),
    ]
