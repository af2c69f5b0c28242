"""Prompts: template sets that load or say why not, filled once and verbatim; topics by seed."""

import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmzero_async.roles import prompts, proposer
from mmzero_async.roles.content_types import CONTENT_TYPES
from mmzero_async.roles.errors import TemplateError
from mmzero_async.roles.prompts import (
    PLACEHOLDERS,
    Templates,
    checked,
    coder_messages,
    fill,
    load_templates,
    proposer_messages,
    solver_messages,
    template_sets,
)
from mmzero_async.roles.topics import topic
from mmzero_async.schemas.events import ROLES, Proposal

GOLDEN = Path(__file__).parent / "golden" / "templates.json"
# What a specification needs three of, in the paper's order.
COMPLEXITY = (
    *("several series", "annotations", "inset panel", "named colours, markers"),
    *("derived values", "pattern", "geometric construction"),
)
PROPOSAL = Proposal(
    content_type="data_chart",
    caption="A bar chart {topic} with {easy_answer} bars and \\1 {question}",
    easy_question="How many bars?",
    easy_answer="3",
    hard_question="What is the sum of all {bars}?",
    hard_answer="12",
)


@pytest.mark.parametrize("name", template_sets())
def test_every_shipped_template_set_loads_and_asks_for_what_its_role_is_given(name: str) -> None:
    templates = load_templates(name)
    for role in ROLES:
        assert "{" + PLACEHOLDERS[role][0] + "}" in templates.text(role)
        assert len(templates.digest(role)) == 16
    assert len({templates.digest(role) for role in ROLES}) == 3


def test_the_papers_prompts_hold_its_demands() -> None:
    paper = load_templates("mmzero")
    for tag in proposer.LIMITS:
        assert f"<{tag}>" in paper.proposer and f"</{tag}>" in paper.proposer
    assert "at least three" in paper.proposer and "without the picture" in paper.proposer
    listed = paper.proposer.split("<content_type>one of: ")[1].split("</content_type>")[0]
    assert tuple(listed.split(", ")) == CONTENT_TYPES
    assert "Do not fall back on stock themes" in paper.proposer
    short = "a single number, a single word or a very short phrase"
    assert short in paper.proposer and short.replace("very ", "") in paper.solver
    assert "no value that the answer depends on may stand in the question" in paper.proposer
    assert "read" in paper.proposer.split("easy question can be")[1].split(".")[0]
    bullets = [line[2:] for line in paper.proposer.splitlines() if line.startswith("- ")]
    for demand, bullet in zip(COMPLEXITY, bullets, strict=True):
        assert demand in bullet
    for demand in ("```svg", "viewBox", "12 px", "14 px", "self-contained"):
        assert demand in paper.coder
    assert "<think>" in paper.solver and "\\boxed{" in paper.solver


def test_the_shipped_texts_are_these() -> None:
    """Their digests stand in the events of runs. Meant to change: run with RENEW_GOLDEN=1."""
    found = {
        f"{name}/{role}": load_templates(name).digest(role)
        for name in template_sets()
        for role in ROLES
    }
    for name in template_sets():
        found[f"{name}/coder_matplotlib"] = load_templates(name, "matplotlib").digest("coder")
    if os.environ.get("RENEW_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=2) + "\n")
    assert found == json.loads(GOLDEN.read_text()), f"RENEW_GOLDEN=1 pytest {__file__} renews it"


def test_the_solver_sees_the_picture_before_the_question() -> None:
    templates = load_templates("mmzero")
    (message,) = solver_messages(templates, "How many {question} \\boxed{}?", "data:image/png,x")
    picture, text = message["content"]
    assert picture == {"type": "image_url", "image_url": {"url": "data:image/png,x"}}
    assert "How many {question} \\boxed{}?" in text["text"]


@given(st.text(max_size=40))
def test_text_that_a_model_wrote_is_inserted_verbatim_and_never_filled_again(written: str) -> None:
    templates = Templates(
        name="t", proposer="[{topic}]", coder="[{caption}|{hard_answer}]", solver=""
    )
    proposal = Proposal(
        content_type="map",
        caption=written + "{hard_answer}",
        easy_question="",
        easy_answer="",
        hard_question="",
        hard_answer=written + "{caption}\\g<0>",
    )
    assert proposer_messages(templates, written)[0]["content"] == f"[{written}]"
    filled = coder_messages(templates, proposal)[0]["content"]
    assert filled == f"[{written}{{hard_answer}}|{written}{{caption}}\\g<0>]"


def test_a_template_set_that_cannot_be_used_is_refused_with_the_reason() -> None:
    with pytest.raises(TemplateError, match="choose one of"):
        load_templates("../../etc")
    fine = {"proposer": "{topic}", "coder": "{caption}", "solver": "{question} \\boxed{x}"}
    assert checked(Templates(name="t", **fine))
    with pytest.raises(TemplateError, match=r"topic.*missing"):
        checked(Templates(name="t", **{**fine, "proposer": "draw"}))
    with pytest.raises(TemplateError, match="question"):
        checked(Templates(name="t", **{**fine, "coder": "{caption} {question}"}))


def test_both_sets_are_shipped() -> None:
    assert template_sets() == ["mmzero", "seedling"]


@pytest.mark.parametrize("name", template_sets())
def test_every_placeholder_of_a_shipped_set_is_filled(name: str) -> None:
    templates = load_templates(name)
    proposal = Proposal(
        content_type="map",
        caption="<cap>",
        easy_question="<eq>",
        easy_answer="<ea>",
        hard_question="<hq>",
        hard_answer="<ha>",
    )
    written = {
        "proposer": proposer_messages(templates, "<topic>")[0]["content"],
        "coder": coder_messages(templates, proposal)[0]["content"],
        "solver": solver_messages(templates, "<question>", "data:x")[0]["content"][1]["text"],
    }
    given_to = {
        "proposer": ["<topic>"],
        "coder": ["<cap>", "<eq>", "<ea>", "<hq>", "<ha>"],
        "solver": ["<question>"],
    }
    for role in ROLES:
        for value in given_to[role]:
            assert written[role].count(value) == 1, (role, value)
        for names in PLACEHOLDERS.values():
            assert not any("{" + placeholder + "}" in written[role] for placeholder in names)


def test_every_message_is_one_of_the_user() -> None:
    templates = load_templates("seedling")
    for messages in (
        proposer_messages(templates, "t"),
        coder_messages(templates, PROPOSAL),
        solver_messages(templates, "q", "data:x"),
    ):
        assert [message["role"] for message in messages] == ["user"]


def test_a_digest_is_of_the_text_alone_and_changes_with_it() -> None:
    one = Templates(name="one", proposer="{topic}", coder="{caption}", solver="{question}")
    two = Templates(name="two", proposer="{topic}", coder="{caption}", solver="{question}!")
    assert one.digest("proposer") == hashlib.sha256(b"{topic}").hexdigest()[:16]
    assert one.digest("coder") == two.digest("coder")
    assert one.digest("solver") != two.digest("solver")


def test_only_known_placeholders_are_filled_and_all_other_braces_stay() -> None:
    assert fill("{topic} {Topic} {{topic}} {x} { topic }", {"topic": "T"}) == (
        "T {Topic} {T} {x} { topic }"
    )
    assert fill("{topic}", {}) == "{topic}"


def folder_of_sets(folder: Path, monkeypatch: pytest.MonkeyPatch, **texts: str) -> None:
    made = folder / "templates" / "mine"
    made.mkdir(parents=True)
    for role, text in texts.items():
        (made / f"{role}.txt").write_text(text, encoding="utf-8")
    load_templates.cache_clear()
    monkeypatch.setattr(prompts, "resources", SimpleNamespace(files=lambda _: folder))


def test_a_set_of_ones_own_loses_one_closing_newline_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of_sets(
        tmp_path, monkeypatch, proposer="{topic}\n\n", coder="{caption}", solver="ü {question}\n"
    )
    mine = load_templates("mine")
    assert (mine.proposer, mine.coder, mine.solver) == ("{topic}\n", "{caption}", "ü {question}")


def test_a_set_without_one_roles_file_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of_sets(tmp_path, monkeypatch, proposer="{topic}", coder="{caption}")
    with pytest.raises(TemplateError, match=r"'mine': solver\.txt is missing"):
        load_templates("mine")


@pytest.mark.parametrize("name", ["", ".", "..", "../templates/mmzero", "mmzero/", "MMZERO"])
def test_no_name_leads_out_of_the_folder_of_sets(name: str) -> None:
    with pytest.raises(TemplateError, match="no such set"):
        load_templates(name)


@given(st.integers(0, 2**63))
def test_a_topic_is_a_function_of_its_seed(seed: int) -> None:
    assert topic("seedling", seed) == topic("seedling", seed)
    assert topic("seedling", seed).strip()


def test_topics_of_different_seeds_vary_and_are_the_same_in_every_process() -> None:
    topics = [topic("seedling", seed) for seed in range(200)]
    assert len(set(topics)) > 20
    # The seeds stand in the events: another topic for an old seed would make them untrue.
    assert topics[:3] == [
        "a line chart with 5 points, sum",
        "a bar chart with 3 bars, second",
        "a bar chart with 5 bars, sum",
    ]
