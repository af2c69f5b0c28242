"""Holds the secondary index against the events: every full block's summary, entry by entry.

Needs 16 bytes of memory a block. A log without an index, or with one that ends early, is sound:
readers scan what has no summary.
"""

from array import array
from collections.abc import Iterable, Iterator

from mmzero_async.log.index import BLOCK, BY_TIME, Indexed, block_of_key, indexed, summary
from mmzero_async.schemas.record import Envelope

_UNKNOWN = 0  # in place of a hash: an event of the block is damaged, nothing can be said


class IndexCheck:
    """Is told every event in order, then every entry of the index."""

    def __init__(self) -> None:
        self._expected = array("Q")  # a full block's hash over its entries
        self._open: list[Indexed | None] = []

    def add(self, envelope: Envelope | None) -> None:
        """The next offset's; None for one that is damaged or missing."""
        self._open.append(None if envelope is None else indexed(envelope))
        if len(self._open) == BLOCK:
            sound = [event for event in self._open if event is not None]
            block, whole = len(self._expected), len(sound) == BLOCK
            entries = summary(block, sound).items() if whole else ()
            self._expected.append(_combined(map(_hash, entries)) if whole else _UNKNOWN)
            self._open = []

    def problems(self, entries: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[str, int | None]]:
        """What is wrong, and the first offset that a reader may miss or find in vain."""
        blocks = len(self._expected)
        found, last = array("Q", bytes(8 * blocks)), -1
        for key, value in entries:
            block = block_of_key(key)
            if not 0 <= block < blocks:
                yield f"the secondary index has an entry {key.hex()} of no full block", None
                continue
            found[block] = _combined((found[block], _hash((key, value))))
            if key[:1] == BY_TIME:
                last = max(last, block)
        for block, (expected, actual) in enumerate(zip(self._expected, found, strict=True)):
            missing = block > last and not actual
            if expected not in (_UNKNOWN, actual) and not missing:
                text = f"the secondary index disagrees with offsets up to {(block + 1) * BLOCK - 1}"
                yield f"{text}: make it anew with `mmzero log reindex`", block * BLOCK


def _hash(entry: tuple[bytes, bytes]) -> int:
    return hash(entry) & (2**64 - 1)


def _combined(hashes: Iterable[int]) -> int:
    """Whatever their order."""
    return sum(hashes) & (2**64 - 1)
