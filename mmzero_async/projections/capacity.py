"""How many requests each stage may have at the engines: their capacity, split by backlog."""

from collections.abc import Mapping
from typing import TypeVar

K = TypeVar("K")


def shares(backlog: Mapping[K, int], capacity: int) -> dict[K, int]:
    """Each stage's part of the capacity; `backlog`: its work, due or in hand.

    Nobody gets more than it has work for, and all of the capacity is given out while there is work.
    Whoever has work gets at least one while it lasts, the rest follows the backlog: by largest
    remainder, equals in the mapping's order.
    """
    given = dict.fromkeys(backlog, 0)
    for key in sorted(backlog, key=lambda key: -backlog[key]):
        if backlog[key] > 0 and capacity > 0:
            given[key], capacity = 1, capacity - 1
    left = {key: max(0, backlog[key] - given[key]) for key in backlog}
    total = sum(left.values())
    if total <= capacity:
        return {key: given[key] + left[key] for key in backlog}
    quotas = {key: divmod(capacity * left[key], total) for key in backlog}
    for key, (whole, _) in quotas.items():
        given[key] += whole
        capacity -= whole
    for key in sorted(quotas, key=lambda key: -quotas[key][1])[:capacity]:
        given[key] += 1
    return given
