"""From complete groups to windows: what is refused why, what is trained on, and in which order.

Windows are pure functions of events and configuration, so these tests feed events.
"""

from pathlib import Path

import msgspec
import pytest
from builders import PROPOSAL, coded, proposed, step, whole_tree
from grown_log import CONFIG, SMALL, Log, grown, picture, varied_tree
from hypothesis import given, settings
from hypothesis import strategies as st

from mmzero_async.config import ConfigError, load
from mmzero_async.filter_options import FACTS
from mmzero_async.learner.scoring import Scored
from mmzero_async.learner.windows import Candidates
from mmzero_async.roles.filters import Rejection
from mmzero_async.schemas.events import (
    Answered,
    Event,
    GroupRejected,
    ProposalOutcome,
    Proposed,
    Role,
)

# --- rejections -------------------------------------------------------------------------------


def test_every_refusal_is_an_event_with_its_reason() -> None:
    config = load(overrides=[*SMALL, "filters.coder_render_rate=[0.25, 0.75]"])
    log = Log(
        [
            *whole_tree("g0", proposals=1, drawings=2, hard=["3"] * 4),  # rate 1, c = 1
            *whole_tree("g1", proposals=1, drawings=1, easy=["4", "5", "6", "7"]),  # easy 1/4
        ]
    )
    rejected = Candidates(config).refresh(log.pipeline, log.of)
    assert [(r.role, r.group, r.reason) for r in rejected] == [
        ("proposer", "g0", "zero_variance"),
        ("proposer", "g1", "zero_variance"),
        ("coder", "g0.s0", "render_rate"),
        ("coder", "g1.s0", "render_rate"),
        ("solver", "g0.s0.d0", "consistency"),
        ("solver", "g0.s0.d1", "consistency"),
        ("solver", "g1.s0.d0", "consistency"),
    ]
    assert "render_rate 1 outside [0.25, 0.75]" in rejected[2].detail
    assert "hard_consistency 1 outside" in rejected[4].detail
    assert "easy_consistency 0.25 outside" in rejected[6].detail


def test_a_group_is_stale_only_beyond_the_limit() -> None:
    limit = CONFIG.admission.max_staleness
    log = Log([*whole_tree("g0", proposals=1, drawings=1)])
    log.add(step("solver", 1, ["x"], version=limit))
    candidates = Candidates(CONFIG)
    assert all(r.role != "solver" for r in candidates.refresh(log.pipeline, log.of))
    assert list(candidates.passed["solver"]) == ["g0.s0.d0"]
    log.add(step("solver", 2, ["y"], version=limit + 1))
    (stale,) = [r for r in candidates.refresh(log.pipeline, log.of) if r.role == "solver"]
    assert (stale.group, stale.reason) == ("g0.s0.d0", "stale")
    assert f"{limit + 1} versions behind, at most {limit}" in stale.detail
    assert not candidates.passed["solver"]


def test_groups_of_a_role_that_is_not_trained_are_frozen() -> None:
    config = load(overrides=[*SMALL, "learner.solver.train=false"])
    log = Log(varied_tree())
    rejected = Candidates(config).refresh(log.pipeline, log.of)
    assert {r.reason for r in rejected if r.role == "solver"} == {"frozen"}
    assert all(r.role == "solver" or r.reason != "frozen" for r in rejected)
    everything = load(
        overrides=[f"learner.{r}.train=false" for r in ("proposer", "coder", "solver")]
    )
    assert Candidates(everything).fullest() is None


def test_a_rejection_is_said_once_until_the_log_has_it() -> None:
    log = Log(varied_tree())
    candidates = Candidates(CONFIG)
    first = candidates.refresh(log.pipeline, log.of)
    assert {(r.group, r.reason) for r in first} == {
        ("g0.s0.d1", "consistency"),
        ("g0.s1", "zero_variance"),
    }
    assert candidates.refresh(log.pipeline, log.of) == []
    log.add(*first)
    assert candidates.refresh(log.pipeline, log.of) == []
    # A learner that died before it could say so says the same again.
    again = Log(varied_tree())
    assert Candidates(CONFIG).refresh(again.pipeline, again.of) == first


# --- windows ----------------------------------------------------------------------------------


def test_a_window_is_the_oldest_groups_and_waits_until_there_are_enough() -> None:
    log, candidates = Log(), Candidates(CONFIG)
    log.add(*whole_tree("g1", proposals=1, drawings=1))
    candidates.refresh(log.pipeline, log.of)
    assert candidates.fullest() is None
    log.add(*whole_tree("g0", proposals=1, drawings=1))  # a lower number, but complete later
    log.add(*whole_tree("g2", proposals=1, drawings=1))
    candidates.refresh(log.pipeline, log.of)
    assert candidates.fullest() == "solver"
    window, chosen = candidates.window("solver", log.of)
    assert [scored.group.id for scored in chosen] == ["g1.s0.d0", "g0.s0.d0"]
    assert (window.role, [g.group for g in window.groups]) == ("solver", ["g1.s0.d0", "g0.s0.d0"])


def test_the_role_whose_window_is_fullest_comes_first() -> None:
    config = load(overrides=[*SMALL, "learner.coder.groups=1", "learner.solver.groups=3"])
    log, candidates = Log(), Candidates(config)
    for group in ("g0", "g1"):
        log.add(
            proposed(group, [True]),
            coded(f"{group}.s0", [True, False]),
            *picture(f"{group}.s0.d0", ["4", "4"], ["3", "5"]),
        )
    candidates.refresh(log.pipeline, log.of)
    # coder: 2 of 1; solver: 2 of 3
    assert candidates.fullest() == "coder"


def different(group: str, words: str) -> list[Event]:
    """A tree of two proposals, both about the same words; the second one's drawing fails."""
    told = ProposalOutcome(proposal=msgspec.structs.replace(PROPOSAL, caption=words))
    first = msgspec.structs.replace(proposed(group, [True, True]), outcomes=[told, told])
    return [
        first,
        coded(f"{group}.s0", [True]),
        *picture(f"{group}.s0.d0", ["4", "4"], ["3", "5"]),
        coded(f"{group}.s1", [False]),
    ]


def test_a_proposer_window_is_penalised_for_likeness_over_all_its_groups() -> None:
    log = Log([*different("g0", "a b c d e f"), *different("g1", "u v w x y z")])
    candidates = Candidates(CONFIG)
    candidates.refresh(log.pipeline, log.of)
    assert candidates.passed["proposer"]["g0"].rewards == pytest.approx([1.0, 0.0])
    _, chosen = candidates.window("proposer", log.of)
    # n = 4; captions in twos, both questions all alike:
    # (.45 * (1/2 - 1/4) + .55 * (1 - 1/4)) * 4 * .5 = 1.05, clipped to .5
    for scored in chosen:
        assert scored.rewards == pytest.approx([0.5, -0.5])
        assert [terms["likeness"] for terms in scored.terms] == [-0.5, -0.5]


def test_a_proposer_window_pays_for_captions_of_the_steps_before_as_far_back_as_asked() -> None:
    captions = ["a b c d e f", "u v w x y z", "a b c d e f", "g h i j k l"]
    log = Log([event for i, text in enumerate(captions) for event in different(f"g{i}", text)])
    for number in (1, 2):
        log.add(step("proposer", number, [f"g{number - 1}"]))

    def memory(steps: int, weight: float) -> list[float | None]:
        asked = [f"proposer.memory_weight={weight}", f"proposer.memory_steps={steps}"]
        candidates = Candidates(load(overrides=[*SMALL, *asked]))
        candidates.refresh(log.pipeline, log.of)
        _, chosen = candidates.window("proposer", log.of)
        assert [scored.group.id for scored in chosen] == ["g2", "g3"]
        return [terms.get("memory") for scored in chosen for terms in scored.terms]

    assert memory(5, 0.3) == pytest.approx([-0.3, -0.3, 0.0, 0.0])
    assert memory(1, 0.3) == pytest.approx([0.0] * 4)  # g0 is two steps back
    assert memory(5, 0.0) == [None] * 4  # off: no term at all, as in old logs


def test_a_group_that_the_penalties_make_level_is_trained_on_with_no_advantage() -> None:
    # 1.0 against .5 before; likeness takes .5 from the two that are like the other group's.
    other = ProposalOutcome(
        proposal=msgspec.structs.replace(
            PROPOSAL,
            caption="one two three four five",
            easy_question="six seven eight nine ten",
            hard_question="all by itself it stands",
        )
    )
    same = ProposalOutcome(proposal=PROPOSAL)

    def tree(group: str, outcomes: list[ProposalOutcome]) -> list[Event]:
        head: Proposed = msgspec.structs.replace(proposed(group, [True, True]), outcomes=outcomes)
        return [
            head,
            coded(f"{group}.s0", [True]),
            *picture(f"{group}.s0.d0", ["4", "4"], ["3", "5"]),  # .5 + .5
            coded(f"{group}.s1", [True, False]),
            *picture(f"{group}.s1.d0", ["4", "4"], ["3", "5"]),  # (.5 + .5) / 2
        ]

    log = Log([*tree("g0", [same, other]), *tree("g1", [same, same])])
    candidates = Candidates(CONFIG)
    candidates.refresh(log.pipeline, log.of)
    _, (level, _) = candidates.window("proposer", log.of)
    assert level.group.id == "g0"
    assert level.rewards == pytest.approx([0.5, 0.5])
    assert level.advantages == pytest.approx([0.0, 0.0], abs=1e-6)


def test_a_window_s_scale_is_taken_over_all_its_groups() -> None:
    config = load(overrides=[*SMALL, "learner.scale_rewards=batch", "learner.solver.groups=2"])
    log = Log(
        [
            *whole_tree("g0", proposals=1, drawings=1, hard=["3", "3", "11", "4"]),
            *whole_tree("g1", proposals=1, drawings=1, hard=["3", "3", "3", "4"]),
        ]
    )
    candidates = Candidates(config)
    candidates.refresh(log.pipeline, log.of)
    window, chosen = candidates.window("solver", log.of)
    # rewards 1 1 .1 .1 | 1 1 1 .1: mean .6625, deviation sqrt(8 * .234375 * .81 / 7) = .465794
    scale = 0.4658939
    assert chosen[0].advantages == pytest.approx([0.45 / scale] * 2 + [-0.45 / scale] * 2, rel=1e-5)
    assert chosen[1].advantages == pytest.approx([0.225 / scale] * 3 + [-0.675 / scale], rel=1e-5)
    assert [g.advantages for g in window.groups] == [scored.advantages for scored in chosen]
    # The group waits as it was scored: another window may be another scale.
    assert candidates.passed["solver"]["g0.s0.d0"].advantages == pytest.approx(
        [0.45, 0.45, -0.45, -0.45]
    )


def test_a_group_of_cut_samples_is_refused_where_they_are_masked() -> None:
    def cut(event: Event) -> Event:
        if not (isinstance(event, Answered) and event.question == "hard"):
            return event
        samples = [
            msgspec.structs.replace(it, finish_reason="length") for it in event.generation.samples
        ]
        generation = msgspec.structs.replace(event.generation, samples=samples)
        return msgspec.structs.replace(event, generation=generation)

    log = Log([cut(event) for event in whole_tree("g0", proposals=1, drawings=1)])
    assert isinstance(log.score("solver", "g0.s0.d0"), Scored)
    masking = load(overrides=[*SMALL, "learner.mask_truncated_completions=true"])
    verdict = log.score("solver", "g0.s0.d0", masking)
    assert isinstance(verdict, Rejection) and verdict.reason == "truncated"


def drained(events: list[Event]) -> tuple[list[tuple], list[GroupRejected], set[tuple[Role, str]]]:
    """All windows that a learner would train on, as if it ran alone; the log grows with it."""
    log, candidates = Log(events), Candidates(CONFIG)
    ready = {(role, g) for role, groups in log.pipeline.book.ready.items() for g in groups}
    windows, rejected = [], []
    steps = dict.fromkeys(log.pipeline.book.ready, 0)
    while True:
        refused = candidates.refresh(log.pipeline, log.of)
        rejected += refused
        log.add(*refused)
        role = candidates.fullest()
        if role is None:
            break
        window, chosen = candidates.window(role, log.of)
        windows.append((role, [(g.group, g.rewards, g.advantages) for g in window.groups]))
        steps[role] += 1
        log.add(step(role, steps[role], [scored.group.id for scored in chosen]))
    left = {(role, g) for role, groups in log.pipeline.book.ready.items() for g in groups}
    consumed = [(role, g) for role, groups in windows for g, _, _ in groups]
    consumed += [(r.role, r.group) for r in rejected]
    assert len(consumed) == len(set(consumed)), "a group came again"
    assert set(consumed) | left == ready and not set(consumed) & left
    return windows, rejected, left


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_windows_are_a_function_of_the_log_and_no_group_comes_twice(seed: int, trees: int) -> None:
    first, second = drained(grown(seed, trees)), drained(grown(seed, trees))
    assert first == second
    for role in ("proposer", "coder", "solver"):
        assert sum(r == role for r, _ in first[2]) < 2  # what is left fills no window


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_looking_at_the_log_more_often_changes_no_window(seed: int) -> None:
    events = grown(seed, 3)
    log, patient, eager = Log(), Candidates(CONFIG), Candidates(CONFIG)
    said: list[GroupRejected] = []
    for event in events:
        log.add(event)
        said += eager.refresh(log.pipeline, log.of)
    at_once = patient.refresh(log.pipeline, log.of)
    assert {(r.role, r.group, r.reason) for r in said} == {
        (r.role, r.group, r.reason) for r in at_once
    }
    for role in ("proposer", "coder", "solver"):
        assert eager.window(role, log.of) == patient.window(role, log.of)


# --- bounds as the configuration lists them -------------------------------------------------------


def test_a_bound_on_any_recorded_fact_rejects_with_the_fact_s_name(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        "[filters]\ncoder_render_rate = [0.0, 1.0]\n"
        'proposer = [{ fact = "parsed", low = 0.9 }]\n'
        'coder = [{ fact = "render_rate", low = 0.4, high = 0.5 }]\n'
        'solver = [{ fact = "solvability", low = 0.5 }, { fact = "difficulty", high = 0.4 }]\n'
    )
    config = load(str(tmp_path / "mine.toml"))
    log = Log(varied_tree())
    rejected = {
        (r.role, r.group): (r.reason, r.detail)
        for r in Candidates(config).refresh(log.pipeline, log.of)
    }
    assert rejected["proposer", "g0"] == ("parsed", "parsed 0.6667 outside [0.9, inf]")
    assert rejected["solver", "g0.s0.d0"] == ("difficulty", "difficulty 0.5 outside [-inf, 0.4]")
    assert ("coder", "g0.s0") not in rejected  # rate .5, at the bound
    assert Candidates(CONFIG).refresh(log.pipeline, log.of)[0].reason != "parsed"


def test_groups_can_be_taken_by_the_version_that_sampled_them() -> None:
    log = Log(
        [
            *[proposed("g0", [True]), coded("g0.s0", [True, False], version=4)],
            *picture("g0.s0.d0", ["4", "4"], ["3", "5"]),
            *[proposed("g1", [True]), coded("g1.s0", [True, False], version=5)],
            *picture("g1.s0.d0", ["4", "4"], ["3", "5"]),
        ]
    )
    config = load(overrides=[*SMALL, 'filters.coder=[{fact="version", low=5}]'])
    candidates = Candidates(config)
    rejected = candidates.refresh(log.pipeline, log.of)
    [refused] = [r for r in rejected if r.role == "coder"]
    assert (refused.group, refused.reason) == ("g0.s0", "version")
    assert refused.detail == "version 4 outside [5, inf]"
    [taken] = candidates.passed["coder"].values()
    assert taken.group.id == "g1.s0" and "version" not in taken.facts


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        (
            'solver=[{fact="colour", low=1}]',
            "filters.solver[0]: no 'colour' is recorded of a solver group; there is solvability,",
        ),
        ('coder=[{fact="parsed", low=1}]', "no 'parsed' is recorded of a coder group"),
        ('proposer=[{fact="parsed"}]', "filters.proposer[0]: a bound on parsed needs low, high"),
        ('solver=[{fact="difficulty", low=0.4, high=0.3}]', "at least 0.4 and at most 0.3"),
        ('solver=[{fact="difficulty", lo=0.4}]', "unknown field `lo`"),
        ("solver=[{low=0.4}]", "missing required field `fact`"),
        ('solver=[{fact="difficulty", low="much"}]', "$.filters.solver[0].low"),
        ('solver=[{fact="difficulty", low=nan}]', "a finite number is expected"),
    ],
)
def test_a_bound_that_cannot_be_is_refused_with_its_place(listed: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(overrides=[f"filters.{listed}"])
    assert words in str(refused.value)


def test_the_facts_that_can_be_bound_are_those_that_are_recorded() -> None:
    log = Log(varied_tree())
    for role, group in (("proposer", "g0"), ("coder", "g0.s0"), ("solver", "g0.s0.d0")):
        scored = log.score(role, group)  # type: ignore[arg-type]
        assert isinstance(scored, Scored)
        # Of structures, which these pictures lack, see test_structure.py.
        bindable = [f for f in FACTS[role] if "structure" not in f]
        assert [*scored.facts, "version"] == bindable
