"""Whose turn it is follows from the log: phases, what is started and trained in each, curricula."""

import json
import random
from pathlib import Path

import msgspec
import pytest
from builders import proposed, records, run_started, whole_tree
from hypothesis import given, settings
from hypothesis import strategies as st
from learned_run import LearnedRun, learned
from test_projections import publish_all, step
from test_windows import SMALL, Log
from typer.testing import CliRunner, Result

from mmzero_async.config import Config, ConfigError, load
from mmzero_async.learner import checkpoint
from mmzero_async.learner.errors import LearnerError
from mmzero_async.learner.start import source_of
from mmzero_async.learner.windows import Candidates
from mmzero_async.log.reader import LogReader
from mmzero_async.ops.cli import app
from mmzero_async.ops.rundir import open_run
from mmzero_async.projections.admission import holding_back
from mmzero_async.projections.dispatcher import PipelineDispatcher
from mmzero_async.projections.flow import Flow, stages
from mmzero_async.projections.making import Making
from mmzero_async.projections.pipeline import Pipeline
from mmzero_async.projections.schedule import OUT_OF_PHASE, Phase, Schedule
from mmzero_async.projections.settings import settings_of
from mmzero_async.schemas.events import ROLES, Answered, Event, GroupRejected, Role, StepCommitted
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


def log_of(config: Config, *events: Event) -> Log:
    return Log([run_started(config, "r"), *events])


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


# --- a run that learns ----------------------------------------------------------------------------


class Lagging(LearnedRun):
    """A learner that has not seen what came last, as one that has just taken a step."""

    def learn(self) -> int:
        return super().learn() if random.Random(len(self.events)).random() < 0.6 else 0


class Racing(Lagging):
    """Besides, answers come in between a learner's last look and its step."""

    held: tuple[Event, ...] = ()

    def append(self, *events: Event) -> None:
        chance = random.Random(f"held {len(self.events)}").random() < 0.5
        answers = all(isinstance(event, Answered) and event.question == "hard" for event in events)
        if events and answers and chance and len(self.held) < 2:
            self.held = (*self.held, *events)
            return
        if len(self.held) == 2 or any(isinstance(event, StepCommitted) for event in events):
            events, self.held = (*self.held, *events), ()
        super().append(*events)


def mmzero(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def events_of(run: Path) -> list[Event]:
    reader = LogReader.open(run / "log")
    found = [record.event() for record in reader.scan()]
    reader.close()
    return found  # type: ignore[return-value]


def steps_of(run: Path) -> list[StepCommitted]:
    return [event for event in events_of(run) if isinstance(event, StepCommitted)]


TURNS = [
    "schedule.mode=sequential",
    "schedule.steps.proposer=1",
    "schedule.steps.coder=2",
    "schedule.steps.solver=2",
    "schedule.iterations=2",
]


@pytest.fixture(scope="module")
def run(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scheduled") / "run"
    return learned(folder, tiny_folder, TURNS, trees=40, kind=Racing)


def test_a_run_in_sequence_takes_its_turns_and_replays_bit_by_bit(run: Path) -> None:
    turns = ["proposer", "coder", "coder", "solver", "solver"] * 2
    assert [step.role for step in steps_of(run)] == turns
    told = mmzero("replay", run, "--audit", "--json")
    assert told.exit_code == 0, told.stdout
    found = json.loads(told.stdout)
    assert found["audit"]["clean"] and found["rebuilt"]["differences"] == []
    assert found["audit"]["rejected"]["solver phase"] > 0
    assert found["audit"]["rejected"]["proposer phase"] > 0
    again = mmzero("replay", run, "--train", "--json")
    assert again.exit_code == 0, again.stdout
    assert [json.loads(line)["same"] for line in again.stdout.splitlines()] == [True] * len(turns)


def test_in_a_what_if_the_turns_are_the_run_s_own(run: Path) -> None:
    told = mmzero("replay", run, "--train", "--json", "filters.solver_hard_consistency=[0.0, 1.0]")
    steps = [json.loads(line) for line in told.stdout.splitlines()]
    assert not any(s["why_not"] for s in steps)
    assert all(s["same"] for s in steps if s["role"] != "solver")
    one = mmzero("replay", run, "--step", "2", "--what-if", "--json", "loss=dapo")
    assert one.exit_code == 0 and json.loads(one.stdout)["same_bits_as_committed"]
    for override in ("schedule.mode=concurrent", "schedule.iterations=3"):
        refused = mmzero("replay", run, "--train", override)
        assert isinstance(refused.exception, ConfigError)
        assert "cannot be otherwise" in str(refused.exception)


def test_the_status_tells_whose_turn_it_is(run: Path, tiny_folder: Path, tmp_path: Path) -> None:
    assert "schedule: sequential, over" in mmzero("status", run).stdout
    begun = learned(tmp_path / "begun", tiny_folder, TURNS, trees=3)
    assert len(steps_of(begun)) < 10
    told, found = (
        mmzero("status", begun).stdout,
        json.loads(mmzero("status", begun, "--json").stdout),
    )
    at = found["schedule"]
    assert at["mode"] == "sequential" and not at["over"] and at["iterations"] == 2
    assert (
        f"schedule: iteration {at['iteration']} of 2, the {at['role']}'s turn: {at['done']} of "
        f"{at['steps']} steps"
    ) in told


def test_at_every_event_a_process_that_starts_there_is_in_the_same_phase(run: Path) -> None:
    """Fed at once or event by event; and the audit's tale is that of one who looked all along."""
    events, running = events_of(run), Pipeline()
    at = random.Random(1).sample(range(len(events)), 12)
    for offset, event in enumerate(events):
        running.apply(offset, event)
        if offset in at:
            started = Pipeline()
            for early in range(offset + 1):
                started.apply(early, events[early])
            assert started.schedule == running.schedule


@settings(max_examples=8)
@given(st.integers(0, 10**6))
def test_no_step_is_out_of_turn_and_no_group_is_left_to_pile_up(seed: int) -> None:
    from test_windows import grown

    config = load(overrides=[*SMALL, *TURNS])
    log, candidates = log_of(config), Candidates(config)
    numbers = dict.fromkeys(ROLES, 0)
    for event in grown(seed, 12):
        log.add(event)
        while True:
            log.add(*candidates.refresh(log.pipeline, log.of))
            role = candidates.fullest()
            for other in ROLES:
                if not log.pipeline.schedule.trains(other):
                    assert not log.pipeline.book.ready[other]
            if role is None:
                break
            phase = log.pipeline.schedule.phase
            assert phase is not None and phase.role == role
            _, chosen = candidates.window(role, log.of)
            numbers[role] += 1
            log.add(step(role, numbers[role], [scored.group.id for scored in chosen]))


# --- curricula ------------------------------------------------------------------------------------

FROM_EASY = (
    'schedule.curriculum=[{ role = "solver", fact = "hard_consistency", first = [0.8, 1.0], '
    "last = [0.4, 0.6], steps = 4 }]"
)
FASTER = (
    'schedule.curriculum=[{ role = "solver", fact = "hard_consistency", first = [0.5, 0.8], '
    "last = [0.2, 0.5], steps = 2 }]"
)
WIDE = ["filters.solver_hard_consistency=[0.0, 1.0]", "filters.solver_agreement=0"]


@pytest.mark.parametrize(
    ("version", "low", "high"),
    [(0, 0.8, 1.0), (1, 0.7, 0.9), (3, 0.5, 0.7), (4, 0.4, 0.6), (9, 0.4, 0.6)],
)
def test_a_curriculum_s_bound_moves_with_the_version_that_answered(
    version: int, low: float, high: float
) -> None:
    config = load(overrides=[*SMALL, *WIDE, FROM_EASY])
    for votes in range(1, 9):  # of eight
        share = votes / 8
        others = [f"{10 + i}" for i in range(8 - votes)]
        if votes < 2:
            continue
        tree = whole_tree("g0", proposals=1, drawings=1, hard=["3"] * votes + others)
        made = [
            msgspec.structs.replace(
                event,
                generation=msgspec.structs.replace(
                    event.generation,
                    samples=[
                        msgspec.structs.replace(
                            s,
                            versions=[
                                msgspec.structs.replace(v, version=version) for v in s.versions
                            ],
                        )
                        for s in event.generation.samples
                    ],
                ),
            )
            if hasattr(event, "question")
            else event
            for event in tree
        ]
        log = log_of(config, *made, step("solver", 1, [], version=version or 1))
        said = [r for r in Candidates(config).refresh(log.pipeline, log.of) if r.role == "solver"]
        reasons = {r.reason for r in said}
        inside = low - 1e-9 <= share <= high + 1e-9
        assert ("curriculum" not in reasons) == inside, (votes, said)
        if not inside:
            assert f"hard_consistency {share:.4g} outside [{low:g}, {high:g}]" in said[0].detail


def test_a_run_with_a_curriculum_is_rebuilt_and_trained_again_as_it_was(
    tiny_folder: Path, tmp_path: Path
) -> None:
    run = learned(tmp_path / "run", tiny_folder, [*WIDE, FASTER], trees=12, kind=Lagging)
    refused = [e for e in events_of(run) if isinstance(e, GroupRejected)]
    assert any(e.reason == "curriculum" for e in refused)
    assert sum(step.role == "solver" for step in steps_of(run)) >= 1
    told = json.loads(mmzero("replay", run, "--audit", "--json").stdout)
    assert told["audit"]["clean"] and told["rebuilt"]["differences"] == []
    assert mmzero("replay", run, "--train").exit_code == 0
    other = FASTER.replace("[0.5, 0.8]", "[0.8, 0.9]")
    what_if = mmzero("replay", run, "--step", "1", "--what-if", "--json", other)
    assert what_if.exit_code == 0
    assert "curriculum" in json.loads(what_if.stdout)["window"]["would_be_out"].values()


# --- from a checkpoint ----------------------------------------------------------------------------


def adapter(run: Path, version: int, role: Role = "solver") -> checkpoint.Loaded:
    return checkpoint.read(run, checkpoint.relative_folder(role, version))


def test_a_run_s_folder_gives_its_newest_committed_version(run: Path) -> None:
    reader = LogReader.open(run / "log")
    digest = reader.get(0).event().base_digest  # type: ignore[union-attr]
    reader.close()
    found = source_of(run, "solver", digest)
    newest = [step for step in steps_of(run) if step.role == "solver"][-1]
    assert (found.run, found.saved.digest) == (run, newest.digest)
    one = source_of(run / "checkpoints/solver/000002", "solver", digest)
    assert adapter(one.run, 2).digest == checkpoint.read(one.run, one.saved.checkpoint).digest
    for place in (run, run / "checkpoints/solver/000002"):
        with pytest.raises(
            LearnerError, match=rf"was trained from base {digest[:16]} .*name a run of the same"
        ):
            source_of(place, "solver", "another")
    with pytest.raises(LearnerError, match="neither a run's folder nor that of a version"):
        source_of(run / "checkpoints", "solver", digest)


def test_a_place_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path) -> None:
    config = load(overrides=["schedule.start.coder=/nowhere/at/all"])
    with pytest.raises(ConfigError, match=r"schedule\.start\.coder: there is no folder /nowhere"):
        open_run(tmp_path / "run", config)


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
