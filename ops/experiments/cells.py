"""What experiments share: cells that are done stay done, and a table says mean and deviation."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
# Its name; how its values are told, a format for `spread` or a function; a run's value each, None
# where a run has none.
Row = tuple[str, str | Callable[[Sequence[float]], str], Sequence[float | None]]


def written(file: Path, kind: type[T]) -> Iterator[T]:
    """The outcomes in a file of JSON lines; a torn one counts as not there."""
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            yield msgspec.json.decode(line, type=kind)
        except msgspec.MsgspecError:
            continue


def keep(file: Path, outcome: Any) -> None:
    """One more outcome, a dataclass: a line in the file, and on the screen."""
    line = json.dumps(asdict(outcome))
    with file.open("a") as lines:
        lines.write(line + "\n")
    print(line, flush=True)


def spread(values: Sequence[float], form: str) -> str:
    """Mean and, of more than one, their deviation; "-" of none."""
    if not values:
        return "-"
    deviation = f" ± {stdev(values):{form}}" if len(values) > 1 else ""
    return f"{mean(values):{form}}{deviation}"


def side_by_side(modes: Iterable[str], runs: Sequence[str], rows: Iterable[Row]) -> str:
    """Markdown: a column a mode, a row a figure over its runs; `runs` are the modes of all runs."""
    modes = list(modes)
    heads = [f"{mode}, {runs.count(mode)} runs" for mode in modes]
    lines = [f"| | {' | '.join(heads)} |", f"|{' --- |' * (1 + len(modes))}"]
    for name, tell, values in rows:
        cells = []
        for mode in modes:
            known = [v for v, of in zip(values, runs, strict=True) if of == mode and v is not None]
            cells.append(spread(known, tell) if isinstance(tell, str) else tell(known))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
