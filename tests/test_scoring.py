"""From the events of a complete group to its rewards, advantages and facts, worked out by hand."""

import random

import pytest
from builders import coded, proposed, rendered
from grown_log import CONFIG, SMALL, Log, picture, varied_tree

from mmzero_async.config import load
from mmzero_async.learner.scoring import Members, Scored, score
from mmzero_async.roles.diversity import BatchContext
from mmzero_async.roles.filters import Rejection
from mmzero_async.schemas.events import WorkAbandoned


def test_a_solver_group_is_scored_by_hand() -> None:
    scored = Log(varied_tree()).score("solver", "g0.s0.d0")
    assert isinstance(scored, Scored)
    # silver 3: two right and two wrong, all in the format
    assert scored.rewards == pytest.approx([1.0, 1.0, 0.1, 0.1])
    # mean .55, deviation sqrt(4 * .45^2 / 3) = .519615
    assert scored.advantages == pytest.approx([0.45 / 0.519715] * 2 + [-0.45 / 0.519715] * 2)
    assert scored.facts == {
        "solvability": 0.75,
        "easy_consistency": 0.75,
        "hard_consistency": 0.5,
        "difficulty": 0.5,
        "agreement": 1.0,
    }
    assert scored.generation.role == "solver"


def test_a_coder_group_is_scored_by_hand() -> None:
    scored = Log(varied_tree()).score("coder", "g0.s0")
    assert isinstance(scored, Scored)
    # 1 + .75 + .5; 1 + .25 + 0; not rendered; no code: -.1 - .05 - .5, at the floor
    assert scored.rewards == pytest.approx([2.25, 1.25, -0.1, -0.5])
    assert scored.facts == {"render_rate": 0.5}
    assert [sum(terms.values()) for terms in scored.terms] == pytest.approx(scored.rewards)


def test_a_proposer_group_is_scored_by_hand() -> None:
    scored = Log(varied_tree()).score("proposer", "g0")
    assert isinstance(scored, Scored)
    # (.5 + .5 + .25 + 0) / 4, mean d = .25; no picture at all; unparseable
    assert scored.rewards == pytest.approx([1.25 / 4, 0.0, -1.0])
    assert scored.facts == pytest.approx({"parsed": 2 / 3})
    assert scored.batch().rewards == scored.rewards
    assert scored.batch().offsets == tuple(range(10))


def test_advantages_without_a_scale_are_the_distance_from_the_mean() -> None:
    config = load(overrides=[*SMALL, "learner.scale_rewards=none"])
    scored = Log(varied_tree()).score("solver", "g0.s0.d0", config)
    assert isinstance(scored, Scored)
    assert scored.advantages == pytest.approx([0.45, 0.45, -0.45, -0.45])


def test_a_picture_that_was_given_up_on_still_pays_the_coder_for_rendering() -> None:
    log = Log(
        [
            proposed("g0", [True]),
            coded("g0.s0", [True, True]),
            *picture("g0.s0.d0", ["4", "4"], ["3", "5"]),
            rendered("g0.s0.d1"),
            WorkAbandoned(work="answer/g0.s0.d1/easy", reason="poison", attempts=3),
        ]
    )
    scored = log.score("coder", "g0.s0")
    assert isinstance(scored, Scored)
    assert scored.rewards == pytest.approx([2.5, 1.0])  # 1 + 1 + .5; 1
    alone = log.score("proposer", "g0")
    assert isinstance(alone, Rejection) and alone.reason == "zero_variance"


def test_an_abandoned_proposal_earns_nothing_and_loses_nothing() -> None:
    log = Log(
        [
            proposed("g0", [True, True]),
            WorkAbandoned(work="code/g0.s1", reason="poison", attempts=3),
            coded("g0.s0", [True]),
            *picture("g0.s0.d0", ["4", "4"], ["3", "5"]),
        ]
    )
    scored = log.score("proposer", "g0")
    assert isinstance(scored, Scored)
    assert scored.rewards == pytest.approx([1.0, 0.0])


def test_penalties_of_the_batch_are_taken_off_the_proposals_that_they_name() -> None:
    log = Log(varied_tree())
    found = log.ready("proposer", "g0")
    context = BatchContext({"g0.s0": 0.05}, {"g0.s1": 0.2})
    scored = score(found, log.of(found), CONFIG, context)
    assert isinstance(scored, Scored)
    assert scored.rewards == pytest.approx([1.25 / 4 - 0.05, -0.2, -1.0])


@pytest.mark.parametrize("missing", ["proposed", "coded", "answered"])
def test_a_group_whose_events_are_missing_is_incomplete(missing: str) -> None:
    log = Log(varied_tree())
    group = log.ready(
        "solver" if missing == "answered" else "coder", "g0.s0" + ".d0" * (missing == "answered")
    )
    events = [e for e in log.of(group) if type(e).__name__.lower() != missing]
    verdict = score(group, events, CONFIG)
    assert isinstance(verdict, Rejection) and verdict.reason == "incomplete"


def test_a_prompt_without_any_sample_is_refused_and_breaks_nothing() -> None:
    log = Log([proposed("g0", [])])
    verdict = log.score("proposer", "g0")
    assert isinstance(verdict, Rejection) and verdict.reason == "zero_variance"


def test_members_are_found_whatever_the_order_of_events() -> None:
    events = varied_tree()
    random.Random(3).shuffle(events)
    members, ordered = Members.of(events), Members.of(varied_tree())
    assert members == ordered
    assert members.drawings("g0.s0") == ["g0.s0.d0", "g0.s0.d1", "g0.s0.d2", "g0.s0.d3"]
    assert members.drawings("g0.s2") == []
    assert members.facts("g0.s0.d2") is None
