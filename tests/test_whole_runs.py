"""Whole runs on real vLLM beside the default's: full weights, and a learner of two processes.

Each has its learner killed once on the way, and what is its own: an engine, a rank.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from whole_run import PATIENCE, WholeRun, mmzero, until

from mmzero_async.schemas.events import (
    ROLES,
    Answered,
    Coded,
    PolicyPublished,
    Proposed,
    StepCommitted,
    WorkerJoined,
)
from mmzero_async.schemas.packing import unpack_tokens

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SMALL = (
    *("max_steps=2", "max_minutes=0", "run.evaluate=false", "probe.share=0"),
    *("learner.proposer.groups=2", "learner.coder.groups=3", "learner.solver.groups=3"),
    *("filters.solver_agreement=0", "filters.solver_hard_consistency=[0.2, 0.9]"),
    "filters.solver_easy_consistency=0.25",
)
FULL = ("learner.weights=full", *(f"learner.{role}.lr=1e-5" for role in ROLES))
TWO = ("learner.processes=2", "learner.micro_batch_tokens=512")


def kept_every_promise(it: WholeRun, ranks: float) -> list[StepCommitted]:
    """Audit clean, every step the same bits again; the steps."""
    audited = mmzero("replay", it.run, "--audit", "--json")
    found = json.loads(audited.stdout)
    assert audited.returncode == 0 and found["audit"]["clean"], found
    assert found["rebuilt"]["differences"] == []
    steps: list[StepCommitted] = it.events(StepCommitted)
    assert all(step.metrics.get("ranks", 1.0) == ranks for step in steps)
    assert {role: sum(s.role == role for s in steps) >= 2 for role in ROLES} == dict.fromkeys(
        ROLES, True
    )
    again = mmzero("replay", it.run, "--step", "2", "--role", "solver", "--json")
    assert again.returncode == 0, again.stderr
    assert all(figure["equal"] for figure in json.loads(again.stdout)), again.stdout
    trained = mmzero("replay", it.run, "--train", "--json")
    assert trained.returncode == 0, trained.stderr
    assert [json.loads(line)["same"] for line in trained.stdout.splitlines()] == [True] * len(steps)
    return steps


def learner_back(it: WholeRun, since: int) -> bool:
    return it.count(WorkerJoined, role="learner") > since


@pytest.mark.parametrize("more", [(), (*TWO, "learner.sharding=fsdp")], ids=["alone", "sharded"])
def test_full_weights_survive_a_killed_learner_and_a_killed_engine(
    tmp_path: Path, more: Sequence[str]
) -> None:
    it = WholeRun(tmp_path / "run")
    process = it.start(*SMALL, *FULL, *more)
    try:
        until("a first step", lambda: it.count(StepCommitted) > 0)
        joined = it.count(WorkerJoined, role="learner")
        [first, *_] = it.family("workers.learner")
        first.kill()
        until("the learner back", lambda: learner_back(it, joined))
        ours = it.family("--served-model-name solver")  # what guards it, and vLLM itself
        max(ours, key=lambda process: process.create_time()).kill()
        assert process.wait(PATIENCE * 2) == 0
        printed = it.output.read_text()
        assert "engine died" in printed, "it was killed after the end"
        steps = kept_every_promise(it, 2.0 if more else 1.0)
    except BaseException:
        print(it.evidence())
        raise
    finally:
        it.end(process)
    newest = {step.role: step for step in steps}
    published = it.events(PolicyPublished)
    for role in ROLES:
        folder = it.run / newest[role].checkpoint
        assert (folder / "model.safetensors").is_file() and (folder / "config.json").is_file()
        # One that a killed learner or engine, or the run's end, kept from it is passed over.
        versions = {event.version for event in published if event.role == role}
        assert {0} < versions <= set(range(newest[role].version + 1))
    for event in it.events(Proposed, Coded, Answered):
        for sample in event.generation.samples:
            covered = [i for span in sample.versions for i in range(span.start, span.stop)]
            assert covered == list(range(len(unpack_tokens(sample.token_ids))))
            drawn = {span.version for span in sample.versions}
            assert drawn <= set(range(newest[event.generation.role].version + 1))


def test_a_learner_of_two_processes_survives_a_killed_rank(tmp_path: Path) -> None:
    it = WholeRun(tmp_path / "run")
    process = it.start(*SMALL, *TWO)
    try:
        until("a first step", lambda: it.count(StepCommitted) > 0)
        joined = it.count(WorkerJoined, role="learner")
        ranks = [p for p in it.family("mmzero_async.workers.learner ") if "RANK" in p.environ()]
        [second] = [p for p in ranks if p.environ()["RANK"] == "1"]
        second.kill()
        until("the learner back", lambda: learner_back(it, joined))
        assert process.wait(PATIENCE * 2) == 0
        kept_every_promise(it, 2.0)
    except BaseException:
        print(it.evidence())
        raise
    finally:
        it.end(process)
    assert it.family() == []
