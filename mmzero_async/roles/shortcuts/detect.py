"""All detectors that look at one picture, run in one order: from what is seen to findings."""

from collections.abc import Iterator

from mmzero_async.roles.shortcuts import sight
from mmzero_async.roles.shortcuts.answers import gives_away
from mmzero_async.schemas.events import Finding, Proposal
from mmzero_async.schemas.writing import Writing
from mmzero_async.shortcut_options import Reaction, ShortcutConfig

COPY = "copy"  # found by projections/copies.py: it takes the other pictures of the run
TEXT = ("hidden_text", "off_canvas_text", "tiny_text", "same_colour_text")
OF_WRITING = ("answer_text", "answer_metadata", *TEXT, "caption_only")
DETECTORS = (*OF_WRITING, "blank", COPY)  # each a key of [shortcuts]
MAX_DETAIL = 200  # characters


def reaction(config: ShortcutConfig, detector: str) -> Reaction:
    chosen: Reaction = getattr(config, detector)
    return chosen


def of_writing(config: ShortcutConfig) -> list[str]:
    """The detectors that are on and read what is written: nobody can tell them of a program."""
    return [detector for detector in OF_WRITING if reaction(config, detector) != "off"]


def wants_writing(config: ShortcutConfig) -> bool:
    return bool(of_writing(config))


def find(
    writing: Writing | None, ink: float, proposal: Proposal, config: ShortcutConfig
) -> list[Finding]:
    """At most one finding a detector that is not off: the first.

    `writing` is None where it could not be found out; `ink` is the whole picture's.
    """
    found: dict[str, str] = {}
    for detector, detail in _all(writing, ink, proposal, config):
        if detail is not None and reaction(config, detector) != "off":
            found.setdefault(detector, detail[:MAX_DETAIL])
    return [Finding(detector=detector, detail=detail) for detector, detail in found.items()]


def _all(
    writing: Writing | None, ink: float, proposal: Proposal, config: ShortcutConfig
) -> Iterator[tuple[str, str | None]]:
    yield "blank", sight.blank(ink, config.blank_ink)
    if writing is None:
        return
    drawn = [it for it in writing.inscriptions if not it.metadata]
    metadata = [it.text for it in writing.inscriptions if it.metadata]
    yield "answer_text", gives_away([it.text for it in drawn], proposal)
    yield "answer_metadata", gives_away(metadata, proposal)
    for it in drawn:
        yield "hidden_text", sight.hidden(it)
        yield "off_canvas_text", sight.off_canvas(it)
        yield "tiny_text", sight.tiny(it, config.tiny_pixels)
        yield "same_colour_text", sight.same_colour(it, config.shown)
    yield "caption_only", sight.caption_only(writing, proposal, config.blank_ink)
