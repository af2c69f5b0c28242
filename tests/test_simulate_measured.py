"""What is foreseen of a run's own cluster, beside what it did."""

import json
from pathlib import Path

import pytest
from builders import records, run_started, whole_tree
from test_projections import step
from test_simulate import TIMES, small

from mmzero_async.config import Config
from mmzero_async.ops.simulate.cluster import Plan, simulate
from mmzero_async.ops.simulate.measured import hands_of, steady
from mmzero_async.ops.simulate.run import main
from mmzero_async.ops.simulate.world import Costs
from mmzero_async.schemas.events import Event, WorkerJoined, WorkerLeft
from mmzero_async.schemas.work import STAGE_ROLE


def joined(worker: str, role: str) -> WorkerJoined:
    return WorkerJoined(worker=worker, role=role, host="h", pid=1)


EVERYBODY: list[Event] = [joined(f"{role}-0", role) for role in STAGE_ROLE.values()]


def test_the_longest_time_in_which_nobody_came_or_went_is_what_counts() -> None:
    tree = whole_tree("g0", proposals=2, drawings=2)  # an event a second, as all here
    log = [
        run_started(Config(), "r"),
        joined("learner-0", "learner"),
        *EVERYBODY,
        *tree[:4],
        joined("solver-1", "solver"),
        *tree,
        step("solver", 1, ["g0.s0.d0"]),
        joined("evaluator", "supervisor"),  # no stage's
        *tree,
        WorkerLeft(worker="solver-1", role="solver", reason="goodbye"),
        *tree[:3],
    ]
    found = steady(records(log))
    whole = 2 * len(tree) + 2  # seconds from solver-1's coming to the last result before it went
    assert found.workers == {"propose": 1, "code": 1, "render": 1, "answer": 2}
    assert found.seconds == pytest.approx(0.7 * whole, abs=1e-6)
    filled = int(0.3 * whole)  # of the first tree so much is the pipeline's filling
    assert (found.steps, found.results) == (1, 2 * len(tree) - filled)


def test_a_run_without_such_a_time_is_told() -> None:
    three = [*EVERYBODY[:3], *whole_tree("g0", proposals=1, drawings=1)]
    for log in ([run_started(Config(), "r")], EVERYBODY, three):
        with pytest.raises(ValueError, match="no time in which every stage worked undisturbed"):
            steady(records(log))


def simulated(folder: Path, costs: Costs) -> Path:
    plan = small(6, seed=5)
    plan = Plan(plan.config, TIMES, plan.workers, hands_of(plan.config), costs, seed=5)
    simulate(plan, folder, 60.0)
    (folder / "config.json").write_text(plan.config.to_json())
    return folder


def test_what_is_foreseen_of_a_simulated_cluster_is_what_it_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its times are read back from its own log: nothing but chance may differ, and what a slower
    log server would have cost it."""
    run = simulated(tmp_path / "run", Costs())
    ratios = []
    for costs in ("", "commit=0.4"):
        assert main(["--like", str(run), "--seed", "50", "--costs", costs]) == 0
        results, steps = map(json.loads, capsys.readouterr().out.splitlines())
        assert results["figure"] == "simulated_vs_measured_results"
        assert steps["figure"] == "simulated_vs_measured_steps" and steps["rival"] > 0
        ratios.append(results["ratio"])
    assert 0.9 < ratios[0] < 1.1 and ratios[1] < 0.7, ratios
