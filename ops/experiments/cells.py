"""What experiments share: cells that are done stay done, and a table says mean and deviation."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


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
