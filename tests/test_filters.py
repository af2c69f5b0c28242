"""Filters: which groups are kept, and what is said of the others."""

import pytest
from reward_builders import FILTERS, answered, facts, proposal, rendered

from mmzero_async.config import FilterConfig
from mmzero_async.roles.facts import picture_facts, render_rate
from mmzero_async.roles.filters import (
    all_truncated,
    check,
    coder_bounds,
    solver_bounds,
    zero_variance,
)
from mmzero_async.schemas.events import Sample


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


def test_a_group_of_cut_samples_alone_is_refused_where_they_are_masked() -> None:
    def drawn(*reasons: str) -> list[Sample]:
        return [
            Sample(token_ids=b"", logprobs=b"", versions=[], text="", finish_reason=reason)
            for reason in reasons
        ]

    refused = all_truncated(drawn("length", "abort"))
    assert refused is not None and refused.reason == "truncated"
    assert all_truncated(drawn("length", "stop")) is None
