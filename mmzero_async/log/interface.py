"""What every reader of a log offers, the one in this host's files and the one over the network.

Errors are the same for both: LogError and RecordDamaged; the remote one may find nobody besides.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from mmzero_async.log.query import Limits, Page
from mmzero_async.log.where import ANYTHING, Where
from mmzero_async.schemas.record import Record

SNAPSHOT_SECONDS = 30.0


class View(Protocol):
    """Committed events by offset and filter, blobs by digest."""

    @property
    def run(self) -> str: ...

    @property
    def next_offset(self) -> int:
        """The number of committed events."""
        ...

    def get(self, offset: int) -> Record:
        """LogError when the offset is not committed; RecordDamaged."""
        ...

    def page(
        self,
        where: Where = ANYTHING,
        start: int = 0,
        stop: int | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> Page:
        """What is wanted of [start, stop), as far as the limits go; may be nothing yet."""
        ...

    def scan(
        self, start: int = 0, stop: int | None = None, where: Where = ANYTHING
    ) -> Iterator[Record]:
        """Wanted records of [start, stop), or up to the end as it is when the scan gets there."""
        ...

    def blob(self, digest: str) -> bytes:
        """Checked against its digest. BlobDropped (by compaction), BlobMissing, RecordDamaged."""
        ...

    def has_blob(self, digest: str) -> bool: ...


class Reader(View, Protocol):
    """A view that moves with the log."""

    def snapshot(self, seconds: float = SNAPSHOT_SECONDS) -> AbstractContextManager[View]:
        """A view of the log as it is now, for at most so many seconds; then SnapshotOver."""
        ...

    def follow(self, start: int = 0, where: Where = ANYTHING) -> AsyncGenerator[Record, None]:
        """Wanted records from an offset on, as they are committed, for ever. Close it when done."""
        ...

    async def wait(self, offset: int, *, seconds: float) -> bool:
        """Whether an event at `offset` is committed within so many seconds."""
        ...

    def close(self) -> None: ...
