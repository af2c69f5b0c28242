"""The audit as a job: every promise checked from the first event on, once somebody asks for it."""

import threading
import time
from collections.abc import Mapping
from typing import Any

from mmzero_async.log.errors import LogError
from mmzero_async.log.interface import View
from mmzero_async.log.query import Limits
from mmzero_async.projections.audit import Audit
from mmzero_async.schemas.events import ROLES
from mmzero_async.schemas.record import RecordDamaged
from mmzero_async.transport.errors import TransportError

PAGE = Limits(records=256, bytes=4 << 20, looked=256)
SHARE = 0.5  # of the time, at most


class Auditor:
    """One audit at a time. `state` is replaced, never changed."""

    def __init__(self, reader: View) -> None:
        self._reader = reader
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self.state: Mapping[str, Any] = {"state": "none"}

    def start(self) -> bool:
        """Whether one was started; not while one is going on."""
        if self._thread is not None and self._thread.is_alive():
            return False
        self.state = {"state": "running", "read": 0, "of": self._reader.next_offset}
        self._thread = threading.Thread(target=self._run, name="auditor", daemon=True)
        self._thread.start()
        return True

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        audit, began = Audit(), time.monotonic()
        of = self._reader.next_offset
        try:
            while audit.events < of and not self._stopping.is_set():
                worked = time.monotonic()
                page = self._reader.page(start=audit.events, stop=of, limits=PAGE)
                for record in page.records:
                    audit.apply(record)
                self.state = {"state": "running", "read": audit.events, "of": of}
                worked = time.monotonic() - worked
                self._stopping.wait(worked * (1 - SHARE) / SHARE)
        except (LogError, RecordDamaged, TransportError, ValueError, LookupError) as error:
            problems = [*audit.problems, f"offset {audit.events}: {error}"]
            self.state = _told(audit, of, began, problems)
            return
        self.state = _told(audit, of, began, audit.problems)


def _told(audit: Audit, of: int, began: float, problems: list[str]) -> dict[str, Any]:
    return {
        "state": "done",
        "read": audit.events,
        "of": of,
        "seconds": time.monotonic() - began,
        "problems": list(problems),
        "roles": {
            role: {
                "complete": audit.complete[role],
                "trained": audit.trained[role],
                "rejected": {
                    reason: count for (r, reason), count in audit.rejected.items() if r == role
                },
                "pending": audit.pending[role],
            }
            for role in ROLES
        },
    }
