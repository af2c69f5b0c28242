"""A finished run in real vLLM: its versions scored side by side, one exported and served.

The run is a real learner's on the seedling (learned_run.py); the last test starts a whole one on a
terminal.
"""

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
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
    rates = [f"learner.{role}.lr=0.01" for role in ("proposer", "coder", "solver")]
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
