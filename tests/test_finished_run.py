"""A finished run in real vLLM: its versions scored side by side, one exported and served.

The run is a real learner's on the seedling (learned_run.py); the last test starts a whole one on a
terminal.
"""

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tiny_model
from learned_run import learned
from terminal import ESCAPE, on_terminal
from test_cli import mmzero

from mmzero_async.config import EngineConfig, from_json
from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.errors import EngineUnavailable
from mmzero_async.engines.launch import BASE_POLICY, installed
from mmzero_async.engines.server import VllmServer
from mmzero_async.log.reader import LogReader
from mmzero_async.ops.rundir import base_model_folder
from mmzero_async.ops.serving import serving
from mmzero_async.ops.versions import versions_of
from mmzero_async.roles.prompts import load_templates, png_url, solver_messages
from mmzero_async.schemas.events import Generation, Sampling
from mmzero_async.schemas.packing import unpack_logprobs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

NEAR = 1e-3  # nats: float32, two orders of summation
QUESTIONS = ("How many circles are there?", "How tall is the red bar?", "How wide is it?")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        installed()
    except EngineUnavailable as error:
        pytest.skip(str(error))
    base = base_model_folder(from_json("{}"))
    # A rate at which a few steps change what is said.
    rates = [f"learner.{role}.lr=0.003" for role in ("proposer", "coder", "solver")]
    # 96 x 96 pixels are 3 x 3 tokens to it.
    return learned(tmp_path_factory.mktemp("finished") / "demo", base, rates, image_tokens=9)


def test_eval_scores_base_and_versions_of_a_finished_run_in_one_table(run: Path) -> None:
    asked = ("--versions", "base,1,newest", "--scenes", "40")
    done = mmzero("eval", run, *asked, "--json", timeout=900)
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)["scores"]
    newest = json.loads(mmzero("status", run, "--json").stdout)["roles"]["solver"]["version"]
    assert [one["policy"] for one in scores] == ["base", "solver@1", f"solver@{newest}"]
    assert all(one["easy"]["asked"] == one["hard"]["asked"] == 40 for one in scores)
    # docs/SEEDLING.md: 94 % and 42 % of 1,000; of 40 at least so many.
    low, high = scores[0]["hard"]["interval_95"]
    assert scores[0]["easy"]["accuracy"] > 0.8 and low < 0.43 < high
    assert sum(kind["asked"] for kind in scores[1]["kinds"].values()) == 80


@asynccontextmanager
async def merged_engine(folder: Path, log: Path) -> AsyncIterator[VllmClient]:
    config = EngineConfig(port=0, max_model_len=512, kv_cache_gib=0.25)
    async with VllmServer(folder, config, log) as server, VllmClient(server.url) as client:
        yield client


async def said(client: VllmClient, policy: str) -> list[Generation]:
    picture = png_url(tiny_model.png(tiny_model.picture(5, (96, 96))))
    return [
        await client.generate(
            solver_messages(load_templates("seedling"), question, picture),
            policy=policy,
            version=1,
            role="solver",
            n=1,
            sampling=Sampling(temperature=0.0, max_tokens=24),
            template="t",
        )
        for question in QUESTIONS
    ]


def numbers(generations: list[Generation]) -> tuple[list[bytes], np.ndarray]:
    samples = [sample for it in generations for sample in it.samples]
    logprobs = np.concatenate([unpack_logprobs(sample.logprobs) for sample in samples])
    return [sample.token_ids for sample in samples], logprobs


async def test_vllm_says_of_an_exported_model_what_it_says_of_the_adapter(
    run: Path, tmp_path: Path
) -> None:
    done = mmzero("export-model", run, "--out", tmp_path / "model", timeout=300)
    assert done.returncode == 0, done.stderr
    reader = LogReader.open(run / "log")
    newest = versions_of(reader, run, "solver").newest()
    reader.close()
    config = from_json((run / "config.json").read_text())
    async with serving(run, config, "solver") as engine:
        base = await engine.policy(None)
        before = numbers(await said(base.client, base.policy))
        asked = await engine.policy(newest)
        adapter = numbers(await said(asked.client, asked.policy))
    async with merged_engine(tmp_path / "model", tmp_path / "engine.log") as client:
        merged = numbers(await said(client, BASE_POLICY))
    assert merged[0] == adapter[0], "the same tokens"
    worst = float(np.abs(merged[1] - adapter[1]).max())
    print(f"largest difference {worst:.2e} nats over {len(merged[1])} tokens")
    assert worst < NEAR
    assert before[0] != adapter[0] or float(np.abs(before[1] - adapter[1]).max()) > 10 * NEAR


TASK = """dataset_path: parquet
dataset_kwargs:
  data_files:
    test: FILE
task: scenes
test_split: test
output_type: generate_until
doc_to_visual: !function looks.picture
doc_to_text: "question"
doc_to_target: "answer"
generation_kwargs:
  max_new_tokens: 24
  temperature: 0
process_results: !function looks.right
metric_list:
  - metric: right
    aggregation: mean
    higher_is_better: true
"""
LOOKS = """
def picture(doc):
    return [doc["image"].convert("RGB")]


def right(doc, results):
    return {"right": float(doc["answer"] in results[0])}
"""


def a_task(folder: Path) -> Path:
    """Held-out scenes as a task of lmms-eval's, from a local file."""
    from datasets import Dataset, Features, Image, Value

    from mmzero_async.seedling.batches import render
    from mmzero_async.seedling.heldout import heldout

    words = load_templates("seedling").solver
    rows = [
        {
            "image": PIL.Image.fromarray(render(scene.svg, 96)),
            "question": words.format(question=scene.easy.question),
            "answer": scene.easy.answer,
        }
        for scene in heldout(6, seed=778)
    ]
    kinds = Features({"image": Image(), "question": Value("string"), "answer": Value("string")})
    folder.mkdir()
    Dataset.from_list(rows, features=kinds).to_parquet(folder / "scenes.parquet")
    (folder / "scenes.yaml").write_text(TASK.replace("FILE", str(folder / "scenes.parquet")))
    (folder / "looks.py").write_text(LOOKS)
    return folder


def test_lmms_eval_asks_a_task_of_ones_own_of_base_and_adapter(run: Path, tmp_path: Path) -> None:
    """With a Python that has lmms-eval, named by MMZERO_EVALS_PYTHON."""
    python = os.environ.get("MMZERO_EVALS_PYTHON")
    if python is None:
        pytest.skip("lmms-eval is a program of its own: name its Python by MMZERO_EVALS_PYTHON")
    asked = ("--benchmark", "scenes", "--tasks", a_task(tmp_path / "tasks"), "--python", python)
    done = mmzero("eval", run, *asked, "--data", tmp_path / "cache", "--json", timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)["benchmarks"]
    assert len(found) == 2 and "base" in found
    shares = [tasks["scenes"]["right"] for tasks in found.values()]
    assert shares[0] >= 0.5 and all(0 <= share <= 1 for share in shares)


def test_a_run_on_a_terminal_is_a_table_that_leaves_it_as_it_was(tmp_path: Path) -> None:
    options = ("max_minutes=5", "evaluate=false", "learner.solver.groups=2")
    with on_terminal("run", "--run", tmp_path / "demo", *options, columns=100) as screen:
        screen.read_until("generating and learning", 600)
        screen.read_until("train/solver", 120)
        screen.read_until("last warning" if "stalled" in screen.text else "tokens/s", 120)
        screen.process.send_signal(signal.SIGINT)
        assert screen.end(120) == 0
    hidden, shown = screen.text.rfind("\x1b[?25l"), screen.text.rfind("\x1b[?25h")
    assert -1 < hidden < shown, "the cursor is back"
    last = [line for line in ESCAPE.sub("", screen.text).splitlines() if line.strip()][-1]
    assert last.startswith("stopped; the same command goes on")
