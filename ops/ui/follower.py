"""The thread that reads a log from its first event to its newest, and then waits for more.

It is the only one that touches the history; what others see are values that it puts down. It takes
half of a processor's time at most while it catches up, so that page and run come first.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mmzero_async.config import Config
from mmzero_async.log.errors import LogError
from mmzero_async.log.interface import View
from mmzero_async.log.query import Limits
from mmzero_async.ops.ui.attendance import Worker
from mmzero_async.ops.ui.history import STAGE_NAMES, History
from mmzero_async.projections.admission import holding_back
from mmzero_async.projections.flow import stages
from mmzero_async.projections.making import Making
from mmzero_async.schemas.events import ROLES
from mmzero_async.schemas.flow import StageFlow
from mmzero_async.schemas.record import RecordDamaged
from mmzero_async.transport.errors import TransportError

PAGE = Limits(records=256, bytes=4 << 20, looked=256)
POLL_SECONDS = 0.25
TELL_SECONDS = 0.5  # between two looks put down
SHARE = 0.5  # of the time, at most, while catching up


@dataclass(frozen=True, slots=True)
class Look:
    """The run at one moment. Values: nobody changes them."""

    run: str = ""
    started: bool = False
    finished: str = ""  # the reason
    read: int = 0  # events
    end: int = 0
    error: str = ""  # why reading ended early
    stages: tuple[StageFlow, ...] = ()
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)  # a stage
    workers: tuple[Worker, ...] = ()
    roles: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[dict[str, Any], ...] = ()
    counts: dict[str, Any] = field(default_factory=dict)
    informative: tuple[str, ...] = ()
    iterations: tuple[tuple[int, int], ...] = ()
    versions: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    newest_picture: int = -1
    schedule: str = ""
    revision: int = 0

    @property
    def caught_up(self) -> bool:
        return self.read >= self.end


class Follower(threading.Thread):
    """Start it; read `look` and `curves`; `stop` ends it."""

    def __init__(
        self, reader: View, config: Config, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(name="follower", daemon=True)
        self._reader, self._config, self._clock = reader, config, clock
        self._history = History()
        self._stopping = threading.Event()
        self._drawn = -1  # the history's revision that the curves are of
        self._error = ""
        self.look = Look(run=reader.run, end=reader.next_offset)
        self.curves = msgspec.json.encode(self._history.curves())

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    def run(self) -> None:
        told = -TELL_SECONDS
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                page = self._reader.page(start=self._history.next_offset, limits=PAGE)
                for record in page.records:
                    self._history.apply(record)
            except (LogError, RecordDamaged, TransportError, ValueError, LookupError) as error:
                # What was read stays on the page; the newest pictures are read without it.
                self._error = f"history ends at offset {self._history.next_offset}: {error}"
                self._tell(self._reader_end())
                return
            behind = page.next < page.end
            if not behind or time.monotonic() - told >= TELL_SECONDS:
                if page.records or not behind:
                    self._tell(page.end)
                told = time.monotonic()
            worked = time.monotonic() - began
            self._stopping.wait(worked * (1 - SHARE) / SHARE if behind else POLL_SECONDS)

    def _reader_end(self) -> int:
        try:
            return self._reader.next_offset
        except (LogError, RecordDamaged, TransportError):
            return self._history.next_offset

    def _tell(self, end: int) -> None:
        history, now = self._history, self._clock()
        if history.revision != self._drawn:
            self.curves = msgspec.json.encode(history.curves())
            self._drawn = history.revision
        pipeline = history.pipeline
        finished = pipeline.finished.reason if pipeline.finished is not None else ""
        seen_from = history.last_seconds if finished else now
        # Without the log server nobody is known to hold anything, and nothing to have stalled.
        back = holding_back(pipeline, self._config, 0, Making())
        alone = stages(pipeline, history.flow, self._config, {}, [], back, seen_from)
        self.look = Look(
            run=self._reader.run,
            started=pipeline.started is not None,
            finished=finished,
            read=history.next_offset,
            end=end,
            error=self._error,
            stages=tuple(msgspec.structs.replace(stage, stalled=False) for stage in alone),
            figures={name: history.stage_figures(name, seen_from) for name in STAGE_NAMES},
            workers=tuple(msgspec.structs.replace(w) for w in history.attendance.workers.values()),
            roles={
                role: {
                    "step": pipeline.policies.step[role],
                    "version": pipeline.policies.version(role),
                    "served": _version(pipeline.policies.published.get(role)),
                    "ready": len(pipeline.book.ready[role]),
                    "trained": pipeline.book.trained[role],
                    "rejected": sum(n for (r, _), n in pipeline.book.rejected.items() if r == role),
                }
                for role in ROLES
            },
            notes=tuple(
                {"offset": offset, "seconds": seconds, "sort": sort, "text": text}
                for offset, seconds, sort, text in history.notes
            ),
            counts={
                "renders": dict(history.renders.most_common(20)),
                "shortcuts": dict(history.shortcuts.most_common(20)),
                "first_seconds": history.first_seconds,
                "last_seconds": history.last_seconds,
            },
            informative=tuple(history.most_informative()),
            iterations=tuple(history.iterations),
            versions={role: list(history.versions[role].kept) for role in ROLES},
            newest_picture=history.newest_picture,
            schedule=pipeline.schedule.whose_turn if pipeline.schedule.order else "",
            revision=history.revision,
        )


def _version(published: Any) -> int | None:
    return published.version if published is not None else None
