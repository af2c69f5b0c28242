"""A run that learns takes its turns, replays as it was, and starts where another one ended."""

import json
import random
from pathlib import Path

import pytest
from grown_log import SMALL, grown, log_of
from hypothesis import given, settings
from hypothesis import strategies as st
from learned_run import Lagging, events_of, learned, mmzero, steps_of
from test_projections import step

from mmzero_async.config import ConfigError, load
from mmzero_async.learner import checkpoint
from mmzero_async.learner.errors import LearnerError
from mmzero_async.learner.start import source_of
from mmzero_async.learner.windows import Candidates
from mmzero_async.log.reader import LogReader
from mmzero_async.ops.rundir import open_run
from mmzero_async.projections.pipeline import Pipeline
from mmzero_async.schemas.events import ROLES, Answered, Event, Role, StepCommitted


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
