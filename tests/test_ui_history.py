"""What the dashboard remembers of a run of any length: bounded, and no weight is lost."""

import math

import pytest
from builders import coded, proposed, records, rendered, run_started, whole_tree
from hypothesis import given
from hypothesis import strategies as st
from log_builders import rewarded, step
from test_flow import hand
from ui_rig import CONFIG, ordinary

from mmzero_async.ops.ui.attendance import MOST, Attendance, Worker, seen
from mmzero_async.ops.ui.history import MOST_INFORMATIVE, NOTES, History
from mmzero_async.ops.ui.moments import moments
from mmzero_async.ops.ui.series import BINS, Rate, Table, Thinned
from mmzero_async.schemas.events import (
    Event,
    GroupRejected,
    StepCommitted,
    WorkerFailed,
    WorkerJoined,
    WorkerLeft,
)

FIGURE = st.floats(-1e6, 1e6)


def fed(events: list[Event]) -> History:
    history = History()
    for record in records(events):
        history.apply(record)
    return history


@given(st.lists(st.one_of(FIGURE, st.just(math.nan), st.just(math.inf)), max_size=120))
def test_a_table_stays_small_and_its_weighted_mean_is_that_of_all_steps(
    values: list[float],
) -> None:
    table = Table(rows=8, columns=2)
    table.add(0, 0, {"x": 0.0, "y": 0.0})
    for i, value in enumerate(values):
        table.add(i + 1, i, {"x": value} if i % 3 else {"x": value, "y": 1.0, "left out": 2.0})
    assert len(table.rows) <= 8
    assert all(row.steps == table.stride for row in table.rows[:-1])
    columns = table.figures()
    assert set(columns) <= {"step", "offset", "x", "y"}
    assert len({len(column) for column in columns.values()}) <= 1
    assert columns["step"] == sorted(columns["step"])
    assert sum(row.steps for row in table.rows) == 1 + len(values)
    finite = [value for value in values if math.isfinite(value)]
    assert sum(row.sums.get("x", 0.0) for row in table.rows) == pytest.approx(sum(finite), abs=1e-3)
    assert sum(row.counts.get("x", 0) for row in table.rows) == 1 + len(finite)
    assert columns["step"][-1] == len(values)  # the newest step is always on the chart


@given(st.lists(st.integers(0, 10**9), max_size=80))
def test_a_rate_counts_everything_in_at_most_so_many_bins_whatever_the_clock_does(
    times: list[int],
) -> None:
    rate = Rate()
    for moment in times:
        rate.add(moment)
    _, width, bins = rate.bins()
    assert rate.total == len(times) == sum(bins)
    assert len(bins) <= BINS and (width == 1 or math.log2(width).is_integer())
    assert rate.a_minute(max(times, default=0)) <= len(times)


def test_the_rate_of_the_last_minute_is_that_of_its_sixty_seconds() -> None:
    rate = Rate()
    for moment in range(1000, 1100):
        rate.add(moment)
        rate.add(moment + 0.5)
    assert rate.a_minute(1099.9) == 120
    assert rate.a_minute(1129) == 2 * 30
    assert rate.a_minute(9999) == 0


@given(st.integers(0, 2000))
def test_moments_that_are_thinned_stay_in_order_and_keep_the_first(count: int) -> None:
    thinned = Thinned(most=16)
    for i in range(count):
        thinned.add(i, 10 * i)
    assert len(thinned.kept) <= 16 and thinned.kept == sorted(thinned.kept)
    assert count == 0 or thinned.kept[0] == (0, 0)
    assert all(offset == 10 * number for number, offset in thinned.kept)


@given(
    st.integers(0, 10_000),
    st.lists(st.integers(0, 10_000), max_size=6, unique=True).map(sorted),
)
def test_stretches_of_a_run_lie_within_it(end: int, begins: list[int]) -> None:
    named = [(i + 1, offset) for i, offset in enumerate(begins)]
    for one in moments(end, named, {"solver": named}):
        assert 0 <= one["after"] <= max(one["before"], one["after"])
        assert one["name"] and one["key"]
    assert bool(moments(end, [], {})) is (end > 0)


def test_curves_are_means_over_the_groups_of_a_step() -> None:
    groups = ["g0.s0.d0", "g0.s0.d1"]
    committed = step("solver", 1, groups)
    metrics = {"ess_share": 0.5, "not drawn": 1.0, "loss": math.nan}
    committed = StepCommitted(
        **{f: getattr(committed, f) for f in committed.__struct_fields__} | {"metrics": metrics}
    )
    tree = whole_tree("g0", proposals=1)
    history = fed([*tree, rewarded(groups[0], [1.0, 0.0]), rewarded(groups[1], [1.0]), committed])
    columns = history.curves()["roles"]["solver"]["columns"]
    assert columns["reward"] == [pytest.approx(2 / 3)]
    assert columns["term:x"] == [pytest.approx(2 / 3)]
    assert columns["ess_share"] == [0.5]
    assert "not drawn" not in columns and "loss" not in columns
    assert history.behind["answer"][-1] == 0


def test_render_success_counts_every_drawing_since_the_step_before() -> None:
    drawn = [rendered("g0.s0.d0", ok=False), rendered("g0.s0.d1")]
    begun = [proposed("g0", [True]), coded("g0.s0", [True, True])]
    history = fed([*begun, *drawn, step("coder", 1, ["g0.s0"])])
    assert history.curves()["roles"]["coder"]["columns"]["render_success"] == [0.5]
    assert history.renders == {"": 1, "invalid": 1}


def test_hard_consistency_is_that_of_every_question_answered_trained_on_or_not() -> None:
    split = whole_tree("g0", proposals=1, hard=["3", "4", "3.0", None])  # one answer, spelt twice
    agreed = whole_tree("g1", proposals=1, drawings=1, hard=["7"] * 4)
    silent = whole_tree("g2", proposals=1, drawings=1, hard=[None] * 4)
    rejected = GroupRejected(role="solver", group="g1.s0.d0", reason="consistency")
    groups = ["g0.s0.d0", "g0.s0.d1"]
    first = [*split, *agreed, *silent, rejected, step("solver", 1, groups)]
    history = fed([*first, *whole_tree("g3", proposals=1), step("solver", 2, ["g3.s0.d0"])])
    columns = history.curves()["roles"]["solver"]["columns"]
    assert columns["hard_consistency"] == [pytest.approx((0.5 + 0.5 + 1.0 + 0.0) / 4), 0.5]


def test_a_history_of_a_long_run_is_bounded() -> None:
    joined = [WorkerJoined(worker=f"w{i}", role="coder", host="h", pid=i) for i in range(MOST + 50)]
    history = fed([run_started(CONFIG, "r"), *ordinary(3 * MOST_INFORMATIVE // 2), *joined])
    assert len(history.informative) == MOST_INFORMATIVE == len(history.most_informative())
    assert len(history.notes) == NOTES
    assert len(history.attendance.workers) == MOST


# --- workers --------------------------------------------------------------------------------------


def attendance(*events: Event) -> list[Worker]:
    found = Attendance()
    for i, event in enumerate(events):
        found.apply(100.0 + i, event)
    return list(found.workers.values())


JOINED = WorkerJoined(worker="coder-0", role="coder", host="node1", pid=7)


def left(reason: str) -> WorkerLeft:
    return WorkerLeft(worker="coder-0", role="coder", reason=reason)


@pytest.mark.parametrize(
    ("events", "hands", "finished", "state", "bad"),
    [
        ([JOINED], [hand("coder-0", "coder")], False, "here", False),
        ([JOINED], [hand("coder-0", "coder", silent=2.4)], False, "here", False),
        ([JOINED], [hand("coder-0", "coder", silent=2.6)], False, "silent", True),
        ([JOINED], [], False, "lost", True),
        ([JOINED], None, False, "unknown", False),
        ([JOINED], None, True, "left", False),
        ([JOINED, left("silent")], [], False, "lost", True),
        ([JOINED, left("silent")], None, True, "lost", False),
        ([JOINED, left("goodbye")], [], False, "left", True),
        ([JOINED, left("goodbye")], None, True, "left", False),
        ([JOINED, left("silent"), JOINED], [hand("coder-0", "coder")], False, "here", False),
        ([], [hand("coder-0", "coder")], False, "here", False),
    ],
)
def test_a_worker_that_does_not_work_on_a_run_that_goes_on_is_bad(
    events, hands, finished, state, bad
) -> None:
    [worker] = seen(attendance(*events), hands, finished=finished, dead_seconds=4.0)
    assert (worker.worker, worker.state, worker.bad) == ("coder-0", state, bad)
    assert worker.told


def test_bad_workers_come_first_and_failures_are_counted() -> None:
    other = WorkerJoined(worker="a-0", role="solver", host="node1", pid=8)
    failed = WorkerFailed(worker="coder-0", role="coder", error="x" * 9999)
    workers = attendance(other, JOINED, failed, failed)
    hands = [hand("a-0", "solver"), hand("coder-0", "coder", silent=9.0)]
    first, second = seen(workers, hands, finished=False, dead_seconds=4.0)
    assert (first.worker, first.failures, second.worker) == ("coder-0", 2, "a-0")
    assert len(first.last_error) == 500
