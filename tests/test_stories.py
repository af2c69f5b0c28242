"""Three questions that people have at night, answered from a log: docs/howto/ tells the same."""

import json
from pathlib import Path

import pytest
from builders import answered, coded, proposed, rendered
from learned_run import PICTURE, learned
from test_cli import mmzero, with_picture, write_run

from mmzero_async.config import load
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import (
    Event,
    PolicyPublished,
    Rewarded,
    Role,
    StepCommitted,
    WorkerLeft,
)

FALLS_AFTER = 120
CONFIG = load("seedling", ["log.stall_seconds=5"])


# --- which step trained this picture ----------------------------------------------------------


def test_which_step_trained_this_picture(tmp_path: Path, tiny_folder: Path) -> None:
    run = learned(tmp_path / "demo", tiny_folder)
    file = tmp_path / "sent.png"
    file.write_bytes(PICTURE)
    by_file = mmzero("trace", run, file)
    assert by_file.returncode == 0, by_file.stderr
    for name in (blob_digest(PICTURE), blob_digest(PICTURE)[:8]):
        assert mmzero("trace", run, name).stdout == by_file.stdout
    told = mmzero("trace", run, file, "--json").stdout.splitlines()
    events = [json.loads(line) for line in told]
    [drawing] = {e["event"]["drawing"] for e in events if e["kind"] == "rendered"}
    steps = [e["event"] for e in events if e["kind"] == "step_committed"]
    assert steps, "this picture was trained on"
    for step in steps:
        assert any(drawing.startswith(group) for group in step["groups"])
        assert f"{step['role']} step {step['step']} -> version {step['version']}" in by_file.stdout
    # Its word is checked: the step again, from the very tokens and pictures.
    first = steps[0]
    again = mmzero("replay", run, "--step", str(first["step"]), "--role", first["role"])
    assert again.returncode == 0, again.stdout
    (tmp_path / "other.png").write_bytes(b"another picture")
    unknown = mmzero("trace", run, tmp_path / "other.png")
    assert unknown.returncode == 1 and "no picture of run demo has digest" in unknown.stderr


# --- why did the reward fall after step 120 ----------------------------------------------------


def step(number: int, role: Role = "solver") -> list[Event]:
    """From step 121 on the questions are harder; a renderer was lost just before."""
    falls = number > FALLS_AFTER
    wave = 0.01 * (number % 3)
    answers = [0.9, 0.9, 0.0, 0.0] if falls else [0.9, 0.9, 0.9, 0.0]
    terms = [{"answer": answer, "format": 0.1} for answer in answers]
    rewards = [term["answer"] + term["format"] for term in terms]
    group = f"g{number}.s0.d0"
    return [
        Rewarded(
            role=role,
            group=group,
            rewards=rewards,
            terms=terms,
            advantages=[0.0] * 4,
            step=number,
            facts={"hard_consistency": (0.5 if falls else 0.75) + wave, "easy_consistency": 0.9},
        ),
        StepCommitted(
            role=role,
            step=number,
            version=number,
            groups=[group],
            offsets=[],
            checkpoint=f"checkpoints/{role}/{number:06d}",
            digest="d",
            batch_digest="b",
            metrics={"loss": 0.1 + wave, "entropy": 1.0 + wave, "seconds": float(number)},
        ),
    ]


@pytest.fixture(scope="module")
def fallen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    events: list[Event] = []
    for number in range(1, 151):
        if number == FALLS_AFTER + 1:
            events.append(WorkerLeft(worker="renderer-0", role="renderer", reason="silent"))
        if number == 20:
            events.append(WorkerLeft(worker="coder-0", role="coder", reason="silent"))
        events += step(number)
    return write_run(tmp_path_factory.mktemp("fallen") / "demo", events)


def test_why_did_the_reward_fall_after_step_120(fallen: Path) -> None:
    asked = ("explain", fallen, "--role", "solver", "--step", str(FALLS_AFTER))
    found = json.loads(mmzero(*asked, "--json").stdout)
    assert found["before"] == [101, 120] and found["after"] == [121, 140]
    # Three of four right against two of four: the whole fall is the answers', none the format's.
    assert found["reward"]["before"] == pytest.approx(0.775)
    assert found["reward"]["after"] == pytest.approx(0.55)
    changes = {term["name"]: term["after"] - term["before"] for term in found["terms"]}
    assert changes == pytest.approx({"answer": -0.225, "format": 0.0}, abs=1e-9)
    assert sum(changes.values()) == pytest.approx(
        found["reward"]["after"] - found["reward"]["before"]
    )
    # What moved besides is the agreement on hard questions; the machine's speed is not told.
    assert found["figures"][0]["name"] == "fact hard_consistency"
    assert found["figures"][0]["shift"] < -10
    assert all(abs(figure["shift"]) < 1 for figure in found["figures"][1:])
    assert "seconds" not in {figure["name"] for figure in found["figures"]}
    # And who was lost just then, not who was lost a hundred steps earlier.
    assert found["happened"] == [{"step": 121, "what": "renderer-0 silent"}]
    shown = mmzero(*asked).stdout
    assert "mean reward 0.775 -> 0.550 (-0.225)" in shown
    assert "before step 121: renderer-0 silent" in shown
    assert shown.index("answer") < shown.index("format")


def test_where_nothing_changed_nothing_is_blamed(fallen: Path) -> None:
    calm = json.loads(mmzero("explain", fallen, "--step", "60", "--span", "15", "--json").stdout)
    assert abs(calm["reward"]["after"] - calm["reward"]["before"]) < 1e-9
    assert all(abs(figure["shift"]) < 1 for figure in calm["figures"])
    assert calm["happened"] == []


def test_a_step_without_two_sides_is_refused_in_words(fallen: Path, tmp_path: Path) -> None:
    for wrong in ("150", "999"):
        refused = mmzero("explain", fallen, "--step", wrong)
        assert refused.returncode == 1 and "choose --step 1 to 149" in refused.stderr
    other = mmzero("explain", fallen, "--role", "coder", "--step", "5")
    assert other.returncode == 1 and "0 steps of the coder" in other.stderr


# --- why is nothing happening -------------------------------------------------------------------


def test_why_is_nothing_happening(tmp_path: Path) -> None:
    """The run was stopped with one question open: its stage, its item and the missing server. Of a
    live run that stalls, test_flow.py tells the story."""
    published = [
        PolicyPublished(role=role, version=0, policy=f"{role}@0", checkpoint="c", digest="d")
        for role in ("proposer", "coder", "solver")
    ]
    roles: list[Event] = [
        *published,
        proposed("g0", [True]),
        coded("g0.s0", [True]),
        rendered("g0.s0.d0"),
        answered("g0.s0.d0", "easy", ["4"] * 4),
    ]
    run = write_run(tmp_path / "demo", [with_picture(event) for event in roles], CONFIG)
    found = json.loads(mmzero("why", run, "--json").stdout)
    due = {stage["stage"]: stage["due"] for stage in found["stages"]}
    assert (due["code"], due["render"], due["answer"]) == (0, 0, 1)
    assert "no log server has written" in found["server"]
    shown = mmzero("why", run).stdout
    assert shown.splitlines()[0] == "demo is not running"
    assert "answer/g0.s0.d0/hard" in shown
    item = mmzero("why", run, "g0.s0.d0").stdout
    assert "solver group g0.s0.d0: not complete: 1 pieces of work below it are open" in item
