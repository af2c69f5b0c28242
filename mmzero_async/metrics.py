"""The figures that a process keeps for Prometheus, and whether it is well. docs/METRICS.md has the
table; metrics_http.py serves them.

Every process has a `Metrics` of its own, served or not.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

HUNG_SECONDS = 60.0  # without a turn of its main loop, and a process is not healthy
_SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_LONG = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric: its name without the `_total` of counters, what it is, its labels."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = _LONG

    @property
    def series(self) -> tuple[str, ...]:
        """The names under which Prometheus stores it."""
        if self.kind == "histogram":
            return tuple(f"{self.name}{end}" for end in ("_bucket", "_count", "_sum"))
        return (f"{self.name}_total" if self.kind == "counter" else self.name,)


READY = Figure("mmzero_ready", "gauge", "1 while the process has joined the run and is at work")
# The log server.
EVENTS = Figure("mmzero_events_appended", "counter", "Events committed", ("kind",))
COMMIT = Figure("mmzero_commit_seconds", "histogram", "One group commit", (), _SHORT)
DUE = Figure("mmzero_due", "gauge", "Pieces of work due, those in hand among them", ("stage",))
HELD = Figure("mmzero_leases", "gauge", "Of them, in a worker's hands", ("stage",))
STILL = Figure("mmzero_still_seconds", "gauge", "Since the stage's last event", ("stage",))
STALLED = Figure(
    "mmzero_stalled", "gauge", "1 while the stage stands still with work due", ("stage",)
)
WORKERS = Figure("mmzero_workers", "gauge", "Processes on the log server's line", ("role",))
# Workers of a stage.
WORK = Figure(
    "mmzero_work_seconds", "histogram", "From a lease to its result", ("stage", "outcome")
)
IN_HAND = Figure("mmzero_work_in_hand", "gauge", "Pieces of work in hand", ("stage",))
RENDERS = Figure("mmzero_renders", "counter", "Drawings, by what became of them", ("outcome",))
ENGINE_IN_FLIGHT = Figure(
    "mmzero_engine_requests", "gauge", "Generation requests under way", ("engine",)
)
ENGINE_QUEUED = Figure(
    "mmzero_engine_queued", "gauge", "Generation requests that wait for an engine with room"
)
ENGINE_SECONDS = Figure(
    "mmzero_engine_seconds", "histogram", "One answered generation request", ("engine",)
)
ENGINE_TOKENS = Figure(
    "mmzero_engine_tokens", "counter", "Tokens drawn or prompted", ("engine", "what")
)
ENGINE_UP = Figure("mmzero_engine_up", "gauge", "1 while the engine takes requests", ("engine",))
ENGINE_LIMIT = Figure(
    "mmzero_engine_limit", "gauge", "Samples that may be under way there", ("engine",)
)
ENGINE_LOST = Figure("mmzero_engine_lost", "counter", "Times that it was found down", ("engine",))
ENGINE_RETRIED = Figure(
    "mmzero_engine_retried", "counter", "Requests lost there and tried again", ("engine",)
)
# The learner.
STEPS = Figure("mmzero_learner_steps", "counter", "Committed steps", ("role",))
STEP_SECONDS = Figure("mmzero_learner_step_seconds", "histogram", "One step", ("role",))
WAITED = Figure("mmzero_learner_waited_seconds", "counter", "Waited for a full window")
VERSION = Figure("mmzero_learner_version", "gauge", "The newest committed version", ("role",))
LAST = Figure("mmzero_learner_last", "gauge", "A figure of the last step", ("role", "what"))

TABLE = tuple(value for value in globals().values() if isinstance(value, Figure))
LAST_FIGURES = ("loss", "reward_mean", "ess_share", "staleness_mean", "staleness_max")


class Metrics:
    """May be called from any thread. Figures appear once they were first counted."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._made: dict[Figure, Counter | Gauge | Histogram] = {}
        self._lock = threading.Lock()
        self._seen: dict[Figure, set[str]] = {}
        self._beat = time.monotonic()
        self._ready = False

    # --- figures -------------------------------------------------------------------------------

    def add(self, figure: Figure, amount: float = 1.0, **labels: str) -> None:
        """To a counter, or to a gauge (then also less than nothing)."""
        metric = self._metric(figure)
        assert not isinstance(metric, Histogram), figure.name
        (metric.labels(**labels) if labels else metric).inc(amount)

    def set(self, figure: Figure, value: float, **labels: str) -> None:
        metric = self._metric(figure)
        assert isinstance(metric, Gauge), figure.name
        (metric.labels(**labels) if labels else metric).set(value)

    def set_all(self, figure: Figure, values: Mapping[str, float]) -> None:
        """All values of a gauge of one label: those of earlier that are missing become 0."""
        seen = self._seen.setdefault(figure, set())
        for gone in seen - values.keys():
            self.set(figure, 0.0, **{figure.labels[0]: gone})
        seen.update(values)
        for label, value in values.items():
            self.set(figure, value, **{figure.labels[0]: label})

    def observe(self, figure: Figure, value: float, **labels: str) -> None:
        metric = self._metric(figure)
        assert isinstance(metric, Histogram), figure.name
        (metric.labels(**labels) if labels else metric).observe(value)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        self.set(READY, float(self.ready))
        return generate_latest(self.registry)

    def _metric(self, figure: Figure) -> Counter | Gauge | Histogram:
        with self._lock:
            metric = self._made.get(figure)
            if metric is None:
                metric = self._made[figure] = self._make(figure)
            return metric

    def _make(self, figure: Figure) -> Counter | Gauge | Histogram:
        about = (figure.name, figure.help, figure.labels)
        match figure.kind:
            case "counter":
                return Counter(*about, registry=self.registry)
            case "gauge":
                return Gauge(*about, registry=self.registry)
            case "histogram":
                return Histogram(*about, registry=self.registry, buckets=figure.buckets)

    # --- health --------------------------------------------------------------------------------

    def beat(self, *, ready: bool) -> None:
        """The main loop turns. `ready`: the process has joined the run and is at work."""
        self._beat, self._ready = time.monotonic(), ready

    @property
    def healthy(self) -> bool:
        return time.monotonic() - self._beat < HUNG_SECONDS

    @property
    def ready(self) -> bool:
        return self._ready and self.healthy
