"""The benchmark of datasets tells every figure beside a rival and leaves nothing. No times here."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from mmzero_async.log.reader import LogReader
from mmzero_async.log.verify import verify
from mmzero_async.ops.bench import dataset
from mmzero_async.ops.bench.dataset_log import write_log
from mmzero_async.ops.datasets.export import export
from mmzero_async.ops.datasets.options import options
from mmzero_async.schemas.events import Rendered

FIGURES = {
    "dataset_vs_disk",
    "dataset_vs_pyarrow",
    "dataset_lineages",
    "dataset_pictures",
    "dataset_load",
    "dataset_peak_memory",
}


def test_the_log_that_is_exported_is_one_of_real_pictures_none_like_another(tmp_path: Path) -> None:
    write_log(tmp_path / "run", 70)
    assert verify(tmp_path / "run" / "log").clean
    reader = LogReader.open(tmp_path / "run" / "log")
    pictures = [
        event.picture
        for record in reader.scan()
        if isinstance(event := record.event(), Rendered) and event.picture
    ]
    assert len(set(pictures)) == 70
    for digest in pictures[::23]:
        assert Image.open(io.BytesIO(reader.blob(digest))).size == (256, 256)
    reader.close()
    manifest, _ = export(tmp_path / "run", tmp_path / "d", options())
    assert manifest.rows == 70 and not manifest.counts.left_out and not manifest.counts.bare_prompts


def test_every_figure_has_a_rival(tmp_path: Path) -> None:
    found = list(dataset.figures(tmp_path, 40))
    assert {figure.figure for figure in found} == FIGURES
    assert all(figure.value and figure.rival for figure in found)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_quick_form_ends_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mmzero_async.ops.bench.dataset", "--quick"]
    ran = subprocess.run([*command, "--folder", tmp_path], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert {json.loads(line)["figure"] for line in ran.stdout.splitlines()} == FIGURES
    assert list(tmp_path.iterdir()) == []
