"""Which engine, how much at once, whose share: properties of the pure decisions."""

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mmzero_async.engines.balance import (
    HUNGRY,
    STEP,
    Load,
    Not,
    Standing,
    adapted,
    carries,
    choose,
)
from mmzero_async.projections.capacity import shares

STANDINGS = st.lists(
    st.builds(
        Standing,
        up=st.booleans(),
        holds=st.booleans(),
        samples=st.integers(0, 40),
        tokens=st.integers(0, 4000),
        limit=st.floats(1, 40),
        tried=st.booleans(),
    ),
    min_size=1,
    max_size=6,
)
LOADS = st.builds(
    Load,
    running=st.floats(0, 64),
    waiting=st.floats(0, 200),
    preemptions=st.integers(0, 5).map(float),
    kv_cache_usage=st.floats(0, 1),
)


def has_room(it: Standing, samples: int) -> bool:
    return it.samples == 0 or it.samples + samples <= it.limit


@given(STANDINGS, st.integers(1, 16), st.integers(0, 100))
def test_a_request_goes_to_an_engine_that_is_up_holds_its_policy_and_has_room(
    standings: list[Standing], samples: int, turn: int
) -> None:
    chosen = choose(standings, samples, turn)
    able = [it for it in standings if it.up and it.holds]
    fresh = [it for it in able if not it.tried] or able
    match chosen:
        case int():
            it = standings[chosen]
            assert it in fresh and has_room(it, samples)
            assert it.tokens == min(o.tokens for o in fresh if has_room(o, samples))
        case Not.FREE:
            assert fresh and not any(has_room(it, samples) for it in fresh)
        case Not.HELD:
            assert not able and any(it.up for it in standings)
        case Not.UP:
            assert not any(it.up for it in standings)


@given(STANDINGS, st.integers(1, 16), st.integers(0, 100), st.integers(0, 5))
def test_an_engine_that_may_not_be_chosen_changes_nothing(
    standings: list[Standing], samples: int, turn: int, tokens: int
) -> None:
    """What is under way at an engine that is down is nobody's concern."""
    other = [it if it.up else replace(it, tokens=tokens, samples=0) for it in standings]
    assert choose(standings, samples, turn) == choose(other, samples, turn)


def test_equals_take_turns() -> None:
    idle = [Standing(up=True, holds=True, samples=0, tokens=0, limit=8.0)] * 3
    assert [choose(idle, 4, turn) for turn in range(6)] == [0, 1, 2, 0, 1, 2]


@given(
    limit=st.floats(4, 512),
    before=LOADS,
    now=LOADS,
    samples=st.integers(0, 600),
    held_back=st.booleans(),
)
def test_a_limit_shrinks_when_the_engine_is_congested_and_grows_when_it_held_somebody_back(
    limit: float, before: Load, now: Load, samples: int, held_back: bool
) -> None:
    after = adapted(limit, before, now, samples=samples, held_back=held_back, least=4.0, most=512.0)
    assert 4.0 <= after <= 512.0
    part = carries(before, now)
    assert 0 < part <= 1
    if part < 1:
        felt = 0 < samples <= limit
        assert after == (max(samples * part, 4.0) if felt else limit)
    elif held_back:
        assert after >= min(limit + STEP, 512.0)
        assert after <= min(max(limit + STEP, limit * HUNGRY), 512.0)
    else:
        assert after == limit


@given(
    st.lists(st.floats(8, 512), min_size=2, max_size=6),
    st.integers(32, 128),
)
def test_processes_that_share_an_engine_end_up_alike_and_it_is_neither_idle_nor_flooded(
    limits: list[float], slots: int
) -> None:
    """Each wants more than it may have, and knows its own limit and the engine's figures alone."""
    totals = []
    for _ in range(400):
        under_way = [math.floor(limit) for limit in limits]
        running = min(sum(under_way), slots)
        load = Load(running, sum(under_way) - running, 0.0, 0.0)
        totals.append(sum(under_way))
        limits = [
            adapted(limit, load, load, samples=n, held_back=True, least=1.0, most=512.0)
            for limit, n in zip(limits, under_way, strict=True)
        ]
    assert max(limits) <= 2 * min(limits)
    settled = totals[100:]
    assert max(settled) <= 2 * slots + len(limits) * STEP, "the queue there is as long as a batch"
    assert min(settled) >= slots, "it is kept full"


@given(LOADS, LOADS)
def test_a_queue_alone_never_costs_the_engine_its_full_batches(before: Load, now: Load) -> None:
    before, now = replace(before, preemptions=0.0), replace(now, preemptions=0.0, kv_cache_usage=0)
    load = now.running + now.waiting
    assert carries(before, now) * load >= min(load, now.running)
    assert carries(before, now) == 1 or now.waiting > now.running
    thrown_out = replace(now, preemptions=1.0)
    assert carries(before, thrown_out) == 0.5
    assert carries(before, replace(now, waiting=1.0, kv_cache_usage=1.0)) == 0.5


@given(st.floats(8, 64), st.integers(64, 128))
def test_what_others_leave_at_an_engine_is_soon_taken_up(limit: float, slots: int) -> None:
    looks = 0
    while limit < slots:
        load = Load(math.floor(limit), 0.0, 0.0, 0.0)
        limit = adapted(limit, load, load, samples=8, held_back=True, least=8.0, most=512.0)
        looks += 1
    assert looks <= 8


BACKLOGS = st.dictionaries(
    st.sampled_from(["propose", "code", "answer", "other"]), st.integers(0, 500), min_size=1
)


@given(BACKLOGS, st.integers(0, 300))
def test_shares_give_out_all_the_capacity_that_there_is_work_for(
    backlog: dict[str, int], capacity: int
) -> None:
    given_out = shares(backlog, capacity)
    assert given_out.keys() == backlog.keys()
    assert sum(given_out.values()) == min(capacity, sum(backlog.values()))
    assert all(0 <= given_out[key] <= backlog[key] for key in backlog)
    working = [key for key in backlog if backlog[key]]
    if capacity >= len(working):
        assert all(given_out[key] >= 1 for key in working)
    for one in backlog:
        for other in backlog:
            if backlog[one] > backlog[other]:
                assert given_out[one] >= given_out[other], "more work, no smaller share"


@given(st.lists(st.integers(1, 500), min_size=3, max_size=3), st.integers(3, 300))
def test_a_share_is_in_proportion_to_the_backlog(work: list[int], capacity: int) -> None:
    backlog = dict(zip("abc", work, strict=True))
    given_out = shares(backlog, capacity)
    total = sum(work)
    if capacity < total:
        for key in backlog:
            assert abs(given_out[key] - capacity * backlog[key] / total) <= 3
