"""Whose turn it is follows from the log: phases, what is started and what is trained in each."""

import json

import pytest
from builders import proposed, records, run_started, whole_tree
from grown_log import SMALL, Log, log_of
from hypothesis import given
from hypothesis import strategies as st
from test_projections import publish_all, step

from mmzero_async.config import ConfigError, load
from mmzero_async.learner.windows import Candidates
from mmzero_async.projections.admission import holding_back
from mmzero_async.projections.dispatcher import PipelineDispatcher
from mmzero_async.projections.flow import Flow, stages
from mmzero_async.projections.making import Making
from mmzero_async.projections.schedule import OUT_OF_PHASE, Phase, Schedule
from mmzero_async.projections.settings import settings_of
from mmzero_async.schemas.events import ROLES, Event, Role
from mmzero_async.schemas.flow import Hand

ONE_EACH = [
    "schedule.mode=sequential",
    *(f"schedule.steps.{role}=1" for role in ROLES),
    "schedule.iterations=2",
]


def scheduled(*overrides: str) -> Schedule:
    schedule = Schedule()
    schedule.configure(settings_of(run_started(load(overrides=overrides), "r")))
    return schedule


def by_counting(
    order: list[Role], length: dict[Role, int], iterations: int, taken: list[Role]
) -> tuple[int, Role, int] | None:
    """Iteration, role and steps done, by crossing off a list of all steps that there are to be."""
    left = dict.fromkeys(ROLES, 0)
    for role in taken:
        left[role] += 1
    for iteration in range(1, iterations + 1):
        for role in order:
            if left[role] < length[role]:
                return iteration, role, left[role]
            left[role] -= length[role]
    return None


ORDER = st.permutations(ROLES).flatmap(
    lambda roles: st.integers(1, 3).map(lambda count: roles[:count])
)


@given(
    ORDER,
    st.fixed_dictionaries({role: st.integers(1, 4) for role in ROLES}),
    st.integers(1, 4),
    st.lists(st.sampled_from(ROLES), max_size=60),
)
def test_the_phase_is_the_same_as_by_counting_whatever_the_order_of_steps(
    order: list[Role], length: dict[Role, int], iterations: int, taken: list[Role]
) -> None:
    schedule = scheduled(
        "schedule.mode=sequential",
        f"schedule.order={json.dumps(order)}",
        f"schedule.iterations={iterations}",
        *(f"schedule.steps.{role}={length[role]}" for role in ROLES),
    )
    for number, role in enumerate(taken):
        schedule.apply(step(role, number, []))
    expected = by_counting(order, length, iterations, taken)
    found = schedule.phase
    assert (found and (found.iteration, found.role, found.done)) == expected
    assert schedule.over == (expected is None)
    assert [schedule.trains(role) for role in ROLES] == [
        expected is not None and role == expected[1] for role in ROLES
    ]


def test_the_paper_s_sequence_is_twenty_steps_of_each_three_times() -> None:
    schedule, turns = scheduled("schedule.mode=sequential"), []
    while (phase := schedule.phase) is not None:
        if not turns or turns[-1][0] != phase.role:
            turns.append((phase.role, 0))
        turns[-1] = (phase.role, turns[-1][1] + 1)
        schedule.apply(step(phase.role, 1, []))
    assert turns == [("proposer", 20), ("coder", 20), ("solver", 20)] * 3


def test_without_an_end_there_is_always_one_more_iteration() -> None:
    schedule = scheduled(*ONE_EACH, "schedule.iterations=0")
    for number in range(60):
        schedule.apply(step(ROLES[number % 3], number, []))
    assert schedule.phase == Phase(21, "proposer", 0, 1) and not schedule.over


def test_frozen_roles_have_no_turn_and_all_others_go_on() -> None:
    schedule = scheduled(*ONE_EACH, "learner.coder.train=false")
    taken: list[Role] = []
    while (phase := schedule.phase) is not None:
        taken.append(phase.role)
        schedule.apply(step(phase.role, 1, []))
    assert taken == ["proposer", "solver"] * 2


def test_concurrently_all_are_trained_until_what_is_asked_for_is_reached() -> None:
    schedule = scheduled("schedule.until.solver=2", "schedule.until.coder=1")
    for role in ("solver", "proposer", "solver"):
        assert schedule.phase is None and all(map(schedule.trains, ROLES))
        schedule.apply(step(role, 1, []))
    assert not schedule.over
    schedule.apply(step("coder", 1, []))
    assert schedule.over and not any(map(schedule.trains, ROLES))
    assert not scheduled().over


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["schedule.order=['solver', 'solver']"], "names the solver 2 times"),
        (["schedule.order=['judge']"], r"\$\.schedule\.order"),
        (["schedule.mode=sequential", "schedule.order=[]"], "leave nobody to train"),
        (
            ["schedule.mode=sequential", *(f"learner.{role}.train=false" for role in ROLES)],
            "leave nobody to train",
        ),
        (["schedule.until.coder=1", "learner.coder.train=false"], "waits for the coder"),
        (["schedule.mode=sequential", "schedule.until.solver=61"], "waits for the solver"),
        (["schedule.steps.judge=2"], "unknown field `judge`"),
        (["schedule.iterations=-1"], r"\$\.schedule\.iterations"),
        (["schedule.speed=2"], "unknown field `speed`"),
        (
            ['schedule.curriculum=[{role="coder",fact="x",first=[0,1],last=[0,1],steps=1}]'],
            r"curriculum\[0\]: no 'x' is recorded of a coder group; there is render_rate",
        ),
        (
            [
                'schedule.curriculum=[{role="solver",fact="difficulty",first=[1,0],last=[0,1],'
                "steps=1}]"
            ],
            r"curriculum\[0\]\.first: cannot be at least 1 and at most 0",
        ),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_in_words(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(overrides=overrides)


# --- what is started ------------------------------------------------------------------------------


def dispatcher(events: list[Event], *overrides: str) -> PipelineDispatcher:
    config = load(overrides=["admission.max_running_groups=99", "admission.eta=4", *overrides])
    made = PipelineDispatcher(config)
    for record in records([run_started(config, "r"), *publish_all(), *events]):
        made.apply(record)
    return made


def prompts(events: list[Event], *overrides: str) -> int:
    made, count = dispatcher(events, *overrides), 0
    while count < 50 and made.take("propose") is not None:
        count += 1
    return count


def test_no_more_is_started_than_a_turn_still_takes() -> None:
    turn = [*ONE_EACH, "schedule.steps.proposer=3", "learner.proposer.groups=2"]
    assert prompts([], *turn) == 6
    first = [proposed("g0", [False, False]), step("proposer", 1, ["g0"])]
    assert prompts(first, *turn) == 4
    assert prompts(first, *turn, "admission.eta=0") == 2


def test_only_the_turn_s_role_is_waited_for() -> None:
    ready = whole_tree("g0", proposals=1, drawings=4)  # 1 proposer, 1 coder, 4 solver groups
    small = [f"learner.{role}.groups=1" for role in ROLES]
    for role, more in (("proposer", 0), ("coder", 0), ("solver", 0)):
        assert prompts(ready, *small, *ONE_EACH, f'schedule.order=["{role}"]') == more
    large = [*small, "learner.solver.groups=5", "admission.eta=0"]
    assert prompts(ready, *large, *ONE_EACH, 'schedule.order=["solver"]') > 0
    assert prompts(ready, *large, *ONE_EACH, 'schedule.order=["coder", "solver"]') == 0


def test_when_the_schedule_is_over_nothing_new_is_started_and_a_restarted_server_knows() -> None:
    taken: list[Event] = [step(role, n, []) for n in (1, 2) for role in ROLES]
    assert prompts(taken[:-1], *ONE_EACH, "learner.solver.groups=9") > 0
    assert prompts(taken, *ONE_EACH, "learner.solver.groups=9") == 0
    assert prompts([step("solver", 1, [])], "schedule.until.solver=1") == 0


# --- what is trained ------------------------------------------------------------------------------


def test_groups_out_of_phase_are_rejected_with_whose_turn_it_was() -> None:
    config = load(overrides=[*SMALL, *ONE_EACH])
    log, candidates = log_of(config, *whole_tree("g0", proposals=1, drawings=1)), Candidates(config)
    said = candidates.refresh(log.pipeline, log.of)
    assert [(r.role, r.group, r.reason, r.detail) for r in said if r.role != "proposer"] == [
        ("coder", "g0.s0", OUT_OF_PHASE, "iteration 1 trains the proposer"),
        ("solver", "g0.s0.d0", OUT_OF_PHASE, "iteration 1 trains the proposer"),
    ]
    over = load(overrides=[*SMALL, "schedule.until.solver=1"])
    log = log_of(over, *whole_tree("g0", proposals=1, drawings=1), step("solver", 1, []))
    told = Candidates(over).refresh(log.pipeline, log.of)
    assert {(r.reason, r.detail) for r in told} == {(OUT_OF_PHASE, "the schedule is over")}


def test_what_no_rejection_was_committed_of_has_its_chance_in_its_own_turn() -> None:
    """As a learner that died, or a replay that looks at other moments, would see it."""
    config = load(overrides=[*SMALL, *ONE_EACH])
    log, candidates = log_of(config, *whole_tree("g0", proposals=1, drawings=2)), Candidates(config)
    assert candidates.refresh(log.pipeline, log.of)
    log.add(step("proposer", 1, []), step("coder", 1, []))
    candidates.refresh(log.pipeline, log.of)
    assert list(candidates.passed["solver"]) == ["g0.s0.d0", "g0.s0.d1"]
    assert candidates.fullest() == "solver"


def test_who_asks_why_is_told_whose_turn_it_is() -> None:
    config = load(overrides=[*ONE_EACH, "learner.proposer.groups=1", "admission.eta=4"])

    def waits(*events: Event) -> dict[str, str]:
        learner = [Hand(worker="learner-0", role="learner", free=0, silent_seconds=0.0)]
        pipeline = Log([run_started(config, "r"), *publish_all(), *events]).pipeline
        back = holding_back(pipeline, config, 0, Making())
        found = stages(pipeline, Flow(started=0.0), config, {}, learner, back, 1.0)
        return {stage.stage: stage.waits_for for stage in found}

    assert waits()["train/coder"] == "its turn: iteration 1 trains the proposer"
    busy = waits(proposed("g0", [True]))
    assert busy["propose"].endswith(
        "1 proposer groups are ready or in the making, at most 1 may be (its turn)"
    )
    over = waits(*(step(role, n, []) for n in (1, 2) for role in ROLES))
    assert over["propose"] == "nothing: the schedule is over"
    assert over["train/solver"] == "nothing: the schedule is over"
