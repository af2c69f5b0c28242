"""A learner of several real processes: the bits of one that plays them, and one end for all."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ranks_child
import tiny_model
from nursery import Nursery
from tiny_training import deterministically

from mmzero_async.config import load
from mmzero_async.learner import parallel
from mmzero_async.learner.errors import RanksError
from mmzero_async.learner.ranks import Ranks
from mmzero_async.learner.step import Trainer
from mmzero_async.ports import free_port
from mmzero_async.workers.loop import HOPELESS


def torchrun(kind: str, folder: Path, out: Path, hosts: int = 1, **settings: object) -> str:
    """The child under torchrun, as workers/learner_ranks.py calls it; what was said on stderr.

    More hosts than one are as many launchers on this machine, which find each other by a port.
    """
    program = [str(Path(ranks_child.__file__)), kind, str(folder), str(out)]
    options = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    count = ["--nproc-per-node", str(settings["processes"])]
    port = str(free_port("127.0.0.1", 0, key="port"))
    launchers = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *count, *program, *options],
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PET_NNODES": str(hosts),
                "PET_NODE_RANK": str(host),
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": port,
            },
        )
        for host in range(hosts)
    ]
    said = "".join(launcher.communicate(timeout=300)[1] for launcher in launchers)
    assert all((launcher.returncode == 0) == (kind == "story") for launcher in launchers), said
    return said


def played(folder: Path, out: Path, ranks: int, **settings: Any) -> dict[str, Any]:
    """The same story in this process."""
    with deterministically():
        config = ranks_child.configured(**settings)
        it = Trainer(ranks_child.policy(folder, config), "solver", config, Ranks(ranks))
        return ranks_child.story(it, out)


TWO = ["learner.processes=2", "learner.micro_batch_tokens=1024"]
CASES: dict[str, dict[str, Any]] = {
    "gradients added up": {},
    "two hosts": {"sharding": "fsdp"},
    "layers sharded": {"sharding": "fsdp"},
    "full weights": {"weights": "full"},
    "full weights, sharded over three": {"weights": "full", "sharding": "fsdp"},
    "full weights, sharded on two hosts, in two optimiser steps": {
        "weights": "full",
        "sharding": "fsdp",
        "gradient_checkpointing": True,
        "loss": "dapo",
        "num_iterations": 2,
        "loss_options": {"proximal": "forward"},
        "solver": {"groups": 2, "lr": 1e-4},
    },
    "layers sharded and computed again, logits in chunks": {
        "sharding": "fsdp",
        "gradient_checkpointing": True,
        "logprob_chunk": 5,
        "kl_coefficient": 0.1,
        "lr_by_ess": 1.0,
    },
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CASES)
def test_processes_make_the_bits_of_one_that_plays_them_all(tiny_folder, tmp_path, case):
    settings = CASES[case]
    hosts, ranks = 2 if "two hosts" in case else 1, 3 if "three" in case else 2
    out = tmp_path / "shared out"
    torchrun("story", tiny_folder, out, hosts, processes=ranks // hosts, **settings)
    found, *others = (
        json.loads((out / str(rank) / "found.json").read_text()) for rank in range(ranks)
    )
    expected = played(tiny_folder, tmp_path / "played", ranks, **settings)
    assert {name: found[name] for name in expected} == expected
    # And within rounding what one process alone makes of the same windows.
    alone = played(tiny_folder, tmp_path / "alone", 1, **settings)
    for one, shared in zip(alone["metrics"], found["metrics"], strict=True):
        assert shared.pop("ranks") == ranks
        assert shared == pytest.approx(one, rel=1e-3, abs=1e-6)
    # Only rank 0 writes versions; the others' bits were compared with its.
    written = sorted(out.glob("*/checkpoints/solver/*"))
    assert [str(p.relative_to(out)) for p in written] == [
        f"0/checkpoints/solver/00000{version}" for version in (0, 2, 4)
    ]
    weights = settings.get("weights", "lora")
    whole = ranks_child.held(ranks_child.policy(tiny_folder, tiny_model.config(weights=weights)))
    if settings.get("sharding") == "fsdp":
        assert sum(one["held"] for one in (found, *others)) == whole
        assert max(one["held"] for one in (found, *others)) <= 1.02 / ranks * whole
    else:
        assert all(one["held"] == whole for one in (found, *others))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ranks_that_hold_other_bits_save_nothing(tiny_folder, tmp_path):
    said = torchrun("apart", tiny_folder, tmp_path, processes=2)
    assert "RanksError: solver, version 0: the ranks hold different weights" in said
    assert not list(tmp_path.glob("*/checkpoints/*/*"))


def test_without_torchrun_a_learner_of_several_processes_says_how_to_start_it(monkeypatch):
    config = load("seedling", ["learner.processes=2"]).learner
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    with pytest.raises(RanksError, match=r"learner\.processes = 2, but torchrun did not.*ranks"):
        parallel.join(config)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(RanksError, match="torchrun started 3"):
        parallel.join(config)


# --- the learner as the supervisor starts it ------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_learner_of_two_processes_killed_anywhere_goes_on_from_the_last_committed_step(
    tmp_path, tiny_folder, capsys
):
    """Launcher, leader and follower in turn; then as undisturbed, and nobody is left behind."""
    from test_pipeline_torture import same_weights_as_undisturbed
    from torture_pipeline import LEARNER, Run

    seed = int(os.environ.get("TORTURE_SEED", time.time_ns() % 10**9))
    rng = random.Random(seed)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    with (
        Nursery("pipeline_children", "mmzero_async.workers.learner_ranks") as nursery,
        Run(nursery, run_dir, tiny_folder, rng, TWO) as run,
    ):
        try:
            run.gets_on(steps=2)
            for fault in rng.sample(["launcher", "rank 0", "rank 1", "early"], 4):
                time.sleep(rng.random() * 2)
                if fault in ("launcher", "early"):
                    run.kill(LEARNER)
                if fault == "early":  # the new one, before or while its ranks come up
                    time.sleep(rng.random() * 5)
                    run.kill(LEARNER)
                if fault.startswith("rank"):
                    run.kill_rank(int(fault[-1]))
                run.gets_on(steps=1)
            run.finish()
            run.until("no rank is left", lambda: not run.ranks())
        except BaseException as error:
            error.add_note(f"TORTURE_SEED={seed}; evidence in {run_dir}")
            raise
        kills = dict(run.kills)
    followers = {p.name for p in (run_dir / "logs").glob("learner-0.*.jsonl")}
    assert followers == {"learner-0.1.jsonl"}
    steps = same_weights_as_undisturbed(run_dir, tiny_folder, tmp_path / "again")
    with capsys.disabled():
        print(f"\nseed {seed}: killed {kills}; steps as undisturbed {steps}")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_another_start_would_not_help_is_said_through_the_launcher(tmp_path):
    """Or the supervisor would start it again and again."""
    config = load("seedling", ["learner.processes=2", f"log.keys={tmp_path / 'no keys here'}"])
    (tmp_path / "config.json").write_text(config.to_json())
    launched = subprocess.run(
        [sys.executable, "-m", "mmzero_async.workers.learner_ranks", "--run-dir", tmp_path],
        capture_output=True,
        text=True,
    )
    assert launched.returncode == HOPELESS, launched.stderr
