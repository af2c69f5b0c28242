"""Which events are wanted: a filter that can be written down, sent and checked.

    role=solver kind=answered,rewarded version=3..9 reward=0.5.. since=2026-11-24T10:00

Terms are joined by "and", the words of one term by "or"; quote a word that has spaces. Pure: knows
events, not how they are stored.

    role       proposer, coder, solver, renderer, or what a worker calls itself
    kind       the event's kind: proposed, coded, rendered, answered, rewarded, ...
    version    policy versions that sampled, that a step made, or that was published
    staleness  versions that a sample's policy was behind its role's newest one when it was logged
    reward     a group's rewards: one of them lies in the range
    outcome    ok or how it failed, a rejection's reason; `*` and `?` stand for anything
    lineage    the id itself or what descends from it: g12, g12.s0, g12.s0.d3
    since, until   when the log took it, ISO 8601, UTC unless it says otherwise; both inclusive
"""

import difflib
import math
import shlex
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import msgspec

from mmzero_async.schemas.about import (
    lineages_of,
    outcomes_of,
    rewards_of,
    role_of,
    versions_of,
)
from mmzero_async.schemas.events import Answered, AnyEvent, Coded, Probed, Proposed
from mmzero_async.schemas.ids import indices, prompt_of
from mmzero_async.schemas.record import Record

LONGEST = 4096  # characters of a filter's text
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
T = TypeVar("T")
NewestVersion = Callable[[str, int], int]  # (role, offset) -> newest version made before it


class WhereError(ValueError):
    """A filter that cannot be understood: says which term, why, and what it may be."""


class Range(msgspec.Struct, frozen=True):
    """Both ends belong to it; None: open."""

    low: float | None = None
    high: float | None = None

    def __contains__(self, value: float) -> bool:
        return not (
            (self.low is not None and value < self.low)
            or (self.high is not None and value > self.high)
        )

    def overlaps(self, low: float, high: float) -> bool:
        return not (
            (self.low is not None and high < self.low)
            or (self.high is not None and low > self.high)
        )

    def __str__(self) -> str:
        if self.low is not None and self.low == self.high:
            return f"{self.low!r}"
        low, high = ("" if end is None else f"{end!r}" for end in (self.low, self.high))
        return f"{low}..{high}"


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """Empty or None: any. `str` gives a text that parses to the same filter."""

    roles: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    versions: Range | None = None
    staleness: Range | None = None
    rewards: Range | None = None
    outcomes: tuple[str, ...] = ()
    lineages: tuple[str, ...] = ()
    since_ns: int | None = None
    until_ns: int | None = None

    @property
    def anything(self) -> bool:
        return self == ANYTHING

    def matches(self, record: Record, newest: NewestVersion | None = None) -> bool:
        """Whether a record is wanted. `newest` must be given where staleness is asked for."""
        if self.kinds and record.kind not in self.kinds:
            return False
        if record.envelope.time_ns not in Range(self.since_ns, self.until_ns):
            return False
        if not self._reads_events:
            return True
        event = record.event()
        return self._matches_event(event) and self._fresh_enough(record.offset, event, newest)

    @property
    def _reads_events(self) -> bool:
        ranges = (self.versions, self.staleness, self.rewards)
        return bool(self.roles or self.outcomes or self.lineages) or any(
            r is not None for r in ranges
        )

    def _matches_event(self, event: AnyEvent) -> bool:
        if self.roles and role_of(event) not in self.roles:
            return False
        if self.lineages and not any(map(self._descends, lineages_of(event))):
            return False
        if self.versions is not None:
            found = versions_of(event)
            if found is None or not self.versions.overlaps(*found):
                return False
        if self.rewards is not None and not any(r in self.rewards for r in rewards_of(event)):
            return False
        return not self.outcomes or any(
            fnmatchcase(outcome, pattern)
            for outcome in outcomes_of(event)
            for pattern in self.outcomes
        )

    def _descends(self, lineage: str) -> bool:
        return any(lineage == of or lineage.startswith(of + ".") for of in self.lineages)

    def _fresh_enough(self, offset: int, event: AnyEvent, newest: NewestVersion | None) -> bool:
        if self.staleness is None:
            return True
        if newest is None:
            raise ValueError("a filter by staleness needs to know each role's newest version")
        if not isinstance(event, Proposed | Coded | Answered | Probed):
            return False
        found, role = versions_of(event), event.generation.role
        return found is not None and newest(role, offset) - found[0] in self.staleness

    def __str__(self) -> str:
        terms = [
            f"{key}={shlex.quote(','.join(words))}"
            for key, words in (
                ("role", self.roles),
                ("kind", self.kinds),
                ("outcome", self.outcomes),
                ("lineage", self.lineages),
            )
            if words
        ]
        terms += [
            f"{key}={found}"
            for key, found in (
                ("version", self.versions),
                ("staleness", self.staleness),
                ("reward", self.rewards),
            )
            if found is not None
        ]
        terms += [
            f"{key}={_iso(found)}"
            for key, found in (("since", self.since_ns), ("until", self.until_ns))
            if found is not None
        ]
        return " ".join(terms)

    def __post_init__(self) -> None:
        for name, words in (
            ("role", self.roles),
            ("kind", self.kinds),
            ("outcome", self.outcomes),
            ("lineage", self.lineages),
        ):
            for word in words:
                if not word or "," in word:
                    raise WhereError(
                        f"{name}={word!r}: an empty word or one with a comma cannot be looked for; "
                        "write ? for the comma"
                    )
        for lineage in self.lineages:
            try:
                indices(lineage)
            except ValueError as error:
                raise WhereError(f"lineage={error}") from None

    def prompts(self) -> frozenset[int]:
        """The prompts at the root of the lineages that are asked for."""
        return frozenset(p for lineage in self.lineages if (p := prompt_of(lineage)) is not None)


ANYTHING = Where()


def parse_where(text: str) -> Where:
    """`role=solver version=3..9` as a filter; WhereError."""
    if len(text) > LONGEST:
        raise WhereError(f"a filter of {len(text)} characters: at most {LONGEST} are read")
    try:
        terms = shlex.split(text)
    except ValueError as error:
        raise WhereError(f"where: {error} in {text!r}: close the quote") from None
    fields: dict[str, Any] = {}
    for number, term in enumerate(terms, 1):
        key, equals, value = term.partition("=")
        place = f"where, term {number} ({term!r}):"
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise WhereError(f"{place} no such key {key!r}; {hint}known are {', '.join(_KEYS)}")
        if not equals or not value:
            raise WhereError(f"{place} no value; write {key}={_KEYS[key][2]}")
        field, read, example = _KEYS[key]
        if field in fields:
            raise WhereError(f"{place} {key} is given twice; join words with commas")
        try:
            fields[field] = read(value)
        except ValueError as error:
            raise WhereError(f"{place} {error}; write it like {key}={example}") from None
    return Where(**fields)


def _words(text: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(text.split(",")))
    if not all(words):
        raise ValueError("an empty word between commas")
    return words


def _lineages(text: str) -> tuple[str, ...]:
    words = _words(text)
    for word in words:
        indices(word)
    return words


def _integers(text: str) -> Range:
    return _range(text, int, "whole number")


def _numbers(text: str) -> Range:
    return _range(text, _number, "number")


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def _range(text: str, read: Callable[[str], float], what: str) -> Range:
    low, dots, high = text.partition("..")
    try:
        ends = [read(end) if end else None for end in (low, high if dots else low)]
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no {what} and no range of them") from None
    if ends == [None, None]:
        raise ValueError("a range without ends")
    if ends[0] is not None and ends[1] is not None and ends[0] > ends[1]:
        raise ValueError(f"the range {text} is empty")
    return Range(*ends)


def _time(text: str) -> int:
    """ISO 8601 as nanoseconds; digits beyond microseconds count."""
    head, dot, rest = text.partition(".")
    digits = "".join(c for c in _leading(rest, str.isdigit))
    fraction, zone = digits[:9].ljust(9, "0"), rest[len(digits) :]
    try:
        moment = datetime.fromisoformat(head + zone)
    except ValueError:
        raise ValueError(f"{text!r} is no time") from None
    if dot and not digits:
        raise ValueError(f"{text!r} is no time")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000 + int(fraction)


def _leading(text: str, belongs: Callable[[str], bool]) -> Iterable[str]:
    for character in text:
        if not belongs(character):
            return
        yield character


def _iso(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 10**9)
    moment = (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None)
    return f"{moment.isoformat(timespec='seconds')}.{rest:09}Z"


_KEYS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "role": ("roles", _words, "solver,coder"),
    "kind": ("kinds", _words, "answered,rewarded"),
    "version": ("versions", _integers, "3..9"),
    "staleness": ("staleness", _integers, "2.."),
    "reward": ("rewards", _numbers, "0.5.."),
    "outcome": ("outcomes", _words, "timeout,not_*"),
    "lineage": ("lineages", _lineages, "g12.s0"),
    "since": ("since_ns", _time, "2026-11-24T10:00"),
    "until": ("until_ns", _time, "2026-11-24T11:00Z"),
}
