"""All that the page tells of a run's past and present, from its log alone, in bounded memory.

Fed every record in order; knows no files, no sockets and no clock.
"""

import heapq
from collections import Counter, deque
from dataclasses import dataclass, field
from statistics import fmean, pstdev
from typing import Any

from mmzero_async.ops.ui.attendance import Attendance
from mmzero_async.ops.ui.notable import notable
from mmzero_async.ops.ui.series import Means, Rate, Table, Thinned
from mmzero_async.projections.flow import TRAINING, Flow
from mmzero_async.projections.pipeline import Pipeline
from mmzero_async.projections.report import accuracy, wilson
from mmzero_async.roles.solver import tally
from mmzero_async.schemas.about import role_of, versions_of
from mmzero_async.schemas.events import (
    ROLES,
    Answered,
    AnyEvent,
    Evaluated,
    PolicyPublished,
    Rendered,
    Rewarded,
    Role,
    StepCommitted,
)
from mmzero_async.schemas.record import Record
from mmzero_async.schemas.work import STAGES, completes

REMEMBERED = 256  # events of a stage whose staleness is averaged
MOST_INFORMATIVE = 256
EVALUATIONS = 256
NOTES = 40

# Of a step's metrics, what the page draws.
METRICS = (
    *("loss", "reward_mean", "reward_std", "ess_share", "entropy", "kl", "clipped_share"),
    *("mismatch_kl", "drift_kl_older_versions", "staleness_mean", "staleness_max"),
    *("grad_norm", "seconds"),
)


@dataclass(slots=True)
class History:
    """`apply` every record; the rest is for reading."""

    pipeline: Pipeline = field(default_factory=Pipeline)
    flow: Flow = field(default_factory=lambda: Flow(started=0.0))
    attendance: Attendance = field(default_factory=Attendance)
    tables: dict[Role, Table] = field(default_factory=lambda: {role: Table() for role in ROLES})
    rates: dict[str, Rate] = field(default_factory=dict)  # a stage
    behind: dict[str, deque[float]] = field(default_factory=dict)  # versions, of a stage
    renders: Counter[str] = field(default_factory=Counter)  # "" is success
    shortcuts: Counter[str] = field(default_factory=Counter)
    evaluations: deque[Evaluated] = field(default_factory=lambda: deque(maxlen=EVALUATIONS))
    informative: list[tuple[float, int, str]] = field(default_factory=list)  # heap: least first
    versions: dict[Role, Thinned] = field(default_factory=lambda: {r: Thinned() for r in ROLES})
    iterations: list[tuple[int, int]] = field(default_factory=list)  # (number, first offset)
    notes: deque[tuple[int, float, str, str]] = field(default_factory=lambda: deque(maxlen=NOTES))
    revision: int = 0  # grows with what the curves are drawn from
    newest_picture: int = -1  # offset
    last_seconds: float = 0.0
    first_seconds: float = 0.0
    _means: dict[Role, Means] = field(default_factory=lambda: {role: Means() for role in ROLES})

    @property
    def next_offset(self) -> int:
        return self.pipeline.next_offset

    def apply(self, record: Record) -> None:
        """ValueError or LookupError when the record does not follow from those before it."""
        event, seconds = record.event(), record.envelope.time_ns / 1e9
        due, _ = self.pipeline.apply(record.offset, event)
        self.flow.apply(seconds, event, due, self.pipeline.lineage.open)
        self.attendance.apply(seconds, event)
        self.first_seconds = self.first_seconds or seconds
        self.last_seconds = max(self.last_seconds, seconds)
        self._count(event, seconds)
        match event:
            case Rendered():
                self._rendered(record.offset, event)
            case Answered() if event.question == "hard" and event.outcomes:
                votes = tally([outcome.answer for outcome in event.outcomes])
                self._means["solver"].add("hard_consistency", [votes.consistency])
            case Rewarded():
                self._rewarded(record.offset, event)
            case StepCommitted():
                self._stepped(record.offset, event)
            case PolicyPublished():
                self.versions[event.role].add(event.version, record.offset)
            case Evaluated():
                self.evaluations.append(event)
                self.revision += 1
            case _:
                pass
        if (told := notable(event)) is not None:
            self.notes.append((record.offset, seconds, *told))

    def _count(self, event: AnyEvent, seconds: float) -> None:
        key = completes(event)
        if isinstance(event, StepCommitted):
            stage = TRAINING[event.role]
        elif key is not None:
            stage = key.partition("/")[0]
        else:
            return
        self.rates.setdefault(stage, Rate()).add(seconds)
        behind = self.behind.setdefault(stage, deque(maxlen=REMEMBERED))
        sampled, role = versions_of(event), role_of(event)
        if isinstance(event, StepCommitted):
            behind.append(event.metrics.get("staleness_mean", 0.0))
        elif sampled is not None and role in ROLES:
            behind.append(self.pipeline.policies.version(role) - sampled[0])

    def _rendered(self, offset: int, event: Rendered) -> None:
        self.renders[event.failure] += 1
        self.shortcuts.update(finding.detector for finding in event.findings)
        self._means["coder"].add("render_success", [float(event.picture is not None)])
        if event.picture is not None:
            self.newest_picture = offset

    def _rewarded(self, offset: int, event: Rewarded) -> None:
        means = self._means[event.role]
        means.add("reward", event.rewards)
        for term in event.terms:
            for name, value in term.items():
                means.add(f"term:{name}", [value])
        for name, value in event.facts.items():
            means.add(f"fact:{name}", [value])
        if event.role == "solver" and len(event.rewards) > 1:
            entry = (round(pstdev(event.rewards), 2), offset, event.group)
            keep = heapq.heappush if len(self.informative) < MOST_INFORMATIVE else _push_pop
            keep(self.informative, entry)

    def _stepped(self, offset: int, event: StepCommitted) -> None:
        values = {name: event.metrics[name] for name in METRICS if name in event.metrics}
        values |= self._means[event.role].take()
        self.tables[event.role].add(event.step, offset, values)
        phase = self.pipeline.schedule.phase
        if phase is not None and (not self.iterations or self.iterations[-1][0] < phase.iteration):
            self.iterations.append((phase.iteration, offset if self.iterations else 0))
            del self.iterations[1 : -NOTES + 1]  # the first, and the newest
        self.revision += 1

    # --- for reading ---------------------------------------------------------------------------

    def most_informative(self) -> list[str]:
        """Drawings whose answers were rewarded most unlike first; of equals the newest."""
        return [drawing for _, _, drawing in sorted(self.informative, reverse=True)]

    def stage_figures(self, stage: str, now: float) -> dict[str, Any]:
        """Rates and staleness of one stage. `now`: unix seconds."""
        rate, behind = self.rates.get(stage), self.behind.get(stage)
        first, width, bins = rate.bins() if rate else (None, 1, [])
        span = max(1.0, self.last_seconds - self.first_seconds)
        return {
            "total": rate.total if rate else 0,
            "a_minute": rate.a_minute(now) if rate else 0,
            "mean_a_minute": 60.0 * rate.total / span if rate else 0.0,
            "behind": fmean(behind) if behind else None,
            "bins": {"first": first, "width": width, "counts": list(bins)},
        }

    def curves(self) -> dict[str, Any]:
        """Every table, and the held-out scores."""
        return {
            "revision": self.revision,
            "roles": {
                role: {"stride": table.stride, "columns": table.figures()}
                for role, table in self.tables.items()
            },
            "heldout": [_heldout(event) for event in self.evaluations],
        }


STAGE_NAMES: tuple[str, ...] = (*STAGES, *TRAINING.values())


def _push_pop(heap: list[tuple[float, int, str]], entry: tuple[float, int, str]) -> None:
    heapq.heappushpop(heap, entry)


def _heldout(event: Evaluated) -> dict[str, Any]:
    found: dict[str, Any] = {
        "role": event.role,
        "version": event.version,
        "moment": event.moment,
        "mode": event.mode,
    }
    for name, hard in (("easy", False), ("hard", True)):
        correct, asked = accuracy(event, hard=hard)
        low, high = wilson(correct, asked)
        found[name] = {
            "correct": correct,
            "asked": asked,
            "share": correct / asked if asked else None,
            "low": low,
            "high": high,
        }
    return found
