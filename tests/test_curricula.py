"""A curriculum's bounds move with the version that answered; a run under one replays as it was."""

import json
from pathlib import Path

import msgspec
import pytest
from builders import whole_tree
from grown_log import SMALL, log_of
from learned_run import Lagging, events_of, learned, mmzero, steps_of
from test_projections import step

from mmzero_async.config import load
from mmzero_async.learner.windows import Candidates
from mmzero_async.schemas.events import GroupRejected

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
