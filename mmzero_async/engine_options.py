"""Keys of `[engine]` that say how many there are and how requests are shared out to them."""

from typing import Annotated

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1, le=4096)]


class PoolOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """EngineConfig has them beside its own keys. Limits are in samples: a request for n is n."""

    count: Count = 1  # engines of our own, all alike; with full weights of each role
    in_flight_least: Count = 8  # samples that a process may have under way at one engine, ...
    in_flight_most: Count = 512  # ... between these two by how the engine copes
    tries: Count = 3  # engines that one request is tried at, one after the other
    # Requests under way at all engines, split between the roles by backlog; 0: hands alone limit.
    capacity: Annotated[int, msgspec.Meta(ge=0, le=65536)] = 0


def unusable_pool(options: PoolOptions, url: str) -> str | None:
    """Why a pool cannot be made of these options."""
    if options.in_flight_least > options.in_flight_most:
        return (
            f"engine.in_flight_least = {options.in_flight_least} is above engine.in_flight_most = "
            f"{options.in_flight_most}"
        )
    if url and options.count > 1:
        return (
            "engine.count is how many engines are started, and engine.url names engines that run "
            "already: name several there, separated by commas, and leave engine.count out"
        )
    if 0 < options.capacity < ROLES_THAT_GENERATE:
        return (
            f"engine.capacity = {options.capacity}: each of the three roles needs one request "
            "under way; 0 leaves it to workers.*_in_flight"
        )
    return None


ROLES_THAT_GENERATE = 3
