"""Rewards and the facts they are made of: golden cases by hand, and what must always hold."""

from collections import Counter
from dataclasses import replace

import pytest
from builders import generation
from hypothesis import given
from hypothesis import strategies as st
from reward_builders import (
    CODER,
    PROPOSER,
    SOLVER,
    answered,
    facts,
    proposal,
    proposed,
    rendered,
)

from mmzero_async.config import CoderConfig, SolverConfig
from mmzero_async.roles.advantages import rewards_of
from mmzero_async.roles.coder import coder_terms
from mmzero_async.roles.diversity import BatchContext
from mmzero_async.roles.facts import PictureFacts, picture_facts, render_rate
from mmzero_async.roles.proposer import proposer_terms
from mmzero_async.roles.solver import solver_terms
from mmzero_async.schemas.events import Answered, AnswerOutcome, DrawingOutcome, Rendered

# --- facts ------------------------------------------------------------------------------------


def test_facts_of_a_picture_count_all_samples_answered_or_not() -> None:
    easy = answered("easy", "3", "three", "4", None)
    hard = answered("hard", "12", "12.0", "13", "12", "14", None, "13", "15")
    found = picture_facts(easy, hard, proposal())
    assert found.solvability == 2 / 4
    assert found.easy_consistency == 2 / 4
    assert found.hard_consistency == 3 / 8
    assert found.difficulty == 3 / 8
    assert found.silver == "12"


def test_a_majority_against_the_proposer_is_consistent_but_not_solvable() -> None:
    found = picture_facts(answered("easy", "4", "4"), answered("hard", "1", "1"), proposal())
    assert (found.solvability, found.easy_consistency) == (0.0, 1.0)
    assert (found.hard_consistency, found.difficulty) == (1.0, 0.0)


def test_without_any_answer_all_is_zero_and_there_is_no_silver_answer() -> None:
    found = picture_facts(answered("easy", None), answered("hard", None, None), proposal())
    assert found == PictureFacts(0.0, 0.0, 0.0, 0.0, None)


def test_shares_of_valid_answers_alone_where_that_is_asked_for() -> None:
    easy = answered("easy", "3", "three", "4", None)
    hard = answered("hard", "12", "12.0", "13", "None", "N/A", " unknown ", "", None)
    found = picture_facts(easy, hard, proposal(), "valid")
    assert found.solvability == 2 / 4, "that is a share of all in either reading"
    assert found.easy_consistency == 2 / 3
    assert (found.hard_consistency, found.silver) == (2 / 3, "12")
    assert found.difficulty == pytest.approx(1 / 3)
    none = answered("hard", "none", "none", "none", "12")
    assert picture_facts(easy, none, proposal()).silver == "none"
    assert picture_facts(easy, none, proposal(), "valid").hard_consistency == 1.0
    silent = picture_facts(easy, answered("hard", "none", None), proposal(), "valid")
    assert (silent.hard_consistency, silent.difficulty, silent.silver) == (0.0, 0.0, None)


def test_who_says_none_agrees_with_nobody_where_valid_answers_count() -> None:
    hard = answered("hard", "none", "none", "12", format_ok=False)
    assert rewards_of(solver_terms(hard, SOLVER)) == [0.9, 0.9, 0.0]
    assert rewards_of(solver_terms(hard, SolverConfig(consistency="valid"))) == [0.0, 0.0, 0.9]


# --- proposer ---------------------------------------------------------------------------------


def test_the_proposers_reward_worked_out_by_hand() -> None:
    group = proposed(proposal(), None, proposal(), proposal())
    per_sample: list[list[PictureFacts | None] | None] = [
        # (min(1, .5) + .25) + (.25 + .5) + failed + (.5 + 0), over 4; mean d = .25
        [facts(1.0, 0.75), facts(0.25, 0.5), None, facts(0.5, 1.0)],
        None,
        # .5 + .1 over 2; mean d over the one picture = .1 < .15
        [facts(0.8, 0.9), None],
        [None, None],
    ]
    context = BatchContext({"g1.s0": 0.05}, {"g1.s0": 0.2, "g1.s3": 0.5})
    terms = proposer_terms(group, per_sample, PROPOSER, context)
    assert rewards_of(terms) == pytest.approx([0.5 - 0.25, -1.0, 0.3 - 0.3, -0.5])
    assert terms[0] == pytest.approx(
        {
            "solvability": 1.25 / 4,
            "difficulty": 0.75 / 4,
            "low_difficulty": 0.0,
            "type_share": -0.05,
            "likeness": -0.2,
        }
    )
    assert terms[1] == {"unparseable": -1.0}
    assert terms[2]["low_difficulty"] == -0.3


def test_a_proposal_whose_drawings_all_failed_is_not_called_too_easy() -> None:
    (term,) = proposer_terms(proposed(proposal()), [[None, None]], PROPOSER, BatchContext())
    assert sum(term.values()) == 0.0


def test_the_mean_difficulty_is_over_the_pictures_and_the_limit_itself_is_hard_enough() -> None:
    for drawn, penalty in (
        ([facts(0.5, 0.8), None, None], 0.0),  # d = .2 over one picture, .07 over all drawings
        ([facts(0.5, 0.85), None], 0.0),  # d = .15 is not below .15
        ([facts(0.5, 0.86), facts(0.5, 0.86)], -0.3),
    ):
        (term,) = proposer_terms(proposed(proposal()), [list(drawn)], PROPOSER, BatchContext())
        assert term["low_difficulty"] == penalty


def test_solvability_over_the_cap_pays_no_more() -> None:
    rewards = [
        rewards_of(
            proposer_terms(proposed(proposal()), [[facts(s, 0.5)]], PROPOSER, BatchContext())
        )
        for s in (0.5, 0.75, 1.0)
    ]
    assert rewards == [[1.0]] * 3


shares = st.floats(0, 1)
pictures = st.lists(st.none() | st.builds(facts, shares, shares), min_size=1, max_size=8)


@given(pictures, st.randoms())
def test_a_proposals_reward_is_bounded_and_blind_to_the_order_of_drawings(
    drawn: list[PictureFacts | None], rng: object
) -> None:
    def reward(of: list[PictureFacts | None]) -> float:
        terms = proposer_terms(proposed(proposal()), [of], PROPOSER, BatchContext())
        return rewards_of(terms)[0]

    shuffled = list(drawn)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert reward(drawn) == pytest.approx(reward(shuffled))
    assert -0.3 <= reward(drawn) <= 1.0
    assert reward([*drawn, None]) <= max(0.0, reward(drawn)) + 1e-9


# --- coder ------------------------------------------------------------------------------------


def test_the_coders_reward_worked_out_by_hand() -> None:
    fine, none, other = (
        DrawingOutcome(svg="<svg/>"),
        DrawingOutcome(failure="no_code"),
        DrawingOutcome(failure="not_svg"),
    )
    terms = coder_terms(
        [fine, fine, fine, none, other, fine],
        [rendered(), rendered("invalid"), None, None, None, rendered()],
        [facts(0.75, 0.6), None, None, None, None, None],
        CODER,
    )
    # 1 + .75 + .4; -.1; -.1; -.1 - .05 - .5, at the floor; -.1 - .5, at the floor; unanswered
    assert rewards_of(terms) == pytest.approx([2.15, -0.1, -0.1, -0.5, -0.5, 1.0])


def test_the_other_difficulty_pays_for_any_answer() -> None:
    any_answer = CoderConfig(difficulty="any")
    drawn, picture = [DrawingOutcome(svg="<svg/>")], [rendered()]
    for fact, reward in ((facts(0.5, 1.0), 2.5), (facts(0.5, 0.0, silver=None), 1.5)):
        terms = coder_terms(drawn, list(picture), [fact], any_answer)
        assert rewards_of(terms) == pytest.approx([reward])


@given(st.sampled_from(["", "no_code", "not_svg"]), st.booleans(), shares, shares)
def test_a_coders_reward_is_bounded_and_pays_for_rendering(
    failure: str, drawn: bool, s: float, c: float
) -> None:
    outcome = DrawingOutcome(svg=None if failure else "<svg/>", failure=failure)
    shown = drawn and not failure
    (reward,) = rewards_of(
        coder_terms(
            [outcome],
            [rendered() if shown else None],
            [facts(s, c) if shown else None],
            CODER,
        )
    )
    assert (1.0 <= reward <= 2.5) if shown else (-0.5 <= reward < 0)


def test_what_failed_pays_and_the_floor_holds_the_sum() -> None:
    # With a lower floor: -.1 - .05 - .5 = -.65 without code, -.1 - .5 = -.6 with other code.
    deep = CoderConfig(floor=-2.0)
    outcomes = [DrawingOutcome(failure=failure) for failure in ("no_code", "not_svg")]
    terms = coder_terms(outcomes, [None, None], [None, None], deep)
    assert terms[0] == {"not_rendered": -0.1, "no_code": -0.05, "not_svg": -0.5}
    assert rewards_of(terms) == pytest.approx([-0.65, -0.6])
    floored = coder_terms(outcomes, [None, None], [None, None], CODER)
    assert [term["floor"] for term in floored] == pytest.approx([0.15, 0.1])


def test_a_picture_without_a_failure_but_without_a_blob_is_no_picture() -> None:
    nothing = Rendered(drawing="g1.s0.d0", renderer="r")
    assert render_rate([nothing, rendered(), None]) == pytest.approx(1 / 3)
    terms = coder_terms([DrawingOutcome(svg="<svg/>")], [nothing], [None], CODER)
    assert terms == [{"not_rendered": -0.1}]
    assert render_rate([]) == 0.0


def test_both_readings_of_difficulty_differ_where_all_agree() -> None:
    # All answers alike: min(1, 0) = 0 against 1 for any answer.
    drawn, picture, fact = [DrawingOutcome(svg="<svg/>")], [rendered()], [facts(0.5, 1.0)]
    by_min = coder_terms(drawn, list(picture), list(fact), CODER)
    by_any = coder_terms(drawn, list(picture), list(fact), CoderConfig(difficulty="any"))
    assert rewards_of(by_min) == pytest.approx([1.5])
    assert rewards_of(by_any) == pytest.approx([2.5])


# --- what must always hold --------------------------------------------------------------------

fully = st.lists(st.builds(facts, shares, shares), min_size=1, max_size=6)


@given(fully, st.data())
def test_more_solvability_or_difficulty_never_pays_less(
    drawn: list[PictureFacts], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(drawn) - 1))
    one = drawn[at]
    better = replace(
        one,
        solvability=data.draw(st.floats(one.solvability, 1)),
        difficulty=data.draw(st.floats(one.difficulty, 0.5)),
    )
    raised = [*drawn[:at], better, *drawn[at + 1 :]]

    def proposers(of: list[PictureFacts]) -> float:
        [terms] = proposer_terms(proposed(proposal()), [list(of)], PROPOSER, BatchContext())
        return sum(terms.values())

    def coders(of: list[PictureFacts]) -> list[float]:
        svgs = [DrawingOutcome(svg="<svg/>") for _ in of]
        return rewards_of(coder_terms(svgs, [rendered() for _ in of], list(of), CODER))

    assert proposers(raised) >= proposers(drawn) - 1e-12
    assert all(new >= old for new, old in zip(coders(raised), coders(drawn), strict=True))


@given(st.lists(st.none() | st.builds(facts, shares, shares), min_size=2, max_size=6), st.data())
def test_drawings_in_another_order_have_the_same_rewards(
    drawn: list[PictureFacts | None], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(drawn))))

    def coders(of: list[PictureFacts | None]) -> list[float]:
        outcomes = [
            DrawingOutcome(svg="<svg/>") if fact else DrawingOutcome(failure="no_code")
            for fact in of
        ]
        renders = [rendered() if fact else None for fact in of]
        return rewards_of(coder_terms(outcomes, renders, of, CODER))

    assert coders([drawn[i] for i in order]) == [coders(drawn)[i] for i in order]


@given(st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=8), st.data())
def test_answers_in_another_order_have_the_same_rewards(
    votes: list[str | None], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(votes))))
    shuffled = [votes[i] for i in order]
    plain = rewards_of(solver_terms(answered("hard", *votes), SOLVER))
    moved = rewards_of(solver_terms(answered("hard", *shuffled), SOLVER))
    assert moved == [plain[i] for i in order]
    same = [
        picture_facts(answered("easy", *of), answered("hard", *of), proposal())
        for of in (votes, shuffled)
    ]
    assert same[0] == same[1]


# --- solver -----------------------------------------------------------------------------------


def test_the_solvers_reward_worked_out_by_hand() -> None:
    outcomes = [
        AnswerOutcome(answer="12", format_ok=True),
        AnswerOutcome(answer="12.0", format_ok=False),
        AnswerOutcome(answer="13", format_ok=True),
        AnswerOutcome(answer="14", format_ok=False),
        AnswerOutcome(),
    ]
    hard = Answered(
        drawing="g1.s0.d0", question="hard", generation=generation("solver", []), outcomes=outcomes
    )
    assert rewards_of(solver_terms(hard, SOLVER)) == pytest.approx([1.0, 0.9, 0.1, 0.0, 0.0])


VOTES = st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=10)


@given(VOTES)
def test_the_solvers_reward_is_the_share_of_the_largest_camp(votes: list[str | None]) -> None:
    rewards = rewards_of(solver_terms(answered("hard", *votes, format_ok=False), SOLVER))
    camps = Counter(vote for vote in votes if vote is not None)
    assert sum(rewards) == pytest.approx(0.9 * max(camps.values(), default=0))
    assert all(reward == 0.0 for reward, vote in zip(rewards, votes, strict=True) if vote is None)
    paid = picture_facts(answered("easy"), answered("hard", *votes), proposal())
    assert paid.hard_consistency == max(camps.values(), default=0) / len(votes)
    assert paid.difficulty == min(paid.hard_consistency, 1 - paid.hard_consistency) <= 0.5


def test_when_nobody_answers_nobody_is_paid() -> None:
    assert rewards_of(solver_terms(answered("hard", None, None), SOLVER)) == [0.0, 0.0]
