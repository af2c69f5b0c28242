"""The coder: from its text to the drawing in it, and from the picture's fate to its reward.

Whether the SVG, or the plotting program, is well made is not decided here: that is the renderer's
to find out.
MM-Zero, arXiv 2603.09206.
"""

import re

from mmzero_async.config import CoderConfig, DrawingKind
from mmzero_async.roles.facts import PictureFacts
from mmzero_async.schemas.events import DrawingOutcome, Rendered

_FENCE = re.compile(r"```[ \t]*([\w+-]*)[ \t]*\n?")
_SVG = re.compile(r"<(/?)svg(?=[\s/>])", re.IGNORECASE)


_PYTHON = frozenset({"python", "python3", "py"})
_PLOTS = re.compile(r"\bmatplotlib\b|\bplt\.")


def parse(text: str, drawing: DrawingKind = "svg") -> DrawingOutcome:
    """The drawing in a sample, or that there is none.

    An SVG: a ```svg fence, else ```xml with `<svg`, else the first raw `<svg`. Failures: "no_code"
    when there is neither, "not_svg" when there is code without `<svg`.
    A program: the first ```python fence, else a fence without a language that plots. Failures:
    "no_code" without a closed fence, "not_program" when what is fenced is something else.
    """
    said = text.rpartition("</think>")[2]
    fenced = _fenced(said)
    return _svg(said, fenced) if drawing == "svg" else _program(fenced)


def _program(fenced: list[tuple[str, str]]) -> DrawingOutcome:
    for language, code in fenced:
        if language in _PYTHON:
            return DrawingOutcome(program=code) if code else DrawingOutcome(failure="no_code")
    for language, code in fenced:
        if not language and _PLOTS.search(code):
            return DrawingOutcome(program=code)
    return DrawingOutcome(failure="not_program" if any(code for _, code in fenced) else "no_code")


def _svg(said: str, fenced: list[tuple[str, str]]) -> DrawingOutcome:
    for language, code in fenced:
        if language == "svg":
            return _outcome(code) if code else DrawingOutcome(failure="no_code")
    for language, code in fenced:
        if language == "xml" and _SVG.search(code):
            return _outcome(code)
    if (raw := _raw(said)) is not None:
        return DrawingOutcome(svg=raw)
    return DrawingOutcome(failure="not_svg" if any(code for _, code in fenced) else "no_code")


def _outcome(code: str) -> DrawingOutcome:
    return DrawingOutcome(svg=code) if _SVG.search(code) else DrawingOutcome(failure="not_svg")


def _fenced(text: str) -> list[tuple[str, str]]:
    """(language, code) of each closed fence, in order."""
    found = []
    at = 0
    while (opening := _FENCE.search(text, at)) is not None:
        stop = text.find("```", opening.end())
        if stop < 0:
            break
        found.append((opening[1].lower(), text[opening.end() : stop].strip()))
        at = stop + 3
    return found


def _raw(text: str) -> str | None:
    """From the first `<svg` to the `</svg>` that closes it, or to the first if none does."""
    depth, start, first = 0, None, None
    for tag in _SVG.finditer(text):
        if not tag[1]:
            start = tag.start() if start is None else start
            depth += 1
        elif start is not None:
            first = first or tag
            depth -= 1
            if depth == 0:
                first = tag
                break
    # One search for one bracket: a search a tag would be quadratic in a hostile text.
    stop = 0 if first is None else text.find(">", first.end()) + 1
    return text[start:stop] if stop else None


def coder_terms(
    outcomes: list[DrawingOutcome],
    renders: list[Rendered | None],
    facts: list[PictureFacts | None],
    config: CoderConfig,
) -> list[dict[str, float]]:
    """Reward terms of each drawing of a coder group; its reward is their sum.

    The three lists run in parallel. `renders[i]` is None where there was nothing to render or the
    work was abandoned, `facts[i]` where no picture was answered about.

    Rendered: 1 + s + d. Not rendered: -0.1, with no code or no SVG more (no code is no SVG
    either; "not_svg" is the price of no program too), never below the floor.
    """
    return [
        _rendered_terms(fact, config)
        if render is not None and not render.failure and render.picture is not None
        else _failed_terms(outcome, config)
        for outcome, render, fact in zip(outcomes, renders, facts, strict=True)
    ]


def _rendered_terms(fact: PictureFacts | None, config: CoderConfig) -> dict[str, float]:
    if fact is None:
        return {"rendered": config.rendered, "solvability": 0.0, "difficulty": 0.0}
    any_answer = 1.0 if fact.silver is not None else 0.0
    return {
        "rendered": config.rendered,
        "solvability": fact.solvability,
        "difficulty": any_answer if config.difficulty == "any" else fact.difficulty,
    }


def _failed_terms(outcome: DrawingOutcome, config: CoderConfig) -> dict[str, float]:
    terms = {"not_rendered": config.not_rendered}
    if outcome.failure == "no_code":
        terms["no_code"] = config.no_code
    if outcome.failure in ("no_code", "not_svg", "not_program"):
        terms["not_svg"] = config.not_svg
    if (short := config.floor - sum(terms.values())) > 0:
        terms["floor"] = short
    return terms
