"""One reader for several threads: one call at a time, and no call is long.

LMDB may map a log anew when its writer has grown it, which no other thread of the process may be
reading through; a remote reader takes one call at a time anyway.
"""

import threading
from collections.abc import Iterator

from mmzero_async.log.interface import View
from mmzero_async.log.query import Limits, Page
from mmzero_async.log.where import ANYTHING, Where
from mmzero_async.schemas.record import Record

SHORT = Limits(records=256, bytes=4 << 20, looked=1024)


class Shared:
    """A view; `page` never looks at more than `SHORT`."""

    def __init__(self, reader: View) -> None:
        self._reader, self._lock = reader, threading.Lock()

    @property
    def run(self) -> str:
        return self._reader.run

    @property
    def next_offset(self) -> int:
        with self._lock:
            return self._reader.next_offset

    def get(self, offset: int) -> Record:
        with self._lock:
            return self._reader.get(offset)

    def page(
        self,
        where: Where = ANYTHING,
        start: int = 0,
        stop: int | None = None,
        limits: Limits = SHORT,
    ) -> Page:
        short = Limits(
            records=min(limits.records, SHORT.records),
            bytes=min(limits.bytes, SHORT.bytes),
            looked=min(limits.looked, SHORT.looked),
        )
        with self._lock:
            return self._reader.page(where, start, stop, short)

    def scan(
        self, start: int = 0, stop: int | None = None, where: Where = ANYTHING
    ) -> Iterator[Record]:
        while True:
            page = self.page(where, start, stop)
            yield from page.records
            start = page.next
            if start >= (page.end if stop is None else min(stop, page.end)):
                return

    def blob(self, digest: str) -> bytes:
        with self._lock:
            return self._reader.blob(digest)

    def has_blob(self, digest: str) -> bool:
        with self._lock:
            return self._reader.has_blob(digest)
