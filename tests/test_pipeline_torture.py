"""A whole run under the harness: log server, engine, learner and workers killed at random moments.

    TORTURE_SEED=7 TORTURE_PIPELINE_ROUNDS=300 pytest -m slow tests/test_pipeline_torture.py

After every round the audit of what the events mean is clean and every window is the one that the
log gives. At the end each committed step has its checkpoint, and a learner that nobody disturbed,
given the same log, has the same weights after every single step.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from nursery import Nursery

from mmzero_async.config import Config
from mmzero_async.log.reader import LogReader
from mmzero_async.log.verify import verify
from mmzero_async.schemas.events import ROLES, RunStarted, StepCommitted


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_whose_processes_are_killed_in_turn_keeps_every_promise(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from torture_pipeline import ENGINE, LEARNER, LOG_SERVER, WORKERS, Run

    seed = int(os.environ.get("TORTURE_SEED", time.time_ns() % 10**9))
    rounds = int(os.environ.get("TORTURE_PIPELINE_ROUNDS", "60"))
    rng, done, told = random.Random(seed), Counter[str](), []
    # A round of 15, shuffled, and so on: in 60 the learner dies 24 times.
    faults = [*WORKERS, ENGINE, *[LOG_SERVER] * 2, *[LEARNER] * 5, "everybody", "cut", "cut"]
    plan: list[str] = []
    run_dir, began = tmp_path / "run", time.monotonic()
    run_dir.mkdir()
    with Nursery("pipeline_children") as nursery, Run(nursery, run_dir, tiny_folder, rng) as run:
        try:
            run.gets_on(steps=3)
            for number in range(rounds):
                time.sleep(rng.random() * 0.7)
                plan = plan or rng.sample(faults, len(faults))
                fault = plan.pop()
                told.append(f"{time.monotonic() - began:.1f} s, round {number}: {fault}")
                if fault == "everybody":
                    run.kill_everybody()
                elif fault == "cut":
                    run.cut_connections()
                else:
                    run.kill(fault)
                done[fault] += 1
                run.gets_on(steps=int(fault in (LEARNER, "everybody")))
            run.gets_on(steps=1)
            run.finish()
        except BaseException as error:
            error.add_note(f"TORTURE_SEED={seed}; evidence in {run_dir}\n" + "\n".join(told[-30:]))
            raise
        kills = dict(run.kills)
    assert sum(done.values()) == rounds and kills.get(LEARNER, 0) >= rounds // 15 * 6
    assert verify(run_dir / "log").clean
    replayed = subprocess.run(
        [sys.executable, "-m", "mmzero_async.ops.cli", "replay", run_dir, "--audit", "--json"],
        capture_output=True,
        text=True,
    )
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    found = json.loads(replayed.stdout)
    assert found["audit"]["clean"] and found["rebuilt"]["differences"] == []
    trained = sum(found["audit"]["trained"].values())
    assert found["rebuilt"]["windows"] >= 3 and trained >= 3
    steps = same_weights_as_undisturbed(run_dir, tiny_folder, tmp_path)
    with capsys.disabled():
        print(
            f"\nseed {seed}: {rounds} rounds in {time.monotonic() - began:.0f} s\n"
            f"faults: {dict(done.most_common())}\nkilled: {kills}\n"
            f"{found['audit']['events']} events audited, {found['rebuilt']['windows']} windows and "
            f"{found['rebuilt']['rewards']} rewards rebuilt, {trained} groups trained once: clean\n"
            f"steps whose weights an undisturbed learner has too: {steps}"
        )


def same_weights_as_undisturbed(run_dir: Path, base: Path, elsewhere: Path) -> dict[str, int]:
    """One learner takes every committed step from version 0 on, restoring nothing on the way."""
    from mmzero_async.learner import checkpoint
    from mmzero_async.learner.rebuild import Rebuild
    from mmzero_async.learner.rerun import policy_for, ranks_of
    from mmzero_async.learner.step import Trainer
    from mmzero_async.learner.windows import events_from

    reader = LogReader.open(run_dir / "log")
    config: Config | None = None
    trainers: dict[str, Trainer] = {}
    steps: Counter[str] = Counter()
    rebuild = Rebuild(events_from(reader))
    for record in reader.scan():
        event = record.event()
        if isinstance(event, StepCommitted):
            saved = checkpoint.read(run_dir, event.checkpoint, event.digest)  # complete, as logged
            trainers[event.role].ranks = ranks_of(event)
            result = trainers[event.role].train(rebuild.window(event.role)[0], reader.blob)
            again = trainers[event.role].save(elsewhere, event.version)
            where = f"{event.role} step {event.step}"
            assert again.digest == saved.digest == event.digest, f"{where}: other weights"
            assert result.batch_digest == event.batch_digest, f"{where}: another batch"
            steps[event.role] += 1
        rebuild.apply(record)
        if isinstance(event, RunStarted):
            config, policy = rebuild.config, policy_for(base, rebuild.config)
            trainers = {role: Trainer(policy, role, config.learner) for role in ROLES}
    reader.close()
    assert config is not None and all(steps[role] > 0 for role in ROLES), steps
    return dict(steps)
