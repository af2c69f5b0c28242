"""Which drawings the gallery shows: a filter over cards, read from an address's query."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec

from mmzero_async.schemas.events import ROLES
from mmzero_async.schemas.ids import prompt_of

State = Literal["any", "trained", "rejected", "waiting", "failed"]
STATES: tuple[State, ...] = get_args(State)
LONGEST = 200  # characters of a word that is looked for


class WantedError(ValueError):
    """A query that cannot be understood: says which key and what it may be."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Empty or None: any. Drawings without a picture are wanted by state "failed" alone."""

    text: str = ""  # in caption, questions, answers or topic, whatever the case
    lineage: str = ""  # the id itself, or what descends from it
    content_type: str = ""
    state: State = "any"  # of the solver's group
    finding: str = ""  # a detector's name
    role: str = "solver"  # whose version is meant
    version: tuple[int, int] | None = None
    agreement: tuple[float, float] | None = None  # share of the hard question's majority

    def matches(self, card: Mapping[str, Any]) -> bool:
        return (
            (card["picture"] is None) == (self.state == "failed")
            and self._named(card)
            and self._said(card)
            and self._became(card)
            and self._within(card)
        )

    def _named(self, card: Mapping[str, Any]) -> bool:
        name = card["id"]
        mine = not self.lineage or name == self.lineage or name.startswith(self.lineage + ".")
        return mine and self.content_type in ("", card["content_type"])

    def _said(self, card: Mapping[str, Any]) -> bool:
        if not self.text:
            return True
        wanted = self.text.casefold()
        return any(wanted in said.casefold() for said in _texts(card))

    def _became(self, card: Mapping[str, Any]) -> bool:
        if self.state not in ("any", "failed") and card["groups"]["solver"]["state"] != self.state:
            return False
        return not self.finding or any(f["detector"] == self.finding for f in card["findings"])

    def _within(self, card: Mapping[str, Any]) -> bool:
        if self.version is not None:
            span = card["versions"].get(self.role)
            if span is None or span[1] < self.version[0] or span[0] > self.version[1]:
                return False
        if self.agreement is not None:
            share = card["questions"]["hard"]["agreement"]
            if share is None or not self.agreement[0] <= share <= self.agreement[1]:
                return False
        return True


def _texts(card: Mapping[str, Any]) -> list[str]:
    found = [card["caption"], card["topic"], card["failure"]]
    for question in card["questions"].values():
        found += [question["question"], question["proposer_answer"]]
        found += [answer for answer, _ in question["votes"]]
    return found


def parse_wanted(query: Mapping[str, str]) -> Wanted:
    """WantedError. A text that is a lineage id asks for that lineage."""
    text = query.get("text", "").strip()[:LONGEST]
    lineage = query.get("lineage", "").strip()
    if not lineage and prompt_of(text) is not None:
        text, lineage = "", text
    if lineage and prompt_of(lineage) is None:
        raise WantedError(
            f"lineage={lineage[:40]!r} is no lineage id; write g12, g12.s0, g12.s0.d3"
        )
    state = query.get("state", "any") or "any"
    if state not in STATES:
        raise WantedError(f"state={state[:40]!r}: choose one of {', '.join(STATES)}")
    role = query.get("role", "solver") or "solver"
    if role not in ROLES:
        raise WantedError(f"role={role[:40]!r}: choose one of {', '.join(ROLES)}")
    version = _range(query, "version")
    return Wanted(
        text=text,
        lineage=lineage,
        content_type=query.get("type", "")[:LONGEST],
        state=state,
        finding=query.get("finding", "")[:LONGEST],
        role=role,
        version=None if version is None else (int(version[0]), int(version[1])),
        agreement=_range(query, "agreement"),
    )


def _range(query: Mapping[str, str], key: str) -> tuple[float, float] | None:
    """`3..9`, `3..`, `..9` or `3`."""
    text = query.get(key, "").strip()
    if not text:
        return None
    low, dots, high = text.partition("..")
    try:
        ends = float(low or 0), float((high or 1e9) if dots else low)
    except ValueError:
        raise WantedError(f"{key}={text[:40]!r} is no range; write 3..9, 3.. or 3") from None
    if not 0 <= ends[0] <= ends[1] <= 1e9:
        raise WantedError(f"{key}={text[:40]!r} is empty, or its ends are out of bounds")
    return ends


def count_of(query: Mapping[str, str], key: str, default: int, most: int) -> int:
    """A whole number from 0 to `most`; WantedError."""
    text = query.get(key, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise WantedError(f"{key}={text[:40]!r} is no whole number")
    return min(int(text), most)
