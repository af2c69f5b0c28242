"""One run to its last figure, on real vLLM, LMDB, ZeroMQ and resvg, killed on the way.

    start -> Ctrl-C -> same command -> kill -9 of the one who drives it -> same command
          -> kill -9 of a worker, the log server and the learner in turn -> the end

The story is told once; each test looks at one part of it.
"""

import base64
import io
import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image
from transformers import AutoProcessor
from whole_run import PATIENCE, WholeRun, mmzero, until

from mmzero_async.config import from_json
from mmzero_async.engines.launch import installed
from mmzero_async.ops.bench.asked import asked
from mmzero_async.ops.rundir import base_model_folder
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import (
    ROLES,
    Answered,
    Coded,
    Proposed,
    Rendered,
    StepCommitted,
    WorkerJoined,
)
from mmzero_async.schemas.packing import unpack_logprobs, unpack_tokens

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

STEPS = 3


@dataclass
class Story(WholeRun):
    interrupted: tuple[int, list[psutil.Process]] = (-1, [])
    left_by_kill: list[psutil.Process] = field(default_factory=list)
    steps_at_interrupt: int = 0
    joined_again: dict[str, int] = field(default_factory=dict)
    status: int = -1
    printed: str = ""

    def begin(self) -> subprocess.Popen[str]:
        return self.start(
            f"max_steps={STEPS}",
            *("max_minutes=0", "eval.scenes=20"),
            *("learner.proposer.groups=2", "learner.coder.groups=4", "learner.solver.groups=6"),
        )

    def strike(self, module: str, worker: str, role: str) -> None:
        """kill -9, then waits until it is back."""
        before = self.count(WorkerJoined, worker=worker) if role else 0
        [victim] = self.family(f"workers.{module}")
        victim.kill()
        if role:
            until(f"{worker} back", lambda: self.count(WorkerJoined, worker=worker) > before)
        else:
            until(
                f"{module} back",
                lambda: any(p.pid != victim.pid for p in self.family(f"workers.{module}")),
            )
        self.joined_again[module] = 1


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    installed()
    told = Story(tmp_path_factory.mktemp("story") / "run")
    process = told.begin()
    try:
        until("a first step", lambda: told.count(StepCommitted) > 0)
        process.send_signal(signal.SIGINT)
        process.wait(60)
        told.interrupted = (process.returncode, told.family())
        told.steps_at_interrupt = told.count(StepCommitted)

        process = told.begin()
        until("a further step", lambda: told.count(StepCommitted) > told.steps_at_interrupt)
        process.kill()
        process.wait()
        until("all of it gone", lambda: not told.family())
        told.left_by_kill = told.family()

        process = told.begin()
        answers = told.count(Answered)
        until("answers go on", lambda: told.count(Answered) > answers + 5)
        for module, worker, role in (
            ("solver", "solver-0", "solver"),
            ("renderer", "renderer-0", "renderer"),
            ("log_server", "log-server", ""),
            ("learner", "learner-0", "learner"),
        ):
            told.strike(module, worker, role)
        told.status = process.wait(PATIENCE * 2)
        told.printed = told.output.read_text()
        yield told
    finally:
        told.end(process)
        if told.status != 0:
            print(told.evidence())


def test_ctrl_c_leaves_no_process_behind_and_a_log_that_opens(story: Story) -> None:
    status, left = story.interrupted
    assert status == 0
    assert left == []
    assert story.steps_at_interrupt >= 1


def test_killing_the_one_who_drives_it_leaves_no_process_behind(story: Story) -> None:
    assert story.left_by_kill == []


def test_the_run_ends_by_itself_with_every_role_trained(story: Story) -> None:
    assert story.status == 0
    assert set(story.joined_again) == {"solver", "renderer", "log_server", "learner"}
    figures = json.loads(mmzero("status", story.run, "--json").stdout)
    assert figures["finished"]
    assert all(role["steps"] >= STEPS for role in figures["roles"].values())
    assert 0 < figures["peak_memory_gb"] < 8
    assert [(e["moment"], e["mode"]) for e in figures["heldout"]] == [
        ("before", "greedy"),
        ("before", "sampled"),
        ("after", "greedy"),
        ("after", "sampled"),
    ]


def test_every_promise_is_kept_and_the_rewards_come_from_the_log_alone(story: Story) -> None:
    replayed = mmzero("replay", story.run, "--audit", "--json")
    found = json.loads(replayed.stdout)
    assert replayed.returncode == 0, found
    assert found["audit"]["clean"]
    assert found["rebuilt"]["windows"] >= 3 * STEPS
    assert found["rebuilt"]["differences"] == []
    for role, complete in found["audit"]["complete"].items():
        rejected = sum(n for k, n in found["audit"]["rejected"].items() if k.startswith(role))
        ends = found["audit"]["trained"][role] + rejected + found["audit"]["pending"][role]
        assert complete == ends


def test_replay_prints_the_very_figures_that_the_run_printed(story: Story) -> None:
    wanted = [line for line in mmzero("status", story.run).stdout.splitlines() if line.strip()]
    unwrapped = re.sub(r"\s+", " ", story.printed)
    for line in wanted:
        assert re.sub(r"\s+", " ", line).strip() in unwrapped


def test_every_sampled_token_has_its_log_probability_and_version(story: Story) -> None:
    reader = story.reader()
    seen = 0
    for record in reader.scan():
        event = record.event()
        if not isinstance(event, Proposed | Coded | Answered):
            continue
        generation = event.generation
        assert len(unpack_tokens(generation.prompt_token_ids)) > 0
        assert generation.policy == f"{generation.role}@{generation.version}"
        for sample in generation.samples:
            tokens, logprobs = unpack_tokens(sample.token_ids), unpack_logprobs(sample.logprobs)
            assert len(tokens) == len(logprobs) > 0
            assert (logprobs <= 1e-4).all()
            covered = [i for span in sample.versions for i in range(span.start, span.stop)]
            assert covered == list(range(len(tokens)))
            assert all(span.version == generation.version for span in sample.versions)
            seen += 1
        if isinstance(event, Answered):
            assert blob_digest(reader.blob(generation.images[0])) == generation.images[0]
    reader.close()
    assert seen > 100


def test_on_policy_ratios_say_that_engine_and_learner_compute_the_same(story: Story) -> None:
    """Each role's first step trains on version 0 alone: any mismatch is the engine's."""
    reader = story.reader()
    first = {
        event.role: event.metrics
        for record in reader.scan()
        if isinstance(event := record.event(), StepCommitted) and event.step == 1
    }
    reader.close()
    assert set(first) == {"proposer", "coder", "solver"}
    for metrics in first.values():
        assert metrics["staleness_max"] == 0
        assert metrics["mismatch_kl"] < 1e-4
        assert abs(metrics["ratio_mean"] - 1.0) < 1e-3


@pytest.mark.parametrize("role", ROLES)
def test_a_committed_step_taken_again_gives_the_same_bits(story: Story, role: str) -> None:
    for step in (STEPS - 1, STEPS):
        again = mmzero("replay", story.run, "--step", str(step), "--role", role, "--json")
        found = json.loads(again.stdout)
        assert [figure["figure"] for figure in found] == [
            "batch digest",
            "loss",
            "gradient norm",
            "new weights' digest",
        ]
        assert all(figure["equal"] for figure in found), found


def test_every_step_of_the_run_trained_again_offline_gives_the_same_bits(story: Story) -> None:
    """In all their figures, weights of every version included."""
    trained = mmzero("replay", story.run, "--train", "--json")
    assert trained.returncode == 0, trained.stderr
    same = [json.loads(line)["same"] for line in trained.stdout.splitlines()]
    assert same == [True] * story.count(StepCommitted)


def test_the_engine_saw_what_the_models_own_template_makes_of_each_prompt(story: Story) -> None:
    """Token for token, pictures expanded, by transformers' processor alone."""
    config = from_json((story.run / "config.json").read_text())
    processor = AutoProcessor.from_pretrained(base_model_folder(config))
    reader, seen = story.reader(), set()
    for request in asked(reader, config):
        messages, pictures = processable(request.messages)
        text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        made = processor(text=[text], images=[pictures] if pictures else None)
        assert list(made["input_ids"][0]) == unpack_tokens(request.told.prompt_token_ids).tolist()
        seen.add((request.told.role, bool(pictures)))
    reader.close()
    assert seen >= {("proposer", False), ("coder", False), ("solver", True)}


def processable(messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[Image.Image]]:
    """Chat messages as a processor takes them: the pictures apart."""
    pictures, said = [], []
    for message in messages:
        parts = message["content"]
        if isinstance(parts, str):
            parts = [{"type": "text", "text": parts}]
        told = []
        for part in parts:
            if part["type"] == "image_url":
                data = part["image_url"]["url"].partition(",")[2]
                pictures.append(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
                part = {"type": "image"}
            told.append(part)
        said.append({**message, "content": told})
    return said, pictures


def test_a_trained_picture_can_be_traced_and_becomes_a_row_of_a_dataset(story: Story) -> None:
    reader = story.reader()
    step = next(
        event
        for record in reader.scan()
        if isinstance(event := record.event(), StepCommitted) and event.role == "solver"
    )
    rendered = sum(
        isinstance(event := record.event(), Rendered) and event.picture is not None
        for record in reader.scan()
    )
    reader.close()
    told = mmzero("trace", story.run, step.groups[0]).stdout
    for word in ("proposed", "coded", "rendered", "answered", "rewarded", "trained"):
        assert word in told
    wrote = re.search(r"(\d+) rows in", mmzero("dataset", story.run).stdout)
    assert wrote is not None and 0 < int(wrote[1]) <= rendered


def test_a_step_whose_pictures_were_dropped_says_where_they_are_and_is_the_same_with_them_again(
    story: Story, tmp_path: Path
) -> None:
    run, kept = tmp_path / "run", tmp_path / "archive"
    shutil.copytree(story.run, run)
    step = ("replay", run, "--step", "1", "--role", "solver")
    done = mmzero("log", "compact", run, "--keep-pictures", "none", "--archive", kept)
    assert done.returncode == 0, done.stderr
    assert mmzero("replay", run, "--audit").returncode == 0
    refused = mmzero(*step)
    assert refused.returncode == 1 and f"archive {kept}" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert mmzero("log", "restore", kept, run, "--pictures").returncode == 0
    assert mmzero(*step).returncode == 0
