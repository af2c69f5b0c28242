"""The JSON file in which a folder of ours says what it holds."""

from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from mmzero_async.log.errors import LogError


class Listing(Protocol):
    @property
    def format(self) -> int: ...


T = TypeVar("T", bound=Listing)


def write_listing(path: Path, listing: Any) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(listing), indent=2))


def read_listing(path: Path, kind: type[T], what: str, newest: int, damaged: type[LogError]) -> T:
    """`what` its folder is. `damaged` where there is none, none that reads, or a newer format."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        raise damaged(f"{path.parent} is no {what}: it holds no {path.name}") from None
    except msgspec.MsgspecError as error:
        raise damaged(f"{path} is damaged: {error}") from error
    if found.format > newest:
        raise damaged(
            f"{path.parent} has {what} format {found.format}, this version reads up to {newest}: "
            "upgrade it"
        )
    return found
