"""Whole windows scored by the learner and by a spreadsheet of its own (sheet.py): to 1e-9."""

import random
from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest
from builders import PROPOSAL, answered, coded, proposed, rendered
from grown_log import Log
from sheet import (
    DrawingRow,
    ProposalRow,
    advantage_column,
    coder_cell,
    consistency,
    proposer_column,
    solver_column,
    type_column,
    valid,
)

from mmzero_async.config import Config, load
from mmzero_async.learner.windows import Candidates
from mmzero_async.schemas.events import (
    AnswerOutcome,
    DrawingOutcome,
    Event,
    ProposalOutcome,
    Question,
)
from mmzero_async.schemas.ids import drawing_id, proposal_id

PROMPTS, PROPOSALS, DRAWINGS = 4, 4, 3
OPEN = [
    "filters.coder_render_rate=[0.0, 1.0]",
    "filters.solver_easy_consistency=0.0",
    "filters.solver_hard_consistency=[0.0, 1.0]",
    "filters.solver_agreement=0.0",
    *(f"learner.{role}.groups=999" for role in ("proposer", "coder", "solver")),
]
EXACT = {"rel": 0.0, "abs": 1e-9}

# Near twins within a line (one word apart in twelve), strangers between lines.
STEMS = [
    "a bar chart of six harbours with the third bar in red",
    "two triangles that share one side of length nine and an angle",
    "the tram map shows four lines that cross near an old mill",
]
Tree = list[list[ProposalRow]]


def text(rng: random.Random) -> str:
    return rng.choice(STEMS) + rng.choice(["", "", " today"]) if rng.random() < 0.6 else words(rng)


def words(rng: random.Random) -> str:
    return " ".join(f"w{rng.randrange(500)}" for _ in range(12))


def drawing(rng: random.Random) -> DrawingRow:
    failure = rng.choice(["", "", "", "render", "no_code", "not_svg"])
    if failure:
        return DrawingRow(failure)
    hard = [rng.choice(["11", "11", "12", "13", None]) for _ in range(7)]
    if rng.random() < 0.25:
        hard = ["11"] * 7
    formats = [answer is not None and rng.random() < 0.7 for answer in hard]
    return DrawingRow("", [rng.choice(["4", "4", "5", None]) for _ in range(5)], hard, formats)


def window(rng: random.Random) -> Tree:
    kinds = rng.choice([["map"], ["map", "map", "map", "table"], ["map", "table", "timeline"]])

    def row() -> ProposalRow:
        if rng.random() < 0.15:
            return ProposalRow("")
        drawings = [drawing(rng) for _ in range(DRAWINGS)]
        return ProposalRow(rng.choice(kinds), text(rng), text(rng), text(rng), "4", drawings)

    return [[row() for _ in range(PROPOSALS)] for _ in range(PROMPTS)]


def answers(where: str, question: Question, row: DrawingRow) -> Event:
    if question == "easy":
        return answered(where, "easy", list(row.easy))
    outcomes = [
        AnswerOutcome(answer=a, format_ok=kept)
        for a, kept in zip(row.hard, row.formats, strict=True)
    ]
    return msgspec.structs.replace(answered(where, "hard", list(row.hard)), outcomes=outcomes)


def events(tree: Tree) -> list[Event]:
    """What the workers would have written about the rows."""
    told: list[Event] = []
    for g, rows in enumerate(tree):
        outcomes = [
            ProposalOutcome(
                proposal=msgspec.structs.replace(
                    PROPOSAL,
                    content_type=row.kind,
                    caption=row.caption,
                    easy_question=row.easy_question,
                    hard_question=row.hard_question,
                    easy_answer=row.easy_answer,
                )
            )
            if row.kind
            else ProposalOutcome(failure="missing:caption")
            for row in rows
        ]
        head = proposed(f"g{g}", [bool(row.kind) for row in rows])
        told.append(msgspec.structs.replace(head, outcomes=outcomes))
        for i, row in enumerate(rows):
            if row.kind:
                told += drawn(proposal_id(f"g{g}", i), row)
    return told


def drawn(proposal: str, row: ProposalRow) -> list[Event]:
    no_code = ("no_code", "not_svg")
    outcomes = [
        DrawingOutcome(failure=d.failure) if d.failure in no_code else DrawingOutcome(svg="<svg/>")
        for d in row.drawings
    ]
    head = coded(proposal, [True] * len(row.drawings))
    told: list[Event] = [msgspec.structs.replace(head, outcomes=outcomes)]
    for j, d in enumerate(row.drawings):
        where = drawing_id(proposal, j)
        if d.failure not in no_code:
            told.append(rendered(where, ok=not d.failure))
        if not d.failure:
            told += [answers(where, "easy", d), answers(where, "hard", d)]
    return told


def scored(tree: Tree, config: Config) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """role -> group -> (rewards, advantages) as the learner would train on them."""
    log = Log(events(tree))
    candidates = Candidates(config)
    candidates.refresh(log.pipeline, log.of)
    found: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for role in ("proposer", "coder", "solver"):
        _, chosen = candidates.window(role, log.of)
        found[role] = {s.group.id: (s.rewards, s.advantages) for s in chosen}
    return found


def spread(rewards: list[float]) -> bool:
    return max(rewards) - min(rewards) > 1e-9


def without(tree: Tree, change: Callable[[list[str | None]], list[str | None]]) -> Tree:
    """The same window with other hard answers."""
    return [
        [
            replace(row, drawings=[replace(d, hard=change(d.hard)) for d in row.drawings])
            for row in rows
        ]
        for rows in tree
    ]


@pytest.mark.parametrize("seed", range(6))
def test_shares_of_valid_answers_are_those_of_the_spreadsheet(seed: int) -> None:
    """Coder's rewards, whose difficulty is a share: the sheet drops what is no answer."""
    words = {None: "none", "13": "N/A"}
    tree = without(
        window(random.Random(f"sheet/{seed}")), lambda hard: [words.get(a, a) for a in hard]
    )
    groups = {
        proposal_id(f"g{g}", i): [
            coder_cell(replace(d, hard=valid(d.hard)), row.easy_answer) for d in row.drawings
        ]
        for g, rows in enumerate(tree)
        for i, row in enumerate(rows)
        if row.kind
    }
    expected = {name: rewards for name, rewards in groups.items() if spread(rewards)}
    found = scored(tree, load(overrides=[*OPEN, "solver.consistency=valid"]))["coder"]
    assert {name: rewards for name, (rewards, _) in found.items()} == {
        name: pytest.approx(rewards, **EXACT) for name, rewards in expected.items()
    }
    asked = scored(tree, load(overrides=OPEN))["coder"]
    assert any(asked[name][0] != found[name][0] for name in asked.keys() & found.keys())


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("reading", ["min", "any"])
def test_a_window_is_worth_what_the_spreadsheet_says(seed: int, reading: str) -> None:
    tree = window(random.Random(f"sheet/{seed}"))
    found = scored(tree, load(overrides=[*OPEN, f"coder.difficulty={reading}"]))

    coder_groups, solver_groups = {}, {}
    for g, rows in enumerate(tree):
        for i, row in enumerate(rows):
            if not row.kind:
                continue
            name = proposal_id(f"g{g}", i)
            coder_groups[name] = [coder_cell(d, row.easy_answer, reading) for d in row.drawings]
            for j, d in enumerate(row.drawings):
                if not d.failure:
                    solver_groups[drawing_id(name, j)] = solver_column(d)

    expected = {name: rewards for name, rewards in coder_groups.items() if spread(rewards)}
    assert found["coder"].keys() == expected.keys() and expected
    for name, rewards in expected.items():
        assert found["coder"][name][0] == pytest.approx(rewards, **EXACT)
        assert found["coder"][name][1] == pytest.approx(advantage_column(rewards), **EXACT)

    assert found["solver"]
    for name, (rewards, advantages) in found["solver"].items():
        columns = solver_groups.pop(name)
        assert any(rewards == pytest.approx(column, **EXACT) for column in columns)
        assert advantages == pytest.approx(advantage_column(rewards), **EXACT)
    # Equal votes are drawn by lot, and a lot may leave a group level; without them none is missing.
    assert all(len(columns) > 1 or not spread(columns[0]) for columns in solver_groups.values())

    # Which prompts are trained on is decided before the window's penalties, the rewards after.
    kept = [
        g
        for g, rows in enumerate(tree)
        if spread([r for row in rows for r in proposer_column([row])])
    ]
    assert list(found["proposer"]) == [f"g{g}" for g in kept] and kept
    column = iter(proposer_column([row for g in kept for row in tree[g]]))
    for rewards, advantages in found["proposer"].values():
        rows = [next(column) for _ in rewards]
        assert rewards == pytest.approx(rows, **EXACT)
        assert advantages == pytest.approx(advantage_column(rows), **EXACT)


def test_the_windows_of_these_tests_hold_every_case() -> None:
    """Otherwise agreement would prove little."""
    trees = [window(random.Random(f"sheet/{seed}")) for seed in range(12)]
    rows = [row for tree in trees for group in tree for row in group]
    drawings = [d for row in rows for d in row.drawings]
    assert any(not row.kind for row in rows)
    assert {d.failure for d in drawings} == {"", "render", "no_code", "not_svg"}
    assert any(row.kind and all(d.failure for d in row.drawings) for row in rows)
    shares = {consistency(d.hard) for d in drawings if not d.failure}
    assert 1 in shares and len(shares) > 3
    assert any(len(solver_column(d)) > 1 for d in drawings if not d.failure)
    penalised = [
        max(type_column([row.kind for g in tree for row in g if row.kind])) for tree in trees
    ]
    assert 0.0 in penalised and max(penalised) > 0.0


def test_the_spreadsheets_own_cells_worked_out_by_hand() -> None:
    """A reference that is wrong in the same way would agree."""
    row = DrawingRow("", ["4", "4", "5", None], ["1", "1", "1", "2"], [True, True, False, True])
    assert solver_column(row) == [[1.0, 1.0, 0.9, 0.1]]
    assert coder_cell(row, "4") == 1 + 0.5 + 0.25
    assert coder_cell(row, "4", "any") == 1 + 0.5 + 1
    assert [coder_cell(DrawingRow(f), "4") for f in ("render", "no_code", "not_svg")] == [
        -0.1,
        -0.5,
        -0.5,
    ]
    # (.5 + .25) / 2: the failed drawing counts in N; mean d = .25 is hard enough
    two = ProposalRow(
        "map", "a b c d e", "f g h i j", "k l m n o", "4", [row, DrawingRow("render")]
    )
    assert proposer_column([two]) == [0.375]
    # With a twin: (.45 + .2 + .35)(1 - 1/2) * 2 * .5 = .5
    assert proposer_column([two, two]) == pytest.approx([-0.125] * 2)
    assert type_column(["map", "map", "map", "table"]) == pytest.approx([0.075] * 3 + [0.0])
