"""Scores side by side: a column a version, a row a question kind."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmzero_async.ops.summary import evaluation_figures
from mmzero_async.projections.report import wilson
from mmzero_async.schemas.events import Evaluated

Cell = tuple[int, int]  # correct, asked


def rows(scores: Mapping[str, Evaluated]) -> list[tuple[str, list[Cell]]]:
    """`easy`, `hard`, then every kind; in each a cell a version, in the order of `scores`."""
    told = [evaluation_figures(event) for event in scores.values()]
    found = [
        (name, [(one[name]["correct"], one[name]["asked"]) for one in told])
        for name in ("easy", "hard")
    ]
    for kind in sorted({kind for event in scores.values() for kind in event.by_kind}):
        found.append((f"  {kind}", [event.by_kind.get(kind, (0, 0)) for event in scores.values()]))
    return found


def shares(cell: Cell) -> dict[str, Any]:
    correct, asked = cell
    low, high = wilson(correct, asked)
    return {
        "correct": correct,
        "asked": asked,
        "accuracy": round(correct / asked, 4) if asked else None,
        "interval_95": [round(low, 4), round(high, 4)],
    }


def figures(scores: Mapping[str, Evaluated]) -> list[dict[str, Any]]:
    """For programs: one object a version."""
    return [
        {
            "policy": label,
            **evaluation_figures(event),
            "kinds": {kind: shares(cell) for kind, cell in event.by_kind.items()},
            "seconds": round(event.seconds, 1),
        }
        for label, event in scores.items()
    ]


def lines(scores: Mapping[str, Evaluated]) -> list[str]:
    """For people: percent with its 95 % interval (Wilson), all versions on the same questions."""
    named = [(name, [_told(cell) for cell in cells]) for name, cells in rows(scores)]
    return table(["%, 95 % interval", *scores], [[name, *cells] for name, cells in named])


def _told(cell: Cell) -> str:
    correct, asked = cell
    if not asked:
        return "-"
    low, high = wilson(correct, asked)
    return f"{100 * correct / asked:5.1f} [{100 * low:.1f}, {100 * high:.1f}] of {asked}"


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, two blanks between; no line ends in blanks."""
    widths = [max(len(row[i]) for row in (header, *body)) for i in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *body)
    ]
