"""What can be seen of a drawing's text, and whether there is anything but text to see.

Each function returns a detail in words where its detector fires. What cannot be seen helps no
solver, but nobody draws it for a reader either: it is how a coder talks past the picture.
"""

from mmzero_async.roles.shortcuts.words import words
from mmzero_async.schemas.events import Proposal
from mmzero_async.schemas.writing import Inscription, Writing

RUN = 4  # words in the caption's own order
LONG = 4  # words of a text; a table's cells and a chart's labels have fewer
CAPTION_WORDS, CAPTION_SHARE = 6, 0.6
FEW_SHAPES = 2  # a background and a frame


def hidden(it: Inscription) -> str | None:
    if it.painted or not _letters(it):
        return None
    return f"not painted: {it.text[:80]!r}"


def off_canvas(it: Inscription) -> str | None:
    if it.pixels or it.placed or not it.painted or not _letters(it):
        return None
    return f"beyond the edges: {it.text[:80]!r}"


def tiny(it: Inscription, least: float) -> str | None:
    """`least` painted pixels a character."""
    letters = _letters(it)
    if not it.painted or not letters or not it.placed or it.pixels >= least * letters:
        return None
    return f"{it.pixels / letters:.1f} pixels a character: {it.text[:80]!r}"


def same_colour(it: Inscription, shown: float) -> str | None:
    """`shown`: the share of its pixels that must differ from what lies beneath."""
    if not it.painted or not it.pixels or it.shown >= shown:
        return None
    return f"{it.shown:.0%} of it shows: {it.text[:80]!r}"


def blank(ink: float, least: float) -> str | None:
    return f"{ink:.2%} of the pixels are drawn on" if ink < least else None


def caption_only(writing: Writing, proposal: Proposal, blank_ink: float) -> str | None:
    """Nothing, or a background and a frame, besides sentences out of the caption.

    Six tenths of all written words stand in long texts and in runs of four as the caption has
    them. A table's rows are many short texts, so they are none.
    """
    if writing.shapes > FEW_SHAPES and writing.ink >= blank_ink:
        return None
    drawn = [words(it.text) for it in writing.inscriptions if not it.metadata]
    total = sum(len(text) for text in drawn)
    told = " ".join(words(proposal.caption))
    copied = sum(_copied(text, told) for text in drawn if len(text) >= LONG)
    if total < CAPTION_WORDS or copied < CAPTION_SHARE * total:
        return None
    return f"{copied} of {total} written words are the caption's, {writing.shapes} shapes"


def _copied(text: list[str], caption: str) -> int:
    """Words of a text that stand in a run of RUN of the caption."""
    hit = [False] * len(text)
    for i in range(len(text) - RUN + 1):
        if f" {' '.join(text[i : i + RUN])} " in f" {caption} ":
            hit[i : i + RUN] = [True] * RUN
    return sum(hit)


def _letters(it: Inscription) -> int:
    return sum(character.isalnum() for character in it.text) if not it.metadata else 0
