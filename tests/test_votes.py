"""Counting votes: in any order the same, and the silver answer is the one most votes agree with."""

import itertools
import random
from collections import Counter

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmzero_async.roles.grading import count_votes, same_answer
from mmzero_async.roles.solver import agrees, tally

# Plain answers, and such as are the same as two that are not the same.
BRIDGES = ["3", "3 apples", "3 pears", "three", "50%", "50", "0.5", "1/2", "red", "the red", "A"]
ANSWERS = st.sampled_from(BRIDGES) | st.text("03.%/ acm-x", max_size=5)
VOTES = st.lists(ANSWERS, max_size=9)


@settings(deadline=None)
@given(ANSWERS, ANSWERS)
def test_sameness_is_symmetric_and_reflexive(a: str, b: str) -> None:
    assert same_answer(a, b) == same_answer(b, a)
    assert same_answer(a, a) == bool(a.strip())


@settings(deadline=None)
@given(VOTES, st.randoms(use_true_random=False))
@example(["3 pears", "3", "3 apples", "3 pears"], random.Random(1))
def test_a_count_does_not_depend_on_the_order_of_votes(
    votes: list[str], rng: random.Random
) -> None:
    shuffled = list(votes)
    rng.shuffle(shuffled)
    assert count_votes(shuffled) == count_votes(votes)
    assert tally([*shuffled, None]) == tally([None, *votes])


@settings(deadline=None)
@given(VOTES)
def test_every_vote_counts_once_and_the_first_has_all_that_agree_with_it(votes: list[str]) -> None:
    counted = count_votes(votes)
    assert sum(count for _, count in counted) == sum(bool(vote.strip()) for vote in votes)
    assert all(answer in votes for answer, _ in counted)
    if counted:
        silver, most = counted[0]
        assert most == sum(same_answer(vote, silver) for vote in votes)
        assert all(sum(same_answer(vote, other) for vote in votes) <= most for other in votes)
        assert [count for _, count in counted] == sorted((n for _, n in counted), reverse=True)


@settings(deadline=None)
@given(VOTES)
def test_consistency_is_the_share_that_the_solver_is_paid_for(votes: list[str]) -> None:
    found = tally(votes)
    paid = sum(agrees(vote, found.silver) for vote in votes)
    assert found.consistency == (paid / len(votes) if votes else 0.0)


@settings(deadline=None)
@given(VOTES)
def test_of_two_answers_counted_apart_neither_is_the_first_ones_like(votes: list[str]) -> None:
    counted = [answer for answer, _ in count_votes(votes)]
    for one, two in itertools.combinations(counted, 2):
        assert not same_answer(one, two)


def test_an_answer_that_is_like_two_others_brings_them_together_by_the_rule() -> None:
    # All five agree with "3", two or three with each of the others.
    votes = ["3 apples", "3 apples", "3 pears", "3 pears", "3"]
    for order in set(itertools.permutations(votes)):
        assert count_votes(order) == (("3", 5),)
    # Without it they are apart, whatever comes first.
    assert Counter(dict(count_votes(["3 pears", "3 apples", "3 apples"]))) == {
        "3 apples": 2,
        "3 pears": 1,
    }


def test_what_many_wrote_goes_before_what_as_many_agree_with() -> None:
    # Two agree with "7 bars" and two with "7": both have three, "7" was given more often.
    assert count_votes(["7 bars", "7", "7"]) == (("7", 3),)
    assert count_votes(["7 bars", "7 bars", "7"]) == (("7 bars", 3),)


def test_an_answer_is_shown_as_it_was_most_often_written() -> None:
    assert count_votes(["seven", "7.0", "seven", "7"]) == (("seven", 4),)
    assert count_votes(["seven", "7.0", "7"]) == (("7", 3),)


def test_lots_favour_no_answer() -> None:
    """Two against two: over many questions each answer wins about half of the draws."""
    wins = sum(
        count_votes([str(n), str(n), str(n + 1), str(n + 1)])[0][0] == str(n) for n in range(400)
    )
    assert 150 < wins < 250
    # And of one pair too, with other votes beside it: no answer is lucky in itself.
    lucky = sum(
        count_votes(["red", "red", "blue", "blue", str(n)])[0][0] == "red" for n in range(400)
    )
    assert 150 < lucky < 250
