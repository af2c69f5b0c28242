"""`mmzero replay --under`: what other settings would have made of a log, with no weights."""

import json
from pathlib import Path

import pytest
from learned_run import learned
from typer.testing import CliRunner, Result

from mmzero_async.config import ConfigError
from mmzero_async.learner.offline import config_of, retrain
from mmzero_async.learner.settings import other_settings
from mmzero_async.learner.under import Under
from mmzero_async.learner.windows import events_from
from mmzero_async.log.reader import LogReader
from mmzero_async.ops.cli import app
from mmzero_async.schemas.events import ROLES, GroupRejected, StepCommitted


@pytest.fixture(scope="module")
def run(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learned(tmp_path_factory.mktemp("learned") / "run", tiny_folder)


def replay(run: Path, *overrides: str) -> Result:
    return CliRunner().invoke(app, ["replay", str(run), "--under", *overrides])


def under(run: Path, *overrides: str) -> dict:
    told = replay(run, *overrides, "--json")
    assert told.exit_code == 0, told.exception
    return json.loads(told.stdout)


def events(run: Path) -> list:
    reader = LogReader.open(run / "log")
    try:
        return [record.event() for record in reader.scan()]
    finally:
        reader.close()


def test_under_its_own_settings_a_run_is_what_it_was(run: Path) -> None:
    found = under(run, "lora_alpha=8")  # as it is: nothing is otherwise
    steps = [e for e in events(run) if isinstance(e, StepCommitted)]
    assert found["settings"] == {} and found["steps"] == []
    assert found["windows"] == {
        "committed": len(steps),
        "same": len(steps),
        "other_groups": 0,
        "not_full": 0,
    }
    assert len(steps) > 3
    for role in ROLES:
        it = found["roles"][role]
        assert it["admitted"] == it["refused"] == []
        assert it["trained"][0] == it["trained"][1] == it["trained_in_both"] > 0
        assert it["pending"][0] == it["pending"][1]
        assert it["rewards"]["changed"] == it["rewards"]["groups_with_other_advantages"] == 0
        logged = [e.reason for e in events(run) if isinstance(e, GroupRejected) and e.role == role]
        assert it["rejected"] == {r: [logged.count(r)] * 2 for r in sorted(set(logged))}


def test_another_weight_changes_its_term_and_no_other(run: Path) -> None:
    found = under(run, "solver.format_weight=0.3")
    assert found["settings"] == {"solver.format_weight": [0.1, 0.3]}
    terms = found["roles"]["solver"]["rewards"]["terms"]
    assert terms["answer"]["changed"] == 0 and terms["format"]["changed"] > 0
    own, other = terms["format"]["mean"]
    assert other == pytest.approx(3 * own)
    rewards = found["roles"]["solver"]["rewards"]
    assert rewards["changed"] == terms["format"]["changed"]
    assert rewards["groups_with_other_rewards"] <= rewards["groups_compared"]
    assert found["roles"]["coder"]["rewards"]["changed"] == 0
    assert found["windows"]["same"] == found["windows"]["committed"], "no filter was touched"


def test_other_filters_admit_and_refuse_others(run: Path) -> None:
    found = under(run, "filters.solver_hard_consistency=[0.0,1.0]")
    solver = found["roles"]["solver"]
    assert solver["admitted"] and not solver["refused"]
    assert solver["passes_filters"][1] - solver["passes_filters"][0] == len(solver["admitted"])
    own, other = solver["rejected"]["consistency"]
    assert own > other
    assert found["windows"]["other_groups"] > 0
    came = {group for step in found["steps"] if step["role"] == "solver" for group in step["in"]}
    assert came & set(solver["admitted"]), "a group that is admitted now stands in a window"
    strict = under(run, "filters.solver_hard_consistency=[0.49,0.51]")["roles"]["solver"]
    assert not strict["admitted"]


def test_a_window_that_is_too_large_is_never_full(run: Path) -> None:
    found = under(run, "learner.solver.groups=500")
    steps = [e for e in events(run) if isinstance(e, StepCommitted) and e.role == "solver"]
    assert found["windows"]["not_full"] == len(steps)
    assert {s["why_not"].split(" of ")[1] for s in found["steps"]} == {"the 500 it needs"}
    assert found["roles"]["solver"]["trained"][1] == 0


@pytest.mark.parametrize(
    "overrides",
    [
        ["filters.solver_hard_consistency=[0.0,1.0]"],
        ["learner.solver.groups=3", "learner.coder.groups=1", "admission.max_staleness=1"],
    ],
)
def test_its_windows_are_those_of_the_learner_that_trains_under_the_same(
    run: Path, tmp_path: Path, overrides: list[str]
) -> None:
    reader = LogReader.open(run / "log")
    try:
        own = config_of(reader)
        other = other_settings(own, overrides)
        found = Under(own, other, events_from(reader))
        for record in reader.scan():
            found.apply(record)
        base = Path((run / "base_model").read_text())
        trained = list(retrain(run, base, reader, tmp_path, other))
    finally:
        reader.close()
    assert [(s.role, s.step, list(s.other), s.why_not) for s in found.steps] == [
        (t.committed.role, t.committed.step, t.groups, t.why_not) for t in trained
    ]
    assert not all(step.same for step in found.steps)


def test_people_are_told_what_would_have_changed_and_nothing_is_written(run: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in sorted(run.rglob("*")) if p.suffix != ".mdb"}
    told = replay(run, "filters.solver_hard_consistency=[0.0,1.0]").stdout
    assert "filters.solver_hard_consistency = (0.0, 1.0) instead of (0.4, 0.6)" in told
    assert "rejected as consistency:" in told and "windows" in told and "solver step" in told
    assert {p: p.stat().st_mtime_ns for p in sorted(run.rglob("*")) if p.suffix != ".mdb"} == before


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        ([], "--under needs what is to be otherwise"),
        (["renderer.size=64"], "cannot be otherwise in a replay"),
        (["filters.nonsense=1"], "nonsense"),
    ],
)
def test_what_cannot_be_otherwise_is_refused(run: Path, overrides: list[str], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        raise replay(run, *overrides).exception  # type: ignore[misc]
