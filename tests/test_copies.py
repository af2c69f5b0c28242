"""Copies of earlier pictures: fingerprints that tell pictures apart, and a bounded memory."""

import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from builders import rendered, whole_tree
from grown_log import SMALL, Log, varied_tree
from hypothesis import given
from hypothesis import strategies as st
from rendering_rig import Rig, draw, opened
from test_cli import mmzero, write_run

from mmzero_async.config import Config, RendererConfig, load
from mmzero_async.learner.scoring import Scored
from mmzero_async.projections.copies import FINGERPRINT_BYTES, Copies
from mmzero_async.projections.report import Report
from mmzero_async.rendering.fingerprint import BYTES
from mmzero_async.rendering.outcomes import Picture
from mmzero_async.roles.filters import Rejection
from mmzero_async.schemas.events import Event, Finding, Rendered
from mmzero_async.schemas.ids import parent
from mmzero_async.seedling.scenes import random_scene


def printed(drawing: str, value: int, *found: str) -> Rendered:
    event = rendered(drawing)
    fingerprint = value.to_bytes(FINGERPRINT_BYTES, "big")
    findings = [Finding(detector=detector, detail="x") for detector in found]
    return msgspec.structs.replace(event, fingerprint=fingerprint, findings=findings)


def test_a_copy_is_a_picture_of_another_proposal_that_looks_the_same() -> None:
    copies = Copies(bits=2)
    assert copies.see(printed("g0.s0.d0", 0b0000)) == ""
    assert copies.see(printed("g0.s0.d1", 0b0000)) == ""  # the same proposal's
    assert copies.see(printed("g0.s1.d0", 0b0011)) == "g0.s0.d0"
    assert copies.see(printed("g1.s0.d0", 0b0111)) == "g0.s1.d0"
    assert copies.see(printed("g1.s1.d0", 0b111111)) == ""
    assert copies.found == 2


@pytest.mark.parametrize("nonsense", [b"", b"x", b"x" * (FINGERPRINT_BYTES + 8)])
def test_a_picture_without_a_sound_fingerprint_is_not_compared(nonsense: bytes) -> None:
    copies = Copies()
    for i in range(2):
        event = msgspec.structs.replace(rendered(f"g{i}.s0.d0"), fingerprint=nonsense)
        assert copies.see(event) == ""


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2**6 - 1)), max_size=60),
    st.integers(0, 3),
    st.integers(0, 10),
)
def test_only_the_newest_pictures_are_remembered(
    pictures: list[tuple[int, int]], bits: int, memory: int
) -> None:
    copies, past = Copies(bits, memory), []
    for i, (proposal, value) in enumerate(pictures):
        drawing = f"g{proposal}.s0.d{i}"
        remembered = past[-memory:] if memory else []
        alike = (
            d
            for d, v in remembered
            if (v ^ value).bit_count() <= bits and parent(d) != parent(drawing)
        )
        assert copies.see(printed(drawing, value)) == next(alike, "")
        past.append((drawing, value))


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    yield from opened(RendererConfig(size=96, wall_seconds=20.0))


def test_fingerprints_tell_the_seedlings_scenes_apart_and_are_the_same_again(rig: Rig) -> None:
    rng = random.Random(5)
    scenes = {random_scene(rng).svg() for _ in range(150)}
    prints = set()
    for scene in scenes:
        outcome, again = draw(rig, scene), draw(rig, scene.replace("</svg>", "<!-- --></svg>"))
        assert isinstance(outcome, Picture) and isinstance(again, Picture)
        assert outcome.fingerprint == again.fingerprint and len(outcome.fingerprint) == BYTES
        prints.add(int.from_bytes(outcome.fingerprint, "big"))
    assert len(prints) == len(scenes) and BYTES == FINGERPRINT_BYTES
    ordered = sorted(prints)
    near = min((a ^ b).bit_count() for i, a in enumerate(ordered) for b in ordered[:i])
    assert near > Config().shortcuts.copy_bits


# --- what follows in a run ----------------------------------------------------------------------


def two_alike(detector: str = "tiny_text") -> list[Event]:
    """A finding in g0.s0.d0, whose copy g1.s0.d0 is."""
    events: list[Event] = []
    for event in [*varied_tree(), *whole_tree("g1", proposals=1, drawings=2)]:
        if event == rendered("g0.s0.d0"):
            event = printed("g0.s0.d0", 5, detector)
        elif event == rendered("g1.s0.d0"):
            event = printed("g1.s0.d0", 5)
        events.append(event)
    return events


def test_by_default_nothing_about_any_reward_changes() -> None:
    plain, found = Log(varied_tree()), Log(two_alike())
    for role, group in (("proposer", "g0"), ("coder", "g0.s0"), ("solver", "g0.s0.d0")):
        one, two = plain.score(role, group), found.score(role, group)  # type: ignore[arg-type]
        assert isinstance(one, Scored) and isinstance(two, Scored)
        assert (one.terms, one.advantages, one.facts) == (two.terms, two.advantages, two.facts)


def test_a_filtered_finding_rejects_the_solvers_group_by_name() -> None:
    log = Log(two_alike())
    config = load(overrides=[*SMALL, "shortcuts.tiny_text=filter", "shortcuts.copy=filter"])
    assert log.score("solver", "g0.s0.d0", config) == Rejection("shortcut:tiny_text", "x")
    assert log.score("solver", "g1.s0.d0", config) == Rejection("shortcut:copy", "of g0.s0.d0")
    assert isinstance(log.score("solver", "g1.s0.d1", config), Scored)
    assert isinstance(log.score("coder", "g0.s0", config), Scored)


def test_a_penalty_costs_the_coder_its_drawing_and_the_proposer_its_share() -> None:
    log = Log(two_alike())
    config = load(overrides=[*SMALL, "shortcuts.tiny_text=penalty", "shortcuts.copy=penalty"])
    coder, proposer = log.score("coder", "g0.s0", config), log.score("proposer", "g0", config)
    assert isinstance(coder, Scored) and isinstance(proposer, Scored)
    assert [t.get("shortcut:tiny_text") for t in coder.terms] == [-0.5, None, None, None]
    assert coder.rewards == pytest.approx([1.75, 1.25, -0.1, -0.5])
    assert [t.get("shortcut:tiny_text") for t in proposer.terms] == [-0.25 / 4, None, None]
    copier = log.score("coder", "g1.s0", config)
    assert isinstance(copier, Scored)
    assert [t.get("shortcut:copy") for t in copier.terms] == [-0.5, None]


def test_status_and_trace_tell_what_was_found(tmp_path: Path) -> None:
    report = Report()
    for offset, event in enumerate(two_alike()):
        report.pipeline.apply(offset, event)
    assert report.shortcuts_found() == {"copy": 1}
    run = write_run(tmp_path / "run", two_alike())
    assert "shortcuts: 1 tiny_text, 1 copy" in mmzero("status", run).stdout
    assert "shortcut tiny_text: x" in mmzero("trace", run, "g0.s0.d0").stdout
    told = mmzero("trace", run, "g1.s0.d0").stdout
    assert "shortcut copy: looks like g0.s0.d0" in told
    assert "looks like" not in mmzero("trace", run, "g1.s0.d1").stdout
