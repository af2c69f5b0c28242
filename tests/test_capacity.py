"""The engines' capacity follows the backlog: what the log server's dispatcher hands out."""

import pytest
from builders import coded, proposed, records, rendered
from hypothesis import given
from hypothesis import strategies as st
from test_projections import publish_all

from mmzero_async.config import Config, ConfigError, load
from mmzero_async.projections.capacity import shares
from mmzero_async.projections.dispatcher import PipelineDispatcher
from mmzero_async.schemas.events import Event
from mmzero_async.schemas.work import STAGES, Stage, Work

ENGINES: tuple[Stage, ...] = ("propose", "code", "answer")


def config(capacity: int) -> Config:
    return load(overrides=[f"engine.capacity={capacity}", "admission.max_running_groups=3"])


def fed(events: list[Event], capacity: int) -> PipelineDispatcher:
    dispatcher = PipelineDispatcher(config(capacity))
    for record in records(events):
        dispatcher.apply(record)
    return dispatcher


def backlog(proposals: int, pictures: int) -> list[Event]:
    """So many proposals to be drawn, and pictures with two questions each to be answered."""
    events: list[Event] = [*publish_all(), proposed("g0", [True] * (proposals + 1))]
    events.append(coded(f"g0.s{proposals}", [True] * pictures))
    return [*events, *(rendered(f"g0.s{proposals}.d{i}") for i in range(pictures))]


def taken(dispatcher: PipelineDispatcher) -> dict[Stage, list[Work]]:
    """What hands without number are given, a piece a stage in turn."""
    found: dict[Stage, list[Work]] = {stage: [] for stage in STAGES}
    while True:
        some = [(stage, dispatcher.take(stage)) for stage in STAGES]
        if not any(work for _, work in some):
            return found
        for stage, work in some:
            if work is not None:
                found[stage].append(work)


@given(st.integers(0, 30), st.integers(1, 30), st.integers(3, 40))
def test_stages_are_given_their_shares_and_no_more_than_the_engines_carry(
    proposals: int, pictures: int, capacity: int
) -> None:
    found = {s: len(w) for s, w in taken(fed(backlog(proposals, pictures), capacity)).items()}
    assert sum(found[stage] for stage in ENGINES) <= capacity
    # Two more prompts may start, but a prompt is due only one at a time.
    least = shares({"propose": 1, "code": proposals, "answer": 2 * pictures}, capacity)
    assert found["propose"] >= min(1, least["propose"])
    for stage, work in (("code", proposals), ("answer", 2 * pictures)):
        assert found[stage] >= (1 if work else 0)
        assert abs(found[stage] - least[stage]) <= 2  # of the further prompt
    if capacity >= proposals + 2 * pictures + 2:
        assert (found["code"], found["answer"]) == (proposals, 2 * pictures), "none is left idle"


def test_a_result_or_a_lease_given_back_makes_room_for_the_stage_with_most_to_do() -> None:
    dispatcher = fed(backlog(proposals=8, pictures=1), capacity=5)
    found = taken(dispatcher)
    assert all(dispatcher.take(stage) is None for stage in STAGES)
    [first, *_] = found["code"]
    dispatcher.give_back(first.key)
    again = dispatcher.take("code")
    assert again is not None and again.key == first.key
    next_offset = dispatcher.pipeline.next_offset
    for record in records([*backlog(8, 1), coded(first.target, [False])])[next_offset:]:
        dispatcher.apply(record)
    assert dispatcher.take("code") is not None


def test_without_a_capacity_hands_alone_are_the_limit_and_pictures_are_drawn_in_any_case() -> None:
    found = taken(fed(backlog(proposals=20, pictures=9), capacity=0))
    assert (len(found["code"]), len(found["answer"])) == (20, 18)
    events = [*publish_all(), proposed("g0", [True]), coded("g0.s0", [True] * 9)]
    assert len(taken(fed(events, capacity=3))["render"]) == 9


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["engine.capacity=2"], "each of the three roles needs one request"),
        (["engine.count=2", "engine.url=http://a:1"], "leave engine.count out"),
        (["engine.in_flight_least=9", "engine.in_flight_most=8"], "is above engine.in_flight_most"),
        (["engine.tries=0"], "engine.tries"),
    ],
)
def test_a_pool_that_cannot_be_is_refused_with_what_to_do(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(overrides=overrides)
