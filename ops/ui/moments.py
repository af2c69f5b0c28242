"""Stretches of a run to lay side by side: its iterations, or its start, middle and end."""

from collections.abc import Mapping, Sequence
from typing import Any

SHARE = 10  # a start, middle or end is a tenth of the run


def moments(
    end: int,
    iterations: Sequence[tuple[int, int]],
    versions: Mapping[str, Sequence[tuple[int, int]]],
) -> list[dict[str, Any]]:
    """[after, before) by name, in order. `iterations` and `versions`: (number, first offset)."""
    found: list[dict[str, Any]] = []
    if end:
        tenth = max(1, end // SHARE)
        middle = max(0, end // 2 - tenth // 2)
        found += [
            _moment("start", "start of the run", 0, tenth),
            _moment("middle", "middle of the run", middle, middle + tenth),
            _moment("end", "end of the run", max(0, end - tenth), end),
        ]
    if len(iterations) > 1:
        found += _stretches("iteration", "iteration {}", iterations, end)
    for role, served in versions.items():
        found += _stretches(role, role + " version {}", served, end)
    return found


def _stretches(
    key: str, name: str, begins: Sequence[tuple[int, int]], end: int
) -> list[dict[str, Any]]:
    after = [*(offset for _, offset in begins[1:]), end][: len(begins)]
    return [
        _moment(f"{key}-{number}", name.format(number), first, max(first, last))
        for (number, first), last in zip(begins, after, strict=True)
    ]


def _moment(key: str, name: str, after: int, before: int) -> dict[str, Any]:
    return {"key": key, "name": name, "after": after, "before": before}
