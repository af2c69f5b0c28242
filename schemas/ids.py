"""Lineage ids: a path from a proposer group down to one picture, readable by people.

`g12` is the proposer group of prompt 12, `g12.s0` its first proposal, `g12.s0.d3` that
proposal's fourth drawing (and its picture). A coder group bears its proposal's id, a solver
group its picture's. The parent is the prefix.
"""

import re
from functools import lru_cache

_NUMBER = r"(0|[1-9][0-9]{0,17})"  # one spelling a number: g01 must not pass for g1
_ID = re.compile(rf"g{_NUMBER}(?:\.s{_NUMBER}(?:\.d{_NUMBER})?)?")


def group_id(prompt: int) -> str:
    return f"g{prompt}"


def proposal_id(group: str, sample: int) -> str:
    return f"{group}.s{sample}"


def drawing_id(proposal: str, sample: int) -> str:
    return f"{proposal}.d{sample}"


def parent(lineage_id: str) -> str:
    """`g1.s0.d3` -> `g1.s0`; the empty string for a proposer group."""
    return lineage_id.rpartition(".")[0]


def root(lineage_id: str) -> str:
    """The proposer group that an id descends from."""
    return lineage_id.partition(".")[0]


def related(a: str, b: str) -> bool:
    """Whether they are one, or one descends from the other."""
    return a == b or a.startswith(b + ".") or b.startswith(a + ".")


def prompt_of(lineage_id: str) -> int | None:
    """`g12.s0.d3` -> 12, the prompt at the root; None for what is no lineage id."""
    match = _ID.fullmatch(lineage_id)
    return None if match is None else int(match[1])


@lru_cache(1 << 14)  # the events of a lineage come together
def indices(lineage_id: str) -> tuple[int, ...]:
    """`g1.s0.d3` -> (1, 0, 3). ValueError if it is no lineage id."""
    match = _ID.fullmatch(lineage_id)
    if match is None:
        raise ValueError(
            f"{lineage_id!r} is no lineage id; expected the form g12, g12.s0 or g12.s0.d3"
        )
    return tuple(int(part) for part in match.groups() if part is not None)
