"""Which engine a request goes to, and how much may be under way there: pure decisions.

Knows no sockets and no clock. pool.py asks, and carries it out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

STEP = 4.0  # samples more, each look at which the limit was what held requests back
HUNGRY = 1.5  # times as many, at looks at which besides nothing waited at the engine
FULL = 0.97  # of the KV cache: what waits now waits for room in it


@dataclass(frozen=True, slots=True)
class Standing:
    """One engine, as far as the pool knows, when a request has to go somewhere."""

    up: bool
    holds: bool  # the version that is asked for
    samples: int  # under way there, of ours
    tokens: int  # that these may still draw, at most
    limit: float  # samples that may be under way there
    tried: bool = False  # this request was lost there


class Not(Enum):
    """Why no engine is chosen."""

    FREE = "those that could serve it are at their limits"
    HELD = "no engine that is up holds the policy"
    UP = "no engine is up"


def choose(standings: Sequence[Standing], samples: int, turn: int = 0) -> int | Not:
    """The engine for a request of so many samples: an index, or why there is none.

    It is up, holds the policy and has room within its limit, or nothing under way at all, for no
    request is too large for an idle engine. Of these one where the request was not lost before if
    there is such a one, then one with the least to draw; equals take turns.
    """
    up = [i for i, it in enumerate(standings) if it.up]
    able = [i for i in up if standings[i].holds]
    if not able:
        return Not.HELD if up else Not.UP
    fresh = [i for i in able if not standings[i].tried]
    free = [i for i in fresh or able if _has_room(standings[i], samples)]
    if not free:
        return Not.FREE
    count = len(standings)
    return min(free, key=lambda i: (standings[i].tokens, (i - turn) % count))


def _has_room(it: Standing, samples: int) -> bool:
    return not it.samples or it.samples + samples <= it.limit


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine tells of itself at one look; `preemptions` since its start."""

    running: float
    waiting: float
    preemptions: float
    kv_cache_usage: float


def carries(before: Load, now: Load) -> float:
    """What part of its load the engine can carry, 1 for all of it.

    Half, when it threw computed work out again since the last look, or has no room for what waits.
    As many as run there and as many again that wait, when more wait: its batches are full all the
    same, and less would empty them.
    """
    if now.preemptions > before.preemptions or (now.waiting > 0 and now.kv_cache_usage >= FULL):
        return 0.5
    carried = 2 * max(now.running, 1.0)
    return min(1.0, carried / max(now.running + now.waiting, carried))


def adapted(
    limit: float,
    before: Load,
    now: Load,
    *,
    samples: int,
    held_back: bool,
    least: float,
    most: float,
) -> float:
    """The limit after a look, from least to most: the part of what is under way that the engine
    can carry when that is less than all, more when requests were held back, else as it was.

    Additive increase and multiplicative decrease, for each worker process sees only its own
    requests and the engine's figures: who has more gives up more, so they end up alike. An engine
    where nothing waits is not to stay hungry for as long as steps would take: what others left
    there in a burst is taken up at once. While more is under way than the limit allows, the last
    decrease has not been felt yet.

    Args:
        samples: under way at the engine, of ours.
        held_back: whether a request had to wait for the limit since the last look.
    """
    part = carries(before, now)
    if part < 1:
        if 0 < samples <= limit:
            limit = samples * part
    elif held_back:
        limit = max(limit + STEP, limit * HUNGRY if now.waiting == 0 else 0.0)
    return min(max(limit, least), most)
