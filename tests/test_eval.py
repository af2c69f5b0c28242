"""Which versions are scored, how scores are told, and how public benchmarks are asked for.

What a real engine says to it is in test_finished_run.py.
"""

import json
import shutil
import sys
from pathlib import Path

import pytest
from learned_run import learned
from test_cli import mmzero

from mmzero_async.config import ConfigError, load
from mmzero_async.log.reader import LogReader
from mmzero_async.ops import benchmarks, eval_table
from mmzero_async.ops.versions import BASE, Versions, chosen, versions_of
from mmzero_async.schemas.events import Evaluated

CONFIG = load("seedling")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    return learned(tmp_path_factory.mktemp("eval") / "demo", tiny_folder)


def found(run: Path) -> Versions:
    reader = LogReader.open(run / "log")
    try:
        return versions_of(reader, run, "solver")
    finally:
        reader.close()


def labels(wanted: str, versions: Versions) -> list[int | str]:
    return [BASE if v is None else v.number for v in chosen(wanted, versions)]


def test_versions_are_those_of_the_log_whose_folders_are_there(run: Path, tmp_path: Path) -> None:
    versions = found(run)
    numbers = [version.number for version in versions.kept]
    assert numbers == list(range(versions.committed + 1)) and versions.committed >= 2
    assert versions.kept[2].groups == 2 * versions.kept[1].groups > 0
    copy = tmp_path / "demo"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints/solver/000001")
    (copy / "checkpoints/solver/000099").mkdir()  # no step committed it
    assert [version.number for version in found(copy).kept] == [0, *numbers[2:]]
    with pytest.raises(ConfigError, match=r"version 1: its folder is gone; there is 0, 2"):
        chosen("1", found(copy))


def test_versions_are_named_in_words_and_the_base_comes_first(run: Path) -> None:
    versions = found(run)
    newest = versions.committed
    assert labels("2, base", versions) == [BASE, 2]
    assert labels("newest", versions) == [newest]
    assert labels("all", versions) == [BASE, *range(1, newest + 1)]
    assert labels("base,2,1,2", versions) == [BASE, 1, 2]
    for wanted, told in {
        "first": "neither a version's number",
        "": "names none",
        "999": "there is no such version",
        "iterations": "took no turns",
    }.items():
        with pytest.raises(ConfigError, match=told):
            chosen(wanted, versions)


def test_iterations_are_the_ends_of_a_role_s_turns(run: Path) -> None:
    versions = found(run)
    sequential = Versions("solver", versions.kept, versions.committed, turn=2)
    assert labels("iterations", sequential) == [
        BASE,
        *sorted({*range(2, versions.committed + 1, 2), versions.committed}),
    ]


def scored(version: int, right: int) -> Evaluated:
    return Evaluated(
        role="solver",
        version=version,
        moment="manual",
        mode="greedy",
        by_kind={"bar_sum": (right, 40), "bar_value": (38, 40)},
        hard_kinds=["bar_sum"],
        seed=7,
    )


def test_scores_stand_side_by_side_with_their_intervals_by_kind() -> None:
    scores = {"base": scored(0, 10), "solver@5": scored(5, 30)}
    header, easy, hard, *kinds = eval_table.lines(scores)
    assert header.split("  ")[-1] == "solver@5" and "base" in header
    assert easy.startswith("easy") and "95.0 [83.5, 98.6] of 40" in easy  # Wilson, by hand
    assert "25.0 [14.2, 40.2] of 40" in hard and "75.0 [59.8, 85.8] of 40" in hard
    assert [line.split()[0] for line in kinds] == ["bar_sum", "bar_value"]
    figures = eval_table.figures(scores)
    assert [one["policy"] for one in figures] == ["base", "solver@5"]
    assert figures[1]["kinds"]["bar_sum"]["interval_95"] == [0.5981, 0.8581]


# --- public benchmarks ----------------------------------------------------------------------------


def test_the_command_line_that_lmms_eval_gets(tmp_path: Path) -> None:
    known, names = benchmarks.named("chartqa, mmmu", None)
    ask = benchmarks.Ask(tuple(names), Path("/evals/bin/python"), tmp_path, limit=50)
    line = benchmarks.command(ask, "http://127.0.0.1:9", "solver@5", CONFIG, tmp_path / "out")
    assert line[:3] == ["/evals/bin/python", "-m", "lmms_eval"]
    options = dict(zip(line[3::2], line[4::2], strict=False))
    assert options["--tasks"] == "chartqa,mmmu_val" and options["--model"] == "openai"
    model = dict(pair.split("=", 1) for pair in options["--model_args"].split(","))
    assert (model["model_version"], model["base_url"]) == ("solver@5", "http://127.0.0.1:9/v1")
    assert "--limit" in line and line[line.index("--limit") + 1] == "50"
    # The seedling's context is 512 tokens: an answer may not fill it.
    assert "max_new_tokens=256,temperature=0" in line
    assert benchmarks.environment(ask)["HF_HOME"] == str(tmp_path)
    assert benchmarks.environment(ask)["HF_HUB_OFFLINE"] == "1"
    assert benchmarks.downloads(known, ask) == ""


TASKS = {
    "chartqa/chartqa.yaml": 'dataset_path: some-lab/ChartQA\ntask: "chartqa"\n',
    "mmmu/mmmu_val.yaml": "task: mmmu_val\ninclude: _default\n",
    "mmmu/_default": "dataset_path: some-lab/MMMU\n",
    "mathvision/mathvision_testmini.yaml": "group: mathvision_testmini\ntask:\n  - mv_cot\n",
    "mathvision/mv_cot.yaml": "task: mv_cot\ndataset_path: MathLLMs/MathVision\n",
}


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A Python that has a package called lmms_eval, with task files in lmms-eval's layout."""
    package = tmp_path / "site" / "lmms_eval"
    for name, text in TASKS.items():
        file = package / "tasks" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (package / "__init__.py").touch()
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}/site exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return script


def test_what_needs_a_download_says_so_by_the_task_files_of_that_very_lmms_eval(
    python: Path,
) -> None:
    known, names = benchmarks.named("mathvision,chartqa,mmmu", None)
    told = benchmarks.downloads(known, benchmarks.Ask(tuple(names), python))
    assert "downloads some-lab/ChartQA, some-lab/MMMU, MathLLMs/MathVision" in told  # groups last


def test_a_local_copy_is_looked_for_before_anything_starts(
    run: Path, tmp_path: Path, python: Path
) -> None:
    asked = ("--benchmark", "chartqa,mmmu", "--data", tmp_path, "--python", python)
    refused = mmzero("eval", run, *asked)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert "lacks some-lab/ChartQA, some-lab/MMMU" in refused.stderr
    assert "hf download --repo-type dataset some-lab/ChartQA" in refused.stderr
    (tmp_path / "hub" / "datasets--some-lab--ChartQA" / "snapshots" / "1").mkdir(parents=True)
    known, names = benchmarks.named("chartqa,mmmu", None)
    [left] = benchmarks.objections(known, benchmarks.Ask(tuple(names), python, tmp_path))
    assert "lacks some-lab/MMMU:" in left


def test_a_python_without_lmms_eval_and_an_unknown_name_are_told(run: Path) -> None:
    lacking = mmzero("eval", run, "--benchmark", "chartqa", "--python", "/no/such/python")
    assert lacking.returncode == 1 and "evals/bin/pip install lmms-eval" in lacking.stderr
    unknown = mmzero("eval", run, "--benchmark", "chessqa")
    assert unknown.returncode == 1
    assert "known are" in unknown.stderr and "mathvista" in unknown.stderr


def test_a_benchmark_that_is_judged_by_a_model_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    known, names = benchmarks.named("mathvista", None)
    ask = benchmarks.Ask(tuple(names), Path(sys.executable))
    assert any("OPENAI_API_KEY" in told for told in benchmarks.objections(known, ask))
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    assert not any("OPENAI_API_KEY" in told for told in benchmarks.objections(known, ask))


def test_results_are_read_from_where_lmms_eval_leaves_them(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    told = {
        "results": {
            "chartqa": {
                "alias": "chartqa",
                "relaxed_overall,none": 0.5,
                "relaxed_overall_stderr,none": 0.1,
            }
        }
    }
    (tmp_path / "model" / "20260101_results.json").write_text(json.dumps(told))
    assert benchmarks.results(tmp_path) == {"chartqa": {"relaxed_overall": 0.5}}
    with pytest.raises(ConfigError, match=r"no \*results.json"):
        benchmarks.results(tmp_path / "model" / "nothing")
