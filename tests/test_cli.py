"""The command line from outside: what it prints, what it writes, how it refuses."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from builders import rendered, run_started, whole_tree
from msgspec.structs import replace

from mmzero_async.config import Config, load
from mmzero_async.log.writer import LogWriter, Submission
from mmzero_async.roles.advantages import group_advantages
from mmzero_async.roles.grading import GRADER
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import (
    Event,
    GroupRejected,
    Rendered,
    Rewarded,
    StepCommitted,
    encode_event,
    kind_of,
)

CONFIG = load("seedling", ["learner.solver.groups=2", "learner.coder.groups=100"])


def mmzero(
    *arguments: str | Path, cwd: Path | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mmzero_async.ops.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=timeout,
        env={**os.environ, "COLUMNS": "200"},
    )


def png() -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (96, 96), "red").save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = png()


def with_picture(event: Event) -> Event:
    if isinstance(event, Rendered):
        digest = blob_digest(PICTURE)
        return replace(event, renderer="test", picture=digest, width=96, failure="")
    return event


def write_run(folder: Path, events: list[Event], config: Config = CONFIG) -> Path:
    """A run's folder as a run would leave it, with these events after its start."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json())
    started = run_started(config, folder.name)
    writer = LogWriter(folder / "log", run=folder.name, map_gib=1, sync="nosync")
    digest = blob_digest(PICTURE)
    messages = []
    for i, event in enumerate([started, *map(with_picture, events)]):
        blobs = {digest: PICTURE} if isinstance(event, Rendered) and event.picture else {}
        messages.append([Submission("test", 1, i, kind_of(event), encode_event(event), blobs)])
    for at in range(0, len(messages), 100):
        assert not any(isinstance(it, Exception) for it in writer.append(messages[at : at + 100]))
    writer.close()
    return folder


def step_on(groups: list[str], step: int = 1) -> list[Event]:
    """The votes 3, 3, 11, 4 with the format kept earn 1, 1, 0.1, 0.1."""
    rewards = [1.0, 1.0, 0.1, 0.1]
    rewarded: list[Event] = [
        Rewarded(
            role="solver",
            group=group,
            rewards=rewards,
            terms=[
                {"answer": 0.9, "format": 0.1},
                {"answer": 0.9, "format": 0.1},
                {"answer": 0.0, "format": 0.1},
                {"answer": 0.0, "format": 0.1},
            ],
            advantages=list(map(float, group_advantages(rewards))),
            step=step,
        )
        for group in groups
    ]
    committed = StepCommitted(
        role="solver",
        step=step,
        version=step,
        groups=groups,
        offsets=[],
        checkpoint="checkpoints/solver/000001",
        digest="d",
        batch_digest="b",
        metrics={"loss": 0.5, "seconds": 1.0},
    )
    return [*rewarded, committed]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    events = [*whole_tree("g0"), *step_on(["g0.s0.d0", "g0.s0.d1"])]
    return write_run(tmp_path / "runs" / "demo", events)


def test_status_tells_the_figures_of_a_log_that_nobody_writes(run: Path) -> None:
    figures = json.loads(mmzero("status", run, "--json").stdout)
    assert figures["roles"]["solver"]["steps"] == 1
    assert figures["roles"]["solver"]["trained_groups"] == 2
    assert figures["roles"]["solver"]["pending_groups"] == 2
    assert figures["render_success"] == 1.0
    assert figures["blobs"] == 1
    shown = mmzero("status", "demo", cwd=run.parent.parent)
    assert shown.returncode == 0
    assert "solver       1 steps, version 1, 2 groups trained, 2 pending" in shown.stdout


def test_replay_rebuilds_windows_and_rewards_and_finds_them_as_committed(run: Path) -> None:
    replayed = mmzero("replay", run, "--audit", "--json")
    found = json.loads(replayed.stdout)
    rebuilt = {"windows": 1, "rewards": 8, "rejections": 0, "differences": []}
    assert rebuilt.items() <= found["rebuilt"].items()
    assert found["audit"]["clean"]
    assert found["audit"]["complete"]["solver"] == 4
    assert replayed.returncode == 0
    assert found["roles"] == json.loads(mmzero("status", run, "--json").stdout)["roles"]


def test_who_only_looks_loads_no_server_no_engine_and_no_learner(run: Path) -> None:
    for command in (["--help"], ["status", str(run)], ["replay", str(run), "--audit"]):
        told = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "mmzero_async.ops.cli", *command],
            capture_output=True,
            text=True,
        )
        assert told.returncode == 0, told.stderr[-2000:]
        loaded = {line.split("|")[-1].strip() for line in told.stderr.splitlines()}
        assert "mmzero_async.ops.look_commands" in loaded
        heavy = {"torch", "transformers", "scipy", "sklearn", "PIL"}
        assert loaded.isdisjoint(heavy | {"pyarrow", "aiohttp", "asyncssh", "psutil", "yaml"})


def tampered(event: Event) -> Event:
    if isinstance(event, Rewarded) and event.group == "g0.s0.d1":
        return Rewarded(
            role=event.role,
            group=event.group,
            rewards=[1.0, 1.0, 1.0, 0.1],
            terms=event.terms,
            advantages=event.advantages,
            step=event.step,
        )
    return event


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([tampered(e) for e in step_on(["g0.s0.d0", "g0.s0.d1"])], "g0.s0.d1: rewards"),
        (step_on(["g0.s0.d0", "g0.s1.d0"]), "the log gives ['g0.s0.d0', 'g0.s0.d1']"),
        (
            [GroupRejected(role="solver", group="g0.s0.d0", reason="consistency")],
            "rejected as consistency, the log gives none",
        ),
    ],
)
def test_replay_tells_what_differs_from_the_raw_events(
    tmp_path: Path, events: list[Event], told: str
) -> None:
    run = write_run(tmp_path / "r", [*whole_tree("g0"), *events])
    replayed = mmzero("replay", run)
    assert replayed.returncode == 1
    assert told in replayed.stdout
    # These runs do not say what compared their answers; that may be why, and is said.
    assert f"compared by a grader before version 3, now by {GRADER}" in replayed.stdout


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([*step_on(["g0.s0.d0"]), *step_on(["g0.s0.d0"], 2)], "trained in step 2, and before"),
        (step_on(["g7.s0.d0"]), "but never complete"),
        (step_on(["g0.s0.d0"], 3), "step 3, expected 1"),
        ([rendered("g0.s0.d0")], "settles work that was settled before"),
    ],
)
def test_an_audit_finds_broken_promises_and_says_where(
    tmp_path: Path, events: list[Event], told: str
) -> None:
    run = write_run(tmp_path / "r", [*whole_tree("g0"), *events])
    audited = mmzero("replay", run, "--audit")
    assert audited.returncode == 1
    assert told in audited.stdout
    assert "problems" in audited.stdout.splitlines()[-1]


def test_trace_tells_a_picture_from_proposal_to_gradient(run: Path) -> None:
    told = mmzero("trace", run, "g0.s0.d0").stdout
    order = [
        "proposed g0",
        "coded    g0.s0",
        "rendered g0.s0.d0",
        "answered",
        "rewarded",
        "trained",
    ]
    places = [told.index(word) for word in order]
    assert places == sorted(places)
    assert "g0.s1.d0" not in told
    unknown = mmzero("trace", run, "g99")
    assert unknown.returncode == 1 and "knows nothing of g99" in unknown.stderr
    assert "expected the form g12" in mmzero("trace", run, "nonsense").stderr


def test_a_dataset_is_parquet_with_pictures_that_the_datasets_library_opens(run: Path) -> None:
    assert "4 rows" in mmzero("dataset", run, "--no-dedup").stdout
    import datasets

    folder = run / "datasets" / "solver"
    rows = datasets.load_dataset(str(folder), cache_dir=str(run / "cache"))["train"]
    assert rows[0]["image"].size == (96, 96)
    assert rows[0]["hard_answers"] == ["3", "3", "11", "4"]
    assert (rows[0]["silver_answer"], rows[0]["hard_consistency"]) == ("3", 0.5)
    assert rows[0]["solvability"] == 0.75


def test_tail_merges_the_logs_of_all_processes_by_time_and_filters(run: Path) -> None:
    logs = run / "logs"
    logs.mkdir()
    line = '{{"timestamp": "2026-01-01T00:00:0{t}Z", "level": "{level}", "process": "{p}", '
    line += '"role": "{role}", "event": "e{t}", "lineage": "{lineage}", "host": "h-{p}"}}\n'
    (logs / "a.jsonl").write_text(
        line.format(t=1, level="info", p="solver-0", role="solver", lineage="g1.s0.d0")
        + "not json\n"
        + line.format(t=3, level="error", p="solver-0", role="solver", lineage="g2")
    )
    (logs / "b.jsonl").write_text(
        line.format(t=2, level="info", p="coder-0", role="coder", lineage="g1.s0")
    )

    def events(*options: str) -> list[str]:
        out = mmzero("tail", run, "--no-follow", "--json", *options).stdout
        return [json.loads(text)["event"] for text in out.splitlines()]

    assert events() == ["e1", "e2", "e3"]
    assert events("--role", "solver") == ["e1", "e3"]
    assert events("--level", "warning") == ["e3"]
    assert events("--lineage", "g1") == ["e1", "e2"]
    assert events("--host", "h-coder-0") == ["e2"]
    assert events("-n", "1") == ["e3"]
    assert "choose one of" in mmzero("tail", run, "--level", "loud").stderr


@pytest.mark.parametrize("command", ["status", "replay", "dataset", "tail", "eval"])
def test_a_folder_without_a_run_is_refused_in_one_line(tmp_path: Path, command: str) -> None:
    refused = mmzero(command, tmp_path / "nothing")
    assert refused.returncode == 1
    assert "no run at" in refused.stderr and "mmzero run" in refused.stderr
    assert "Traceback" not in refused.stderr


def model_without_image_tokens(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen3_vl", "vision_config": {}}')
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}')
    return folder


def test_a_run_that_cannot_start_says_why_and_leaves_no_folder(tmp_path: Path) -> None:
    poor = model_without_image_tokens(tmp_path / "poor")
    for arguments, told in {
        ("max_minuts=1",): "unknown field `max_minuts`",
        ("learner.solver.lr=fast",): "learner.solver.lr",
        ("--config", "nowhere.toml"): "nowhere.toml",
        ("--config", "unknown"): "seedling",
        ("base_model=/nowhere",): "no such folder",
        (f"base_model={poor}",): "lacks <|vision_start|>, <|image_pad|>",
    }.items():
        refused = mmzero("run", "--run", tmp_path / "r", *arguments)
        assert refused.returncode == 1, refused.stdout
        assert told in refused.stderr, refused.stderr
        assert "Traceback" not in refused.stderr
        assert not (tmp_path / "r").exists()


def test_a_port_in_use_is_named_with_the_key_that_changes_it(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        for key in ("log.port", "engine.port"):
            refused = mmzero("run", "--run", tmp_path / key, f"{key}={port}")
            assert refused.returncode == 1
            assert f"127.0.0.1:{port}" in refused.stderr and f"set {key}" in refused.stderr


def test_the_log_of_another_run_and_another_configuration_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [], load("seedling"))
    moved = run.rename(tmp_path / "b")
    refused = mmzero("run", "--run", moved)
    assert refused.returncode == 1
    assert "the log of run 'a', not of 'b'" in refused.stderr
    other = mmzero("run", "--run", moved, "learner.solver.lr=1e-9")
    assert other.returncode == 1
    assert "was started with configuration" in other.stderr


def test_a_run_that_is_being_driven_is_left_alone(tmp_path: Path) -> None:
    from mmzero_async.filelock import FileLock

    lock = FileLock(tmp_path / "r" / "run.lock")
    refused = mmzero("run", "--run", tmp_path / "r")
    lock.release()
    assert refused.returncode == 1
    assert f"is being driven by process {os.getpid()}" in refused.stderr
