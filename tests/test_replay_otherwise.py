"""A finished log under other settings: one step beside itself, and the whole learner again."""

import json
from pathlib import Path

import msgspec
import pytest
from learned_run import LearnedRun, learned, mmzero

from mmzero_async.config import ConfigError
from mmzero_async.learner import checkpoint
from mmzero_async.learner.errors import LearnerError
from mmzero_async.log.reader import LogReader
from mmzero_async.schemas.events import ROLES, Event, Paced, StepCommitted


@pytest.fixture(scope="module")
def run(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learned(tmp_path_factory.mktemp("learned") / "run", tiny_folder)


def committed(run: Path) -> list[StepCommitted]:
    reader = LogReader.open(run / "log")
    events = [record.event() for record in reader.scan()]
    reader.close()
    return [event for event in events if isinstance(event, StepCommitted)]


def what_if(run: Path, *overrides: str, step: int = 2, role: str = "solver") -> dict:
    told = mmzero("replay", run, "--step", step, "--role", role, "--what-if", "--json", *overrides)
    assert told.exit_code == 0, told
    return json.loads(told.stdout)


def test_the_log_is_one_that_replays(run: Path) -> None:
    """Or nothing below would mean much."""
    assert {step.role for step in committed(run)} == set(ROLES)
    assert mmzero("replay", run, "--audit").exit_code == 0
    assert mmzero("replay", run, "--step", "2", "--role", "solver").exit_code == 0


# --- one step, otherwise --------------------------------------------------------------------------


def test_the_committed_side_is_the_committed_step(run: Path) -> None:
    found = what_if(run, "lora_alpha=8")  # as it is: nothing is otherwise
    step = next(s for s in committed(run) if (s.role, s.step) == ("solver", 2))
    assert found["same_bits_as_committed"] and found["settings"] == {}
    assert found["committed"] == found["other"]
    assert found["committed"]["weights_digest"] == step.digest
    assert found["committed"]["batch_digest"] == step.batch_digest
    assert {k: found["committed"][k] for k in step.metrics} == step.metrics
    assert found["window"]["would_be_in"] == found["window"]["would_be_out"] == {}
    assert found["groups_with_other_advantages"] == 0


def test_another_loss_changes_the_step_and_not_its_tensors(run: Path) -> None:
    found = what_if(run, "loss=dapo", "learner.loss_options.proximal=behaviour")
    assert found["settings"] == {
        "learner.loss": ["tis", "dapo"],
        "learner.loss_options.proximal": ["current", "behaviour"],
    }
    one, other = found["committed"], found["other"]
    assert one["batch_digest"] == other["batch_digest"]
    assert one["ratio_mean"] == other["ratio_mean"]
    assert one["weights_digest"] != other["weights_digest"]
    assert one["loss"] != other["loss"] and "share_clip_low" in other


def test_another_reward_is_scored_from_the_raw_events(run: Path) -> None:
    found = what_if(run, "solver.answer_weight=0.5", "scale_rewards=none")
    assert found["other"]["reward_mean"] < found["committed"]["reward_mean"]
    assert found["groups_with_other_advantages"] == found["groups"] == 2
    assert found["other"]["batch_digest"] != found["committed"]["batch_digest"]


def test_groups_that_lose_their_gradient_are_left_out_and_named(run: Path) -> None:
    refused = mmzero(
        *("replay", run, "--step", "2", "--what-if"),
        *("solver.answer_weight=0", "solver.format_weight=0"),
    )
    assert isinstance(refused.exception, LearnerError)
    assert "none of its 2 groups has a gradient (zero_variance" in str(refused.exception)


def test_other_filters_tell_who_would_have_been_in_and_who_out(run: Path) -> None:
    found = what_if(run, "filters.solver_hard_consistency=[0.0, 0.3]", step=1)
    assert found["committed"] == found["other"], "filters choose; they do not change the window"
    window = found["window"]
    assert set(window["would_be_out"].values()) == {"consistency"}
    closed = what_if(run, "filters.solver_hard_consistency=[0.9, 1.0]", step=1)["window"]
    assert len(closed["would_be_out"]) == 2
    open_ = what_if(
        run, "filters.solver_hard_consistency=[0.0, 1.0]", "learner.solver.groups=9", step=3
    )
    assert set(open_["window"]["would_be_in"].values()) <= {"consistency", "waiting"}
    assert open_["window"]["would_be_in"] and not open_["window"]["would_be_out"]


def test_it_is_told_side_by_side(run: Path) -> None:
    told = mmzero("replay", run, "--step", "2", "--what-if", "is_cap=1.5").stdout
    assert "taken again as committed: the same bits" in told
    assert "learner.is_cap = 1.5 instead of 2.0" in told
    (line,) = (text for text in told.splitlines() if text.startswith("grad_norm"))
    assert len(line.split()) == 3


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--step", "2", "--what-if"], "needs a step and what is to be otherwise"),
        (["--what-if", "loss=dapo"], "needs a step and what is to be otherwise"),
        (["--step", "2", "loss=dapo"], "only with --what-if, --train or --under"),
        (["--step", "2", "--what-if", "loss=ppo"], r"\$\.learner\.loss"),
        (["--step", "2", "--what-if", "lss=dapo"], "unknown field `lss`"),
        (["--step", "2", "--what-if", "loss_options.epsilon=0.1"], "unknown field"),
        (["--step", "2", "--what-if", "learner.loss_options.epsilon=0.1"], "is not read by"),
        (["--step", "2", "--what-if", "run.seed=1"], "run.seed cannot be otherwise"),
        (["--step", "2", "--what-if", "solver.hard_samples=4"], "cannot be otherwise"),
        (["--step", "2", "--what-if", "coder.sampling.top_p=0.5"], "cannot be otherwise"),
        (["--step", "2", "--what-if", "--role", "judge", "loss=dapo"], "choose one of"),
        (["--step", "99", "--what-if", "loss=dapo"], "the log has no solver step 99"),
    ],
)
def test_what_cannot_be_otherwise_is_refused(run: Path, arguments: list[str], word: str) -> None:
    refused = mmzero("replay", run, *arguments)
    with pytest.raises((ConfigError, LearnerError), match=word):
        raise refused.exception or AssertionError(refused.stdout)


# --- the whole learner ----------------------------------------------------------------------------


def trained(run: Path, *arguments: str | Path) -> tuple[list[dict], int]:
    told = mmzero("replay", run, "--train", "--json", *arguments)
    return [json.loads(line) for line in told.stdout.splitlines()], told.exit_code


def test_the_whole_learner_again_makes_every_committed_bit(run: Path, tmp_path: Path) -> None:
    steps, status = trained(run, "--out", tmp_path / "out")
    assert status == 0
    assert [(s["role"], s["step"], s["weights_digest"]) for s in steps] == [
        (s.role, s.step, s.digest) for s in committed(run)
    ]
    assert all(step["same"] for step in steps)
    for folder in sorted((run / "checkpoints").glob("*/*")):
        again = tmp_path / "out" / folder.relative_to(run)
        for file in folder.iterdir():
            assert (again / file.name).read_bytes() == file.read_bytes()
    # Trained, they are policies like any other.
    last = committed(run)[-1]
    assert checkpoint.read(tmp_path / "out", last.checkpoint, last.digest).adapter


def test_under_other_settings_it_goes_another_way_from_the_same_generations(
    run: Path, tmp_path: Path
) -> None:
    steps, status = trained(
        run, "--steps", "4", "--out", tmp_path / "out", "baseline=leave_one_out"
    )
    assert status == 0 and len(steps) == 4
    assert not any(step["same"] for step in steps)
    assert all(step["groups"] == 2 and not step["why_not"] for step in steps)
    frozen, _ = trained(run, "learner.coder.train=false", "learner.proposer.train=false")
    assert {s["role"] for s in frozen if not s["why_not"]} == {"solver"}
    assert all(s["same"] for s in frozen if s["role"] == "solver")
    starved, _ = trained(run, "filters.solver_hard_consistency=[0.99, 1.0]")
    assert {s["why_not"] for s in starved if s["role"] == "solver"} == {
        "0 groups of the 2 it needs"
    }


def test_a_line_a_step_says_what_came_out(run: Path) -> None:
    told = mmzero("replay", run, "--train", "--steps", "2").stdout.splitlines()
    assert len(told) == 3 and all("same bits" in line for line in told[:2])
    assert told[2] == "2 steps, 2 of them with the committed bits"


def test_versions_of_two_trainings_are_not_mixed(run: Path, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    refused = mmzero("replay", run, "--train", "--out", tmp_path)
    assert isinstance(refused.exception, ConfigError)
    assert "not an empty folder" in str(refused.exception)


class Lying(LearnedRun):
    """Commits other digests than its steps have."""

    def append(self, *events: Event) -> None:
        super().append(
            *(
                msgspec.structs.replace(event, digest="0" * 64)
                if isinstance(event, StepCommitted)
                else event
                for event in events
            )
        )


def test_a_step_that_is_not_the_committed_one_ends_with_a_failure(
    tiny_folder: Path, tmp_path: Path
) -> None:
    run = learned(tmp_path / "run", tiny_folder, kind=Lying, trees=2)
    told = mmzero("replay", run, "--train", "--steps", "1")
    assert told.exit_code == 1 and "OTHER" in told.stdout


# --- the pace -------------------------------------------------------------------------------------


class Straying(LearnedRun):
    """The first step of a role tells of few effective samples; `tell` may change decisions."""

    def also(self, number: int) -> dict[str, float]:
        return {"ess_share": 0.5 if number == 1 else 1.0}

    def append(self, *events: Event) -> None:
        super().append(*(told for event in events for told in self.tell(event)))

    def tell(self, event: Event) -> list[Event]:
        return [event]


class SilentOnPace(Straying):
    def tell(self, event: Event) -> list[Event]:
        return [] if isinstance(event, Paced) else [event]


class WrongOnPace(Straying):
    def tell(self, event: Event) -> list[Event]:
        return [msgspec.structs.replace(event, eta=3) if isinstance(event, Paced) else event]


GUARDED = ["admission.ess_floor=0.9", "admission.drift_ceiling=0", "admission.calm_steps=2"]


def test_a_guarded_run_replays_with_every_decision_on_its_pace(
    tiny_folder: Path, tmp_path: Path
) -> None:
    run = learned(tmp_path / "run", tiny_folder, GUARDED, kind=Straying)
    reader = LogReader.open(run / "log")
    decided = [e for record in reader.scan() if isinstance(e := record.event(), Paced)]
    reader.close()
    assert {(d.role, d.step, d.eta, d.before) for d in decided if d.step == 1} == {
        (role, 1, 2, 4) for role in ROLES
    }
    assert any(d.reason == "calm" for d in decided)
    told = mmzero("replay", run, "--audit")
    assert told.exit_code == 0 and "none differ" in told.stdout
    assert "times tightened" in told.stdout
    assert mmzero("replay", run, "--train").exit_code == 0


@pytest.mark.parametrize(
    ("kind", "word"),
    [(SilentOnPace, "the pace is None in the log, Paced("), (WrongOnPace, "eta=3")],
)
def test_a_pace_that_the_steps_do_not_call_for_is_found(
    tiny_folder: Path, tmp_path: Path, kind: type[LearnedRun], word: str
) -> None:
    run = learned(tmp_path / "run", tiny_folder, GUARDED, kind=kind, trees=3)
    told = mmzero("replay", run)
    assert told.exit_code == 1 and word in told.stdout
