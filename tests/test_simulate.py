"""The simulator: the real log server in virtual time, the same story for the same seed."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from builders import records, run_started, whole_tree
from test_projections import publish_all, step

from mmzero_async.config import Config, load
from mmzero_async.log.reader import LogReader
from mmzero_async.ops.simulate.cluster import Outcome, Plan, balanced, simulate, wide
from mmzero_async.ops.simulate.measured import hands_of
from mmzero_async.ops.simulate.run import shipped
from mmzero_async.ops.simulate.times import StageTimes, StepTimes, Times, observed, quantiles
from mmzero_async.ops.simulate.world import Costs
from mmzero_async.projections.audit import Audit
from mmzero_async.projections.report import Report
from mmzero_async.schemas.events import ROLES, WorkAbandoned
from mmzero_async.schemas.work import STAGES, Stage

TIMES = Times(
    source="by hand",
    stages={
        "propose": StageTimes(seconds=[0.5, 0.7], success=1.0, samples=2, tokens=8),
        "code": StageTimes(seconds=[0.6, 0.8], success=1.0, samples=2, tokens=8),
        "render": StageTimes(seconds=[0.05], success=1.0),
        "answer": StageTimes(seconds=[0.2, 0.4], success=1.0, samples=4, tokens=8),
    },
    steps={role: StepTimes(seconds=[0.5], publish=[0.1], accepted=0.8) for role in ROLES},
)
HANDS: dict[Stage, int] = {"propose": 2, "code": 2, "render": 2, "answer": 4}


def small(total: int = 8, **changes) -> Plan:
    workers = balanced(TIMES, total, HANDS, Costs())
    hands = sum(workers[stage] * HANDS[stage] for stage in STAGES)
    config = wide(load("seedling", ["admission.eta=2"]), hands, TIMES)
    return Plan(config, TIMES, workers, HANDS, Costs(), **changes)


def virtual(outcome: Outcome) -> Outcome:
    """Without the one figure that is this machine's."""
    return dataclasses.replace(outcome, cpu=0.0)


def test_a_seed_tells_one_story_and_another_seed_another(tmp_path: Path) -> None:
    first = virtual(simulate(small(seed=3), tmp_path / "a", 30.0))
    assert virtual(simulate(small(seed=3), tmp_path / "b", 30.0)) == first
    assert virtual(simulate(small(seed=4), tmp_path / "c", 30.0)) != first
    logs = [list(LogReader.open(tmp_path / name / "log").scan()) for name in ("a", "b")]
    differ = [
        (one.envelope, other.envelope)
        for one, other in zip(*logs, strict=True)
        if one.envelope != other.envelope and one.kind != "run_started"  # it names its folder
    ]
    assert not differ


def test_what_it_leaves_is_a_log_like_any_other_that_keeps_every_promise(tmp_path: Path) -> None:
    outcome = simulate(small(failures_an_hour=400.0, back_after=6.0), tmp_path / "run", 60.0)
    assert outcome.deaths > 3 and outcome.lost > 0
    reader, audit, report = LogReader.open(tmp_path / "run" / "log"), Audit(), Report()
    for record in reader.scan():
        audit.apply(record)
        report.apply(record)
    assert audit.clean, audit.problems
    steps = report.pipeline.policies.step
    assert all(steps[role] >= outcome.steps[role] > 0 for role in ("coder", "solver"))
    assert not any(isinstance(r.event(), WorkAbandoned) for r in reader.scan())
    dead = load("seedling").log.dead_seconds
    assert outcome.found_after and max(outcome.found_after) < dead + 0.2


def test_hands_that_never_wait_do_what_their_times_allow(tmp_path: Path) -> None:
    outcome = simulate(small(), tmp_path / "run", 60.0)
    assert 0.9 < max(outcome.busy_by_stage.values()) <= 1.0
    costly = small()
    slow = Plan(
        costly.config, TIMES, costly.workers, HANDS, Costs(commit=0.5, message=1e-3), seed=1
    )
    held_up = simulate(slow, tmp_path / "slow", 60.0)
    assert held_up.busy < 0.6 * outcome.busy and held_up.server_busy > 0.9


def test_a_cluster_is_balanced_by_what_a_prompt_costs_each_stage() -> None:
    found = balanced(TIMES, 100, HANDS, Costs(commit=0.0, latency=0.0))
    # a prompt: 0.6 s, 2 x 0.7 s, 4 x 0.05 s and 8 x 0.3 s of work, for 2, 2, 2 and 4 hands
    load_of = {"propose": 0.3, "code": 0.7, "render": 0.1, "answer": 0.6}
    whole = sum(load_of.values())
    assert found == {stage: round(100 * load_of[stage] / whole) for stage in STAGES}
    assert min(balanced(TIMES, 1, HANDS, Costs()).values()) == 1


def test_times_are_read_from_a_log() -> None:
    log = [
        run_started(Config(), "r"),
        *publish_all(),
        *whole_tree("g0", proposals=2, drawings=2),
        step("solver", 1, ["g0.s0.d0", "g0.s0.d1"]),
        step("coder", 1, ["g0.s0"]),
        step("proposer", 1, ["g0"]),
    ]
    times = observed(records(log), "r")
    assert times.stages["code"].samples == 2 and times.stages["answer"].samples == 4
    assert times.stages["answer"].tokens == 3
    assert times.steps["solver"].accepted == 1.0
    with pytest.raises(ValueError, match="nothing was done there by proposer"):
        observed(records(log[:-1]), "r")


def test_quantiles_keep_the_mean_and_the_order() -> None:
    values = [i / 1000 for i in range(1000)]
    kept = quantiles(values, 100)
    assert len(kept) == 100 and kept == sorted(kept)
    assert abs(sum(kept) / 100 - 0.4995) < 0.001


def test_the_shipped_times_are_of_the_demonstration() -> None:
    times = shipped()
    assert set(times.stages) == set(STAGES) and set(times.steps) == set(ROLES)
    assert hands_of(load("seedling"))["answer"] >= 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_quick_form_prints_every_figure() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mmzero_async.ops.simulate.run", "--quick"],
        capture_output=True,
        text=True,
        check=True,
        timeout=500,
    )
    names = [json.loads(line)["figure"] for line in done.stdout.splitlines()]
    assert names == [
        "workers_at_saturation",
        "results_at_saturation",
        "results_of_all",
        "learner_idle",
        "results_with_10_deaths_an_hour",
        "message_cost",
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--costs", "comit=1"], "commit, message or latency"),
        (["--times", "/nonexistent"], "/nonexistent"),
    ],
)
def test_bad_input_is_told(arguments: list[str], told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mmzero_async.ops.simulate.run", *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and told in done.stderr
