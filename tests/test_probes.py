"""Blind probes: chosen by the seed, asked when nobody else is, waited for only when they pay."""

import random
from pathlib import Path

import pytest
from builders import answered, coded, probed, proposed, records, rendered, run_started, whole_tree
from fake_engine import FakeEngine
from grown_log import SMALL, Log
from hypothesis import given
from hypothesis import strategies as st
from test_cli import PICTURE, mmzero, write_run

from mmzero_async import telemetry
from mmzero_async.config import Config, load
from mmzero_async.learner.scoring import Scored
from mmzero_async.log.reader import LogReader
from mmzero_async.projections import probes
from mmzero_async.projections.audit import Audit
from mmzero_async.projections.dispatcher import PipelineDispatcher
from mmzero_async.projections.lineage import CompleteGroup
from mmzero_async.projections.report import Report
from mmzero_async.projections.retention import needed_pictures
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import (
    AnyEvent,
    Event,
    GroupRejected,
    PolicyPublished,
    Probed,
    Rendered,
    RunStarted,
    WorkAbandoned,
)
from mmzero_async.schemas.work import STAGES, Work, work_key
from mmzero_async.transport.client import Lease
from mmzero_async.workers.loop import Setting
from mmzero_async.workers.solver import solving

ALWAYS = [*SMALL, "probe.share=1.0"]
PAYING = [*ALWAYS, "probe.penalty=0.5"]


def started(overrides: list[str], seed: int = 7) -> RunStarted:
    config = load(overrides=[*overrides, f"run.seed={seed}"])
    return run_started(config, "r")


def published() -> list[Event]:
    return [
        PolicyPublished(role=role, version=3, policy=f"{role}@3", checkpoint="c", digest="d")
        for role in ("proposer", "coder", "solver")
    ]


def fed(events: list[Event]) -> tuple[PipelineDispatcher, list[CompleteGroup]]:
    dispatcher, complete = PipelineDispatcher(Config()), []
    book = dispatcher.pipeline.book
    known: set[tuple[str, str]] = set()
    for record in records(events):
        dispatcher.apply(record)
        for role, groups in book.ready.items():
            complete += [g for g in groups.values() if (role, g.id) not in known]
            known |= {(role, g) for g in groups}
    return dispatcher, complete


def waiting(dispatcher: PipelineDispatcher) -> list[Work]:
    return [work for work in dispatcher.pipeline.lineage.open.values() if work.blind]


def test_without_a_penalty_probes_change_nothing_about_any_group() -> None:
    tree = whole_tree("g0", proposals=2, drawings=2)
    _, usual = fed([started([*SMALL, "probe.share=0"]), *tree])
    dispatcher, probing = fed([started(ALWAYS), *tree])
    assert probing == usual and len(usual) == 7
    due = waiting(dispatcher)
    assert {work.key for work in due} == {
        f"answer/g0.s{i}.d{j}/{question}/blind"
        for i in range(2)
        for j in range(2)
        for question in ("easy", "hard")
    }
    assert {tuple(w.answers) for w in due if w.question == "hard"} == {("3", "3", "11", "4")}
    assert not dispatcher.pipeline.lineage.trees


def test_a_probe_is_asked_when_nothing_else_is_to_be_answered_and_settles_once() -> None:
    first = [rendered("g0.s0.d0"), answered("g0.s0.d0", "easy", ["4"])]
    log = [started(ALWAYS), *published(), proposed("g0", [True]), coded("g0.s0", [True]), *first]
    dispatcher, _ = fed(log)
    hard = dispatcher.take("answer")
    assert hard is not None and hard.question == "hard" and not hard.blind
    probe = dispatcher.take("answer")
    assert probe is not None and probe.key == "answer/g0.s0.d0/easy/blind"
    assert probe.policy == "solver@3" and probe.seed not in (0, hard.seed)
    assert dispatcher.take("answer") is None
    dispatcher.give_back(probe.key)
    assert dispatcher.take("answer") == probe
    event = probed("g0.s0.d0", "easy", ["4"])
    assert dispatcher.admits(event)
    dispatcher.apply(records([*log, event])[-1])
    assert not dispatcher.admits(event) and not waiting(dispatcher)


def test_with_a_penalty_the_group_waits_and_the_proposer_pays_for_what_agrees() -> None:
    tree = whole_tree("g0", proposals=1, drawings=1)
    log = Log([started(PAYING), *tree])
    assert not log.pipeline.book.ready["solver"]
    log.add(probed("g0.s0.d0", "easy", ["4", "4"]))
    assert not log.pipeline.book.ready["solver"]
    log.add(probed("g0.s0.d0", "hard", ["3", "three", "8", None]))
    group = log.ready("proposer", "g0")
    assert group.offsets == tuple(range(1, 8)) and log.ready("solver", "g0.s0.d0")
    log.add(*(e for e in whole_tree("g1", proposals=2, drawings=1)))
    for drawing in ("g1.s0.d0", "g1.s1.d0"):
        log.add(probed(drawing, "easy", ["1"]))
        log.add(probed(drawing, "hard", ["3"] if drawing == "g1.s0.d0" else ["3", "8"]))
    scored = log.score("proposer", "g1", load(overrides=PAYING))
    assert isinstance(scored, Scored)
    assert [terms["blind"] for terms in scored.terms] == [-0.5, -0.25]
    assert scored.rewards[1] - scored.rewards[0] == pytest.approx(0.25)
    free = log.score("proposer", "g1", load(overrides=ALWAYS))
    assert not isinstance(free, Scored)  # without the term both proposals earn the same


@pytest.mark.parametrize("overrides", [ALWAYS, PAYING])
def test_a_probe_that_is_given_up_on_holds_nobody_up(overrides: list[str]) -> None:
    gone = [
        WorkAbandoned(
            work=work_key("answer", "g0.s0.d0", question, blind=True), reason="x", attempts=3
        )
        for question in ("easy", "hard")
    ]
    tree = whole_tree("g0", proposals=1, drawings=1)
    dispatcher, complete = fed([started(overrides), *tree, *gone])
    assert {group.role for group in complete} == {"solver", "coder", "proposer"}
    assert not dispatcher.pipeline.lineage.open and not dispatcher.pipeline.lineage.trees
    assert dispatcher.pipeline.lineage.probes.open == 0


def test_a_question_that_is_given_up_on_takes_the_awaited_probe_with_it() -> None:
    tree = whole_tree("g0", proposals=1, drawings=1)[:-1]  # easy is answered, hard is not
    log = [started(PAYING), *tree]
    assert [work.question for work in waiting(fed(log)[0])] == ["easy"]
    gone = WorkAbandoned(work="answer/g0.s0.d0/hard", reason="x", attempts=3)
    dispatcher, complete = fed([*log, gone])
    assert {group.role for group in complete} == {"coder", "proposer"}
    assert not dispatcher.pipeline.lineage.open
    assert not dispatcher.pipeline.lineage.admits(probed("g0.s0.d0", "easy", ["4"]))


def chosen(share: float, seed: int, groups: int = 40) -> set[str]:
    events: list[Event] = [started([*SMALL, f"probe.share={share}"], seed)]
    for g in range(groups):
        events += whole_tree(f"g{g}", proposals=1, drawings=1)
    return {work.key for work in waiting(fed(events)[0])}


def test_the_seed_chooses_and_a_larger_share_keeps_what_a_smaller_one_chose() -> None:
    few, some, other = chosen(0.1, 7), chosen(0.5, 7), chosen(0.5, 8)
    assert few < some and some == chosen(0.5, 7) and some != other
    assert 25 <= len(some) <= 55 and 1 <= len(few) <= 20  # of 80 questions
    assert chosen(0.0, 7) == set()


def test_probes_that_wait_are_bounded() -> None:
    groups = probes.MAX_OPEN // 2 + 5
    assert len(chosen(1.0, 7, groups)) == probes.MAX_OPEN


@pytest.mark.parametrize("without", ["none", "other", "either"])
def test_what_is_shown_instead_is_nothing_or_a_picture_of_another_proposal(without: str) -> None:
    events: list[Event] = [started([*ALWAYS, f"probe.without={without}"])]
    digests = {}
    for g in range(12):
        for event in whole_tree(f"g{g}", proposals=1, drawings=2):
            if isinstance(event, Rendered):
                digests[event.drawing] = f"{len(digests):064x}"
                event = Rendered(
                    drawing=event.drawing, renderer="t", picture=digests[event.drawing]
                )
            events.append(event)
    due = waiting(fed(events)[0])
    own = {d: {digests[f"{d[:-1]}0"], digests[f"{d[:-1]}1"]} for d in digests}
    assert all(work.picture not in own[work.target] for work in due)
    shown = [work.blind for work in due if not work.target.startswith("g0.")]
    assert set(shown) == ({without} if without != "either" else {"none", "other"})
    assert all(bool(work.picture) == (work.blind == "other") for work in due)
    assert all(work.blind == "none" for work in due if work.target == "g0.s0.d0")  # no other yet
    if without != "none":
        assert len({work.picture for work in due}) > 5


@given(st.integers(0, 2**32), st.sampled_from([ALWAYS, PAYING, [*PAYING, "probe.share=0.4"]]))
def test_any_order_that_respects_cause_completes_all_groups_and_probes(
    seed: int, overrides: list[str]
) -> None:
    rng = random.Random(seed)
    log: list[Event] = [started(overrides), *published()]
    dispatcher, _ = fed(log)
    begun = 0
    while True:
        ready = [s for s in STAGES if s != "propose" or begun < 3]
        taken = (dispatcher.take(stage) for stage in rng.sample(ready, len(ready)))
        work = next((work for work in taken if work is not None), None)
        if work is None:
            break
        event: AnyEvent
        if rng.random() < 0.2:
            dispatcher.give_back(work.key)
            continue
        if work.stage == "propose":
            begun += 1
            event = proposed(work.target, [rng.random() < 0.8] * 2)
        elif rng.random() < 0.1:
            event = WorkAbandoned(work=work.key, reason="x", attempts=3)
        elif work.stage == "code":
            event = coded(work.target, [rng.random() < 0.8 for _ in range(2)])
        elif work.stage == "render":
            event = rendered(work.target, rng.random() < 0.8)
        elif work.blind:
            event = probed(work.target, work.question, ["1", "2"])
        else:
            event = answered(work.target, work.question, ["1", "2"])
        assert dispatcher.admits(event)
        log.append(event)
        dispatcher.apply(records(log)[-1])
        assert not dispatcher.admits(event)
    lineage = dispatcher.pipeline.lineage
    assert not lineage.trees and not lineage.open and lineage.probes.open == 0
    assert len(dispatcher.pipeline.book.ready["proposer"]) == 3
    audit = Audit()
    for record in records(log):
        audit.apply(record)
    assert audit.clean, audit.problems


# --- the worker -------------------------------------------------------------------------------


@pytest.mark.parametrize(("blind", "picture"), [("none", None), ("other", b"PNG")])
async def test_the_solver_asks_without_the_picture_and_holds_the_answers_against_it(
    tmp_path: Path, blind: str, picture: bytes | None
) -> None:
    work = Work(
        stage="answer",
        target="g0.s0.d0",
        proposal=proposed("g0", [True]).outcomes[0].proposal,
        question="hard",
        policy="solver@0",
        picture="ab" * 32 if picture else "",
        blind=blind,  # type: ignore[arg-type]
        answers=["3", "3", "11", None],
    )
    said = ["<think>a</think>\\boxed{3}", "<think>a</think>\\boxed{9}", "none", "\\boxed{three}"]
    async with FakeEngine(lambda messages, n: said[:n]) as engine:
        engine.adapters["solver@0"] = "x"
        config = load(overrides=["probe.samples=4"])
        logger = telemetry.configure(tmp_path, "solver-0", run="r", role="solver")
        setting = Setting(tmp_path, "solver-0", config, engine.url, logger)
        async with solving(setting) as job:
            result = await job(Lease(work, picture, 60.0))
        (request,) = engine.requests
    assert ("image_url" in str(request)) == (picture is not None)
    (event,) = result.events
    assert isinstance(event, Probed)
    assert (event.drawing, event.question, event.without) == ("g0.s0.d0", "hard", blind)
    assert (event.silver, event.sighted, event.agreed) == ("3", 0.5, 2)
    assert event.other == work.picture and len(event.outcomes) == 4
    assert event.generation.images == ([work.picture] if work.picture else [])


# --- what one sees of it ------------------------------------------------------------------------


def test_the_report_says_how_many_blind_answers_agree() -> None:
    report = Report()
    tree = whole_tree("g0", proposals=1, drawings=2)
    probing = [
        probed("g0.s0.d0", "hard", ["3", "3", "1", "2"]),
        probed("g0.s0.d1", "hard", ["3", None, "1", "2"]),
    ]
    for record in records([started(ALWAYS), *tree, *probing]):
        report.apply(record)
    (((question, without), blind),) = report.blind.items()
    assert (question, without) == ("hard", "other")
    assert (blind.questions, blind.answers, blind.agreed, blind.sighted) == (2, 8, 3, 1.0)
    assert report.tokens["solver"] == (2 * 8 + 2 * 4) * 3


def test_status_and_trace_tell_what_was_probed(tmp_path: Path) -> None:
    tree = whole_tree("g0", proposals=1, drawings=1)
    events = [*tree, probed("g0.s0.d0", "hard", ["3", "3", None, "2"])]
    run = write_run(tmp_path / "run", events, load(overrides=ALWAYS))
    status = mmzero("status", run).stdout
    assert "blind hard with another picture: 50.0% of 4 answers to 1 questions agree" in status
    told = mmzero("trace", run, "g0.s0.d0").stdout
    assert "probed   g0.s0.d0 hard with picture cdcdcdcdcdcd: 3, 3, -, 2; 2 of 4 agree" in told
    assert mmzero("replay", run, "--audit").returncode == 0


def test_a_picture_that_a_probe_is_to_show_is_not_dropped(tmp_path: Path) -> None:
    settled: list[Event] = []
    for g in range(2):
        groups = (("proposer", f"g{g}"), ("coder", f"g{g}.s0"), ("solver", f"g{g}.s0.d0"))
        settled += whole_tree(f"g{g}", proposals=1, drawings=1)
        settled += [GroupRejected(role=r, group=n, reason="stale") for r, n in groups]  # type: ignore[arg-type]
    for share, needed in ((0.0, set()), (1.0, {blob_digest(PICTURE)})):
        config = load(overrides=[f"probe.share={share}", "probe.without=other"])
        run = write_run(tmp_path / f"run{share}", settled, config)
        reader = LogReader.open(run / "log")
        assert needed_pictures(reader, 0) == needed
        reader.close()
