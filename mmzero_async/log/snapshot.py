"""A read transaction that ends by itself: whoever forgets it pins no pages for ever."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from mmzero_async.log.errors import SnapshotOver


class Pinned:
    """Holds the transaction for at most `seconds`; `use` and `end` may be called by any thread."""

    def __init__(self, transaction: Any, seconds: float, what: str) -> None:
        self._transaction, self._seconds, self._what = transaction, seconds, what
        self._lock = threading.RLock()
        self._timer = threading.Timer(seconds, self.end)
        self._timer.daemon = True
        self._timer.start()

    @contextlib.contextmanager
    def use(self) -> Iterator[Any]:
        """The transaction, which does not end while it is being used. SnapshotOver."""
        with self._lock:
            if self._transaction is None:
                raise over(self._what, self._seconds)
            yield self._transaction

    def end(self) -> None:
        self._timer.cancel()
        with self._lock:
            if self._transaction is not None:
                self._transaction.abort()
                self._transaction = None


def over(what: str, seconds: float) -> SnapshotOver:
    return SnapshotOver(
        f"the snapshot of {what} is over, it was opened for {seconds:g} s: open another one, for "
        "more seconds if need be"
    )
