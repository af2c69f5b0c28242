"""Projections tell from events alone what is due, what is complete, and whether all is well."""

import random

import builders
import msgspec
from builders import answered, coded, proposed, records, rendered, whole_tree
from hypothesis import given
from hypothesis import strategies as st

from mmzero_async.config import Config
from mmzero_async.projections.admission import open_groups
from mmzero_async.projections.audit import Audit
from mmzero_async.projections.dispatcher import PipelineDispatcher
from mmzero_async.projections.pipeline import Pipeline
from mmzero_async.projections.report import BusyTime, Report, wilson
from mmzero_async.schemas.events import (
    GroupRejected,
    PolicyPublished,
    WorkAbandoned,
)
from mmzero_async.schemas.ids import indices
from mmzero_async.schemas.work import STAGES, Work, work_key


def fed(events):
    pipeline = Pipeline()
    complete = []
    for offset, event in enumerate(events):
        complete += pipeline.apply(offset, event)[1]
    return pipeline, complete


def step(role, number, groups, version=None):
    return builders.step(role, number, groups, version, {"seconds": 0.5})


def publish_all():
    return [
        PolicyPublished(role=role, version=0, policy=f"{role}@0", checkpoint="c", digest="d")
        for role in ("proposer", "coder", "solver")
    ]


def test_each_group_is_reported_once_when_all_below_it_is_settled():
    pipeline, complete = fed(whole_tree("g0", proposals=2, drawings=2))
    assert [(c.role, c.id) for c in complete] == [
        ("solver", "g0.s0.d0"),
        ("solver", "g0.s0.d1"),
        ("coder", "g0.s0"),
        ("solver", "g0.s1.d0"),
        ("solver", "g0.s1.d1"),
        ("coder", "g0.s1"),
        ("proposer", "g0"),
    ]
    assert complete[-1].offsets == tuple(range(pipeline.next_offset))
    assert not pipeline.lineage.trees and not pipeline.lineage.open


def test_what_cannot_go_on_counts_as_settled():
    events = [
        proposed("g0", [True, False]),
        coded("g0.s0", [True, True, False]),
        rendered("g0.s0.d0", ok=False),
        rendered("g0.s0.d1"),
        WorkAbandoned(work=work_key("answer", "g0.s0.d1", "easy"), reason="poison", attempts=3),
    ]
    pipeline, complete = fed(events)
    assert [(c.role, c.id) for c in complete] == [("coder", "g0.s0"), ("proposer", "g0")]
    assert not pipeline.lineage.open
    late = answered("g0.s0.d1", "hard", ["3"])
    assert not pipeline.lineage.admits(late)


def counted(lineage):
    """Groups in the making, counted one by one."""
    proposals = [p for tree in lineage.trees.values() for p in tree.proposals if not p.settled]
    drawings = [d for p in proposals for d in p.drawings if not d.settled]
    return {"proposer": len(lineage.trees), "coder": len(proposals), "solver": len(drawings)}


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 3))
def test_any_order_that_respects_cause_completes_the_same_groups(seed, proposals, drawings):
    rng = random.Random(seed)
    dispatcher = PipelineDispatcher(Config())
    log = publish_all()
    for record in records(log):
        dispatcher.apply(record)
    trees = 3
    started = given_up = 0
    finished = set()
    while True:
        stage = rng.choice(STAGES)
        if stage == "propose" and started == trees:
            stage = None
        choices = [s for s in STAGES if s != "propose" or started < trees]
        work = None
        for s in rng.sample(choices, len(choices)):
            work = dispatcher.take(s)
            if work is not None:
                break
        if work is None:
            break
        if rng.random() < 0.2:  # the worker dies: the work falls due again
            dispatcher.give_back(work.key)
            continue
        if work.stage == "propose":
            started += 1
        if rng.random() < 0.1:
            event = WorkAbandoned(work=work.key, reason="poison", attempts=3)
            given_up += work.stage == "propose"
        elif work.stage == "propose":
            event = proposed(work.target, [rng.random() < 0.8 for _ in range(proposals)])
        elif work.stage == "code":
            event = coded(work.target, [rng.random() < 0.8 for _ in range(drawings)])
        elif work.stage == "render":
            event = rendered(work.target, rng.random() < 0.8)
        else:
            event = answered(work.target, work.question, ["1", "2"])
        assert dispatcher.admits(event)
        log.append(event)
        dispatcher.apply(records(log)[-1])
        assert not dispatcher.admits(event), "a second result for the same work"
        finished.add(work.key)
        assert open_groups(dispatcher.pipeline.lineage) == counted(dispatcher.pipeline.lineage)
    assert dispatcher.pipeline.lineage.trees == {}
    assert len(dispatcher.pipeline.book.ready["proposer"]) == trees - given_up
    again = PipelineDispatcher(Config())  # a restarted server knows the same
    for record in records(log):
        again.apply(record)
    assert again.pipeline.book.ready == dispatcher.pipeline.book.ready
    audit = Audit()
    for record in records(log):
        audit.apply(record)
    assert audit.clean, audit.problems


def test_work_names_the_published_policy_and_waits_for_it():
    dispatcher = PipelineDispatcher(Config())
    assert dispatcher.take("propose") is None
    for record in records(publish_all()):
        dispatcher.apply(record)
    work = dispatcher.take("propose")
    assert work.policy == "proposer@0" and work.target == "g0"
    assert dispatcher.take("propose").target == "g1"
    dispatcher.give_back(work.key)
    assert dispatcher.take("propose").target == "g0"
    assert work.seed == PipelineDispatcher(Config()).config.run.seed or work.seed > 0


def test_generation_pauses_when_it_is_too_far_ahead_and_goes_on_after_a_step():
    config = Config()
    learner = msgspec.structs.replace(
        config.learner,
        solver=msgspec.structs.replace(config.learner.solver, groups=1),
    )
    admission = msgspec.structs.replace(config.admission, eta=1)
    config = msgspec.structs.replace(config, learner=learner, admission=admission)
    dispatcher = PipelineDispatcher(config)
    log = [*publish_all(), *whole_tree("g0", proposals=1, drawings=2)]
    for record in records(log):
        dispatcher.apply(record)
    assert dispatcher.take("propose") is None
    log.append(step("solver", 1, ["g0.s0.d0"]))
    dispatcher.apply(records(log)[-1])
    assert dispatcher.take("propose").target == "g1"


def test_the_audit_finds_what_is_wrong():
    tree = whole_tree("g0", proposals=1, drawings=1)
    twice = [*tree, step("solver", 1, ["g0.s0.d0"]), step("solver", 2, ["g0.s0.d0"])]
    never = [*tree, step("solver", 1, ["g7.s0.d0"])]
    both = [
        *tree,
        step("coder", 1, ["g0.s0"]),
        GroupRejected(role="coder", group="g0.s0", reason="stale"),
    ]
    skipped = [*tree, step("solver", 2, ["g0.s0.d0"])]
    repeated = [*tree, tree[-1]]
    for log, word in (
        (twice, "before"),
        (never, "never complete"),
        (both, "before"),
        (skipped, "expected 1"),
        (repeated, "settled before"),
    ):
        audit = Audit()
        for record in records(log):
            audit.apply(record)
        assert any(word in problem for problem in audit.problems), (word, audit.problems)
    audit = Audit()
    for record in records([*tree, step("solver", 1, ["g0.s0.d0"])]):
        audit.apply(record)
    assert audit.clean
    assert audit.pending == {"proposer": 1, "coder": 1, "solver": 0}
    holed = records(tree)
    del holed[1]
    audit = Audit()
    try:
        for record in holed:
            audit.apply(record)
    except ValueError as error:
        assert "expected the event at offset 1" in str(error)
    assert not audit.clean


def test_the_report_counts_what_the_log_holds():
    report = Report()
    log = [*whole_tree("g0", proposals=2, drawings=2), step("solver", 1, ["g0.s0.d0"], version=3)]
    for record in records(log):
        report.apply(record)
    assert report.renders == {"": 4}
    assert report.tokens["solver"] == 4 * 8 * 3
    assert report.staleness["solver"] == [2]
    assert report.pipeline.policies.step["solver"] == 1
    assert report.learning.seconds == 0.5


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 10)), max_size=30))
def test_busy_time_is_the_length_of_the_union(spans):
    intervals = sorted(((a, a + b) for a, b in spans), key=lambda pair: pair[1])
    busy = BusyTime()
    for start, end in intervals:
        busy.add(start, end)
    covered = {t for a, b in intervals for t in range(a, b)}
    assert busy.seconds == len(covered)


def test_wilson_interval_matches_the_textbook():
    low, high = wilson(81, 263)
    assert abs(low - 0.2553) < 5e-4 and abs(high - 0.3662) < 5e-4


@given(st.integers(0, 999), st.integers(0, 9), st.integers(0, 9))
def test_ids_are_read_back(a, b, c):
    assert indices(f"g{a}.s{b}.d{c}") == (a, b, c)
    assert Work(stage="answer", target="g1.s0.d2", question="hard").key == "answer/g1.s0.d2/hard"
