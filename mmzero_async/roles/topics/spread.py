"""Seed topics spread over many axes: every 32-bit seed is another one, and the same one for ever.

A seed becomes a place in the space of all combinations by a mixer that is one to one, and the place
is read off axis by axis. So N different seeds give N different topics, without a memory of those
that were drawn, and every value of an axis is drawn equally often.
"""

import math
from dataclasses import dataclass

from mmzero_async.roles.topics import axes

SEEDS = 1 << 32


@dataclass(frozen=True, slots=True)
class Topic:
    """One combination; `kind` is the content type that goes with the form."""

    kind: str
    form: str
    domain: str
    setting: str
    relation: str
    twist: str
    difficulty: str
    size: str
    colours: str

    def __str__(self) -> str:
        return (
            f"{self.form} ({self.kind}) about {self.domain}, {self.setting}; {self.size}, "
            f"{self.colours}, {self.twist}. The hard question turns on {self.relation} and takes "
            f"{self.difficulty}."
        )


_RELATIONS = len(next(iter(axes.RELATIONS.values())))
_RADICES = (
    len(axes.FORMS),
    len(axes.DOMAINS),
    _RELATIONS,
    len(axes.TWISTS),
    len(axes.SETTINGS),
    len(axes.DIFFICULTIES),
    len(axes.SIZES),
    len(axes.COLOURS),
)
SPACE = math.prod(_RADICES)  # at least SEEDS, which the tests hold it to


def topic(seed: int) -> str:
    """The topic of a seed, in words."""
    return str(choose(seed))


def choose(seed: int) -> Topic:
    """The topic of a seed; seeds that differ in their lower 32 bits have different topics."""
    place, span = _mixed(seed % SEEDS) * SPACE // SEEDS, SPACE
    digits = []
    for radix in _RADICES:  # from the largest digit down: each axis is cut into equal parts
        span //= radix
        digit, place = divmod(place, span)
        digits.append(digit)
    form, domain, relation, twist, setting, difficulty, size, colours = digits
    kind, name = axes.FORMS[form]
    return Topic(
        kind=kind,
        form=name,
        domain=axes.DOMAINS[domain],
        setting=axes.SETTINGS[setting],
        relation=axes.RELATIONS[kind][relation],
        twist=axes.TWISTS[twist],
        difficulty=axes.DIFFICULTIES[difficulty],
        size=axes.SIZES[size],
        colours=axes.COLOURS[colours],
    )


def _mixed(value: int) -> int:
    """One to one on 32 bits: xor-shifts and odd factors (MurmurHash3's finaliser)."""
    value ^= value >> 16
    value = value * 0x85EBCA6B % SEEDS
    value ^= value >> 13
    value = value * 0xC2B2AE35 % SEEDS
    return value ^ value >> 16
