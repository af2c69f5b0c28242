"""The guard on staleness: tightened when samples stray, relaxed when calm, told by the log."""

from itertools import pairwise

import msgspec
import pytest
from builders import records, whole_tree
from hypothesis import given
from hypothesis import strategies as st
from test_projections import publish_all, step

from mmzero_async.config import AdmissionConfig, Config, ConfigError, load
from mmzero_async.projections.dispatcher import PipelineDispatcher
from mmzero_async.projections.pace import Pace
from mmzero_async.projections.pipeline import Pipeline
from mmzero_async.projections.report import Report
from mmzero_async.schemas.events import Event, Paced, StepCommitted

ADMISSION = AdmissionConfig(eta=4, ess_floor=0.9, drift_ceiling=0.1, calm_steps=3)


def taken(number: int, ess: float = 1.0, drift: float | None = None, role="solver"):
    figures = {"ess_share": ess} | ({} if drift is None else {"drift_kl_older_versions": drift})
    return msgspec.structs.replace(step(role, number, []), metrics=figures)


def story(figures: list[tuple[float, float]], admission: AdmissionConfig = ADMISSION):
    """What a learner would commit for steps of these figures: the log, and eta after each step."""
    pace, log, etas = Pace(), [], []
    for number, (ess, drift) in enumerate(figures, start=1):
        made = taken(number, ess, drift)
        decided = pace.decide(made, admission)
        for event in [made, *([decided] if decided else [])]:
            pace.apply(event)
            log.append(event)
        etas.append(pace.eta("solver", admission))
    return log, etas


FINE, POOR, ADRIFT = (0.99, 0.01), (0.5, 0.01), (0.99, 0.2)


def test_a_step_of_few_effective_samples_halves_what_may_be_ahead() -> None:
    pace = Pace()
    assert pace.decide(taken(1, 0.9), ADMISSION) is None  # at the bound
    assert pace.decide(taken(1, 0.89), ADMISSION) == Paced(
        role="solver", step=1, eta=2, before=4, reason="ess_share", figure=0.89, bound=0.9
    )
    drifting = pace.decide(taken(1, 1.0, 0.11), ADMISSION)
    assert drifting is not None
    assert (drifting.reason, drifting.figure, drifting.bound) == (
        "drift_kl_older_versions",
        0.11,
        0.1,
    )


def test_it_waits_before_it_tightens_again_and_relaxes_by_one_after_calm_steps() -> None:
    _, etas = story([FINE, POOR, POOR, POOR, ADRIFT, POOR, FINE, FINE, FINE, *[FINE] * 9])
    #               4     2     2     2     1       1     1     1     2     then one every three
    assert etas == [4, 2, 2, 2, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4]


def test_it_goes_down_to_nothing_ahead_and_says_no_more() -> None:
    log, etas = story([POOR] * 20)
    assert etas[-1] == 0
    assert [event.eta for event in log if isinstance(event, Paced)] == [2, 1, 0]


def test_without_bounds_nothing_is_decided() -> None:
    log, _ = story([POOR, ADRIFT] * 8, replace_bounds())
    assert not any(isinstance(event, Paced) for event in log)


def replace_bounds() -> AdmissionConfig:
    return msgspec.structs.replace(ADMISSION, ess_floor=0.0, drift_ceiling=0.0)


def test_what_a_step_does_not_tell_is_no_alarm() -> None:
    silent = msgspec.structs.replace(taken(1), metrics={})
    assert Pace().decide(silent, ADMISSION) is None


@given(st.lists(st.sampled_from([FINE, POOR, ADRIFT]), max_size=40), st.integers(1, 6))
def test_the_pace_is_a_function_of_the_log(figures, calm_steps) -> None:
    admission = msgspec.structs.replace(ADMISSION, calm_steps=calm_steps)
    log, etas = story(figures, admission)
    again, decided = Pace(), []
    for event in log:
        if isinstance(event, StepCommitted):
            decided.append(again.decide(event, admission))
        again.apply(event)
    assert [d for d in decided if d] == [event for event in log if isinstance(event, Paced)]
    assert all(0 <= eta <= admission.eta for eta in etas)
    assert again.eta("solver", admission) == (etas[-1] if etas else admission.eta)
    changes = [event.step for event in log if isinstance(event, Paced)]
    assert all(b - a >= calm_steps for a, b in pairwise(changes))


def test_roles_have_a_pace_of_their_own() -> None:
    pace = Pace()
    pace.apply(Paced(role="coder", step=1, eta=1, before=4, reason="ess_share"))
    assert [pace.eta(role, ADMISSION) for role in ("proposer", "coder", "solver")] == [4, 1, 4]


# --- what admission makes of it -------------------------------------------------------------------


def config() -> Config:
    return load(
        overrides=[
            "admission.eta=3",
            "admission.max_running_groups=99",
            "learner.solver.groups=1",
            *("learner.coder.train=false", "learner.proposer.train=false"),
        ]
    )


def started(events: list[Event]) -> int:
    """Prompts that a log server of this log would lease at once."""
    dispatcher = PipelineDispatcher(config())
    for record in records(events):
        dispatcher.apply(record)
    count = 0
    while count < 50 and dispatcher.take("propose") is not None:
        count += 1
    return count


def test_admission_follows_the_log_also_after_a_restart() -> None:
    ready = [*publish_all(), *whole_tree("g0", proposals=1, drawings=2)]  # two solver groups
    tight = Paced(role="solver", step=1, eta=1, before=3, reason="ess_share")
    calm = Paced(role="solver", step=4, eta=2, before=1, reason="calm")
    assert started(ready) > 0  # 2 < (3 + 1) * 1
    assert started([*ready, tight]) == 0  # 2 = (1 + 1) * 1
    assert started([*ready, tight, step("solver", 1, ["g0.s0.d0"])]) > 0
    assert started([*ready, tight, calm]) > 0


def test_the_report_tells_what_was_decided() -> None:
    report = Report()
    log, _ = story([FINE, POOR, FINE, FINE, FINE])
    for record in records(log):
        report.apply(record)
    assert [event.eta for event in report.paced["solver"]] == [2, 3]
    assert report.figure_of("solver", "ess_share") == [0.99, 0.5, 0.99, 0.99, 0.99]
    pipeline = Pipeline()
    for offset, event in enumerate(log):
        pipeline.apply(offset, event)
    assert pipeline.pace.eta("solver", ADMISSION) == 3


@pytest.mark.parametrize(
    "override", ["ess_floor=1.1", "ess_floor=-0.1", "drift_ceiling=-1", "calm_steps=0"]
)
def test_bounds_that_cannot_be_are_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=override.partition("=")[0]):
        load(overrides=[f"admission.{override}"])
