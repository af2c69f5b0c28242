"""Rewards, filters and advantages: golden cases worked out by hand, and what must always hold."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmzero_async.config import CoderConfig, FilterConfig, ProposerConfig, SolverConfig
from mmzero_async.roles.advantages import group_advantages, rewards_of, window_advantages
from mmzero_async.roles.coder import coder_terms
from mmzero_async.roles.diversity import BatchContext
from mmzero_async.roles.facts import PictureFacts, picture_facts, render_rate
from mmzero_async.roles.filters import (
    all_truncated,
    check,
    coder_bounds,
    solver_bounds,
    zero_variance,
)
from mmzero_async.roles.proposer import proposer_terms
from mmzero_async.roles.solver import solver_terms
from mmzero_async.schemas.events import (
    Answered,
    AnswerOutcome,
    DrawingOutcome,
    Generation,
    Proposal,
    ProposalOutcome,
    Proposed,
    Question,
    Rendered,
    Role,
    Sample,
    Sampling,
)

PROPOSER, CODER, SOLVER, FILTERS = ProposerConfig(), CoderConfig(), SolverConfig(), FilterConfig()


def generation(role: Role) -> Generation:
    return Generation(
        role=role,
        policy="p",
        version=0,
        prompt_token_ids=b"",
        sampling=Sampling(temperature=1.0),
        template="t",
        samples=[],
    )


def proposal(caption: str = "Bars.", content_type: str = "data_chart", **changes: str) -> Proposal:
    values = {
        "easy_question": "How many bars?",
        "easy_answer": "3",
        "hard_question": "What is the sum of all bars?",
        "hard_answer": "12",
        **changes,
    }
    return Proposal(content_type=content_type, caption=caption, **values)


def proposed(*proposals: Proposal | None, group: str = "g1") -> Proposed:
    outcomes = [
        ProposalOutcome(proposal=p, failure="" if p else "missing:caption") for p in proposals
    ]
    return Proposed(
        group=group, topic="t", seed=1, generation=generation("proposer"), outcomes=outcomes
    )


def answered(question: Question, *answers: str | None, format_ok: bool = True) -> Answered:
    outcomes = [AnswerOutcome(answer=a, format_ok=format_ok and a is not None) for a in answers]
    return Answered(
        drawing="g1.s0.d0", question=question, generation=generation("solver"), outcomes=outcomes
    )


def facts(s: float, c: float, silver: str | None = "12") -> PictureFacts:
    return PictureFacts(
        solvability=s,
        easy_consistency=s,
        hard_consistency=c,
        difficulty=min(c, 1 - c),
        silver=silver,
    )


def rendered(failure: str = "") -> Rendered:
    picture = None if failure else "digest"
    return Rendered(drawing="g1.s0.d0", renderer="r", picture=picture, failure=failure)


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
        drawing="g1.s0.d0", question="hard", generation=generation("solver"), outcomes=outcomes
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


# --- filters ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("drawn", "reason"),
    [(0, "render_rate"), (1, None), (2, None), (3, None), (4, "render_rate")],
)
def test_a_coder_group_is_kept_when_some_but_not_all_drawings_render(
    drawn: int, reason: str | None
) -> None:
    renders = [rendered()] * drawn + [rendered("invalid"), None, None, None][: 4 - drawn]
    rejection = check(coder_bounds(FILTERS), {"render_rate": render_rate(renders)})
    assert (rejection.reason if rejection else None) == reason


@pytest.mark.parametrize(
    ("easy", "hard", "kept"),
    [
        (0.5, 0.25, True),
        (1.0, 0.75, True),
        (0.49, 0.5, False),
        (1.0, 0.24, False),
        (1.0, 0.76, False),
    ],
)
def test_a_solver_group_is_kept_when_the_picture_reads_and_the_question_is_open(
    easy: float, hard: float, kept: bool
) -> None:
    rejection = check(solver_bounds(FILTERS), facts(easy, hard).as_dict())
    assert (rejection is None) == kept
    assert rejection is None or (
        rejection.reason == "consistency" and "outside" in rejection.detail
    )


def test_a_label_that_the_proposer_does_not_share_is_kept_only_where_that_is_not_asked() -> None:
    """The proposer of these tests said 12."""
    shared = picture_facts(answered("easy", "3"), answered("hard", "12", "12.0", "9"), proposal())
    alone = picture_facts(answered("easy", "3"), answered("hard", "9", "9", "12"), proposal())
    assert (shared.agreement, alone.agreement) == (1.0, 0.0)
    asked = FilterConfig(solver_agreement=1.0)
    assert check(solver_bounds(asked), shared.as_dict()) is None
    rejection = check(solver_bounds(asked), alone.as_dict())
    assert rejection is not None and rejection.reason == "disagreement"
    assert check(solver_bounds(FilterConfig()), alone.as_dict()) is None


def test_a_fact_that_is_missing_is_said_to_be() -> None:
    rejection = check(coder_bounds(FILTERS), {})
    assert rejection is not None and rejection.reason == "incomplete"


def test_rewards_without_spread_are_rejected() -> None:
    for rewards in ([0.5, 0.5], [0.1 + 0.2, 0.3], [1.0], []):
        rejection = zero_variance(rewards)
        assert rejection is not None and rejection.reason == "zero_variance"
    assert zero_variance([0.0, 0.1]) is None


# --- advantages -------------------------------------------------------------------------------


def test_advantages_worked_out_by_hand() -> None:
    # mean 2, deviation with n - 1: sqrt((1 + 1) / 2) = 1
    assert group_advantages([1.0, 2.0, 3.0]) == pytest.approx([-1 / 1.0001, 0, 1 / 1.0001])
    assert group_advantages([1.0, 2.0, 3.0], "none") == pytest.approx([-1, 0, 1])
    assert group_advantages([5.0]).tolist() == [0.0]
    assert group_advantages([]).tolist() == []


def test_advantages_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch")
    rewards = torch.tensor([0.3, -1.0, 0.7, 0.7], dtype=torch.float64)
    theirs = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
    assert group_advantages(rewards.tolist()) == pytest.approx(theirs.tolist())


@given(st.lists(st.floats(-2, 3), min_size=2, max_size=12), st.floats(-5, 5))
def test_advantages_sum_to_nothing_and_ignore_a_shift(rewards: list[float], shift: float) -> None:
    advantages = group_advantages(rewards)
    assert advantages.dtype == np.float64
    assert advantages.sum() == pytest.approx(0, abs=1e-6)
    assert group_advantages([r + shift for r in rewards]) == pytest.approx(advantages, abs=1e-6)
    assert (np.diff(advantages[np.argsort(rewards)]) >= -1e-12).all()


@given(st.lists(st.floats(-2, 3), min_size=2, max_size=9), st.randoms(), st.floats(0.5, 4))
def test_advantages_follow_their_samples_and_ignore_a_scale(
    rewards: list[float], rng: object, scale: float
) -> None:
    order = list(range(len(rewards)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    for kind in ("group", "none"):
        advantages = group_advantages(rewards, kind)  # type: ignore[arg-type]
        shuffled = group_advantages([rewards[i] for i in order], kind)  # type: ignore[arg-type]
        assert shuffled == pytest.approx(advantages[order], abs=1e-9)
    if np.std(rewards) > 0.1:  # TRL's epsilon is all that a scale changes
        scaled = group_advantages([scale * r for r in rewards])
        assert scaled == pytest.approx(group_advantages(rewards), rel=2e-3, abs=1e-9)


def test_the_baseline_of_the_others_worked_out_by_hand() -> None:
    # 1 - (2 + 3) / 2, 2 - (1 + 3) / 2, 3 - (1 + 2) / 2
    alone = group_advantages([1.0, 2.0, 3.0], "none", "leave_one_out")
    assert alone == pytest.approx([-1.5, 0, 1.5])
    assert group_advantages([5.0], "none", "leave_one_out").tolist() == [0.0]


def test_one_deviation_for_the_whole_window_worked_out_by_hand() -> None:
    # rewards 0 2 | 4 4, mean 2.5, deviation sqrt((6.25 + .25 + 2.25 + 2.25) / 3) = 1.91485
    first, level = window_advantages([[0.0, 2.0], [4.0, 4.0]], "batch")
    assert first == pytest.approx([-1 / 1.91495, 1 / 1.91495], rel=1e-5)
    assert level.tolist() == [0.0, 0.0]
    # advantages -2 2 | 0 0, deviation sqrt(8 / 3) = 1.63299
    first, level = window_advantages([[0.0, 2.0], [4.0, 4.0]], "batch", "leave_one_out")
    assert first == pytest.approx([-2 / 1.63309, 2 / 1.63309], rel=1e-5)
    assert window_advantages([], "batch") == []
    assert [a.tolist() for a in window_advantages([[1.0]], "batch")] == [[0.0]]


@given(st.lists(st.lists(st.floats(-2, 3), min_size=2, max_size=6), min_size=1, max_size=5))
def test_a_window_s_scale_keeps_the_proportions_of_all_its_advantages(
    groups: list[list[float]],
) -> None:
    plain = np.concatenate(window_advantages(groups, "none"))
    scaled = np.concatenate(window_advantages(groups, "batch"))
    deviation = np.concatenate([np.asarray(g) for g in groups]).std(ddof=1) + 1e-4
    assert scaled * deviation == pytest.approx(plain, rel=1e-9, abs=1e-12)
    one_by_one = [group_advantages(group).tolist() for group in groups]
    assert [a.tolist() for a in window_advantages(groups)] == one_by_one


def test_a_group_of_cut_samples_alone_is_refused_where_they_are_masked() -> None:
    def drawn(*reasons: str) -> list[Sample]:
        return [
            Sample(token_ids=b"", logprobs=b"", versions=[], text="", finish_reason=reason)
            for reason in reasons
        ]

    refused = all_truncated(drawn("length", "abort"))
    assert refused is not None and refused.reason == "truncated"
    assert all_truncated(drawn("length", "stop")) is None
