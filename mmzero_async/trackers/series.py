"""Which figures a run has, by name: events in, points out. A state machine, fed in offset order.

A role's figures stand at its steps, scores at the version that was scored, figures of the whole
run at its seconds. `TABLE` says of every name what it is; docs/TRACKERS.md is printed from it.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mmzero_async.projections.report import accuracy
from mmzero_async.schemas.events import (
    AnyEvent,
    Evaluated,
    GroupRejected,
    Measured,
    Paced,
    Rendered,
    Rewarded,
    Role,
    StepCommitted,
)
from mmzero_async.schemas.record import Record
from mmzero_async.trackers.port import Point

KINDS = (
    *("rendered", "rewarded", "group_rejected", "step_committed", "paced"),
    *("evaluated", "measured"),
)


@dataclass(slots=True)
class Means:
    """Sums of named values."""

    sums: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, value: float) -> None:
        self.sums[name] += value  # type: ignore[assignment]
        self.counts[name] += 1

    def means(self) -> dict[str, float]:
        return {name: self.sums[name] / count for name, count in self.counts.items()}


@dataclass(slots=True)
class Series:
    """Feed every record of KINDS to `apply`."""

    _rewarded: dict[Role, Means] = field(default_factory=lambda: defaultdict(Means))
    _rejected: dict[Role, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    _rendered: Counter[bool] = field(default_factory=Counter)

    def apply(self, record: Record) -> list[Point]:
        time_ns = record.envelope.time_ns
        return [
            Point(name, step, float(value), time_ns)
            for step, figures in self._figures(record.event())
            for name, value in figures.items()
        ]

    def _figures(self, event: AnyEvent) -> Iterator[tuple[int, Mapping[str, float]]]:
        match event:
            case Rendered():
                self._rendered[event.picture is not None] += 1
            case Rewarded():
                means = self._rewarded[event.role]
                for terms in event.terms:
                    for term, value in terms.items():
                        means.add(f"{event.role}/term/{term}", value)
                for fact, value in event.facts.items():
                    means.add(f"{event.role}/fact/{fact}", value)
            case GroupRejected():
                self._rejected[event.role][event.reason] += 1
            case StepCommitted():
                yield event.step, self._of_step(event)
            case Paced():
                yield event.step, {f"{event.role}/eta": float(event.eta)}
            case Evaluated():
                yield event.version, _scores(event)
            case Measured():
                yield from self._of_run(event)
            case _:
                pass

    def _of_step(self, event: StepCommitted) -> dict[str, float]:
        rejected = self._rejected.pop(event.role, Counter())
        return {
            **{f"{event.role}/{name}": value for name, value in event.metrics.items()},
            **self._rewarded.pop(event.role, Means()).means(),
            **{f"{event.role}/rejected/{name}": float(n) for name, n in rejected.items()},
        }

    def _of_run(self, event: Measured) -> Iterator[tuple[int, Mapping[str, float]]]:
        seconds = event.figures.get("running_seconds")
        if seconds is None:
            return
        drawings = self._rendered.total()
        yield (
            int(seconds),
            {
                **{f"run/{name}": value for name, value in event.figures.items()},
                "run/pictures": float(self._rendered[True]),
                **({"run/render_success": self._rendered[True] / drawings} if drawings else {}),
            },
        )


def _scores(event: Evaluated) -> dict[str, float]:
    found = {}
    for name, hard in (("easy", False), ("hard", True)):
        correct, asked = accuracy(event, hard=hard)
        if asked:
            found[f"heldout/{event.mode}/{name}"] = correct / asked
    for kind, (correct, asked) in event.by_kind.items():
        if asked:
            found[f"heldout/{event.mode}/kind/{kind}"] = correct / asked
    return found


# --- what the names mean --------------------------------------------------------------------------

ROLE, AGE, CAUSE = "<role>", "<age>", "<cause>"
TABLE: dict[str, str] = {
    "<role>/reward_mean": "mean reward of the step's samples",
    "<role>/reward_std": "its deviation over the samples",
    "<role>/term/<term>": "mean of one term of the reward, e.g. `solver/term/answer`",
    "<role>/fact/<fact>": "mean over the step's groups of what is recorded of a group, e.g. "
    "`solver/fact/hard_consistency`",
    "<role>/rejected/<reason>": "groups rejected since the role's step before",
    "<role>/loss": "the loss",
    "<role>/grad_norm": "gradient norm before clipping",
    "<role>/lr": "learning rate of the step",
    "<role>/groups": "groups in the window",
    "<role>/samples": "samples in the window",
    "<role>/tokens": "sampled tokens that were trained on",
    "<role>/advantage_std": "deviation of the advantages",
    "<role>/advantage_max": "largest advantage, without its sign",
    "<role>/truncated_share": "share of samples that were cut off",
    "<role>/entropy": "mean -log pi of the sampled tokens",
    "<role>/kl": "k3 estimate of KL(pi || base); 0 where it was not asked for",
    "<role>/ratio_mean": "mean pi / mu; 1 on policy",
    "<role>/ess_share": "effective share of the samples; 1 on policy, alarming below 0.9",
    "<role>/sample_ess": "the same over whole samples, with `learner.lr_by_ess`",
    "<role>/mismatch_kl": "k3 estimate of KL(mu || pi)",
    "<role>/token_mult_prob_error": "mean exp abs(log pi / mu); healthy up to 1.05 on policy",
    "<role>/clipped_share": "share of tokens that were truncated, clipped or masked",
    "<role>/share_<cause>": "share of tokens that one clip, cap or mask touched",
    "<role>/<cause>_share_<age>": "the same among tokens of one age",
    "<role>/staleness_mean": "versions between a group's and the step's",
    "<role>/staleness_max": "the oldest group's",
    "<role>/token_staleness_mean": "the same over tokens",
    "<role>/older_share": "share of tokens that older versions drew",
    "<role>/mismatch_kl_same_version": "k3 where engine and trainer hold the same weights: 0 if "
    "both compute alike",
    "<role>/drift_kl_older_versions": "k3 where the policy has moved on since",
    "<role>/prob_error_<age>": "mean exp abs(log ratio) of tokens of one age",
    "<role>/k1_<age>": "mean -log ratio of them",
    "<role>/log_ratio_abs_<age>": "mean distance of their log ratio from 0",
    "<role>/log_ratio_max_<age>": "the largest",
    "<role>/ess_<age>": "their effective share",
    "<role>/picture_effect_mean": "how far log-probabilities move when pictures are grayed out",
    "<role>/picture_effect_max": "the most that one moves; 0 would mean unseen pictures",
    "<role>/last_loss": "of a window's last optimiser step, with `learner.num_iterations`",
    "<role>/last_grad_norm": "the same",
    "<role>/last_clipped_share": "the same",
    "<role>/last_mismatch_kl": "the same",
    "<role>/ranks": "processes that shared the step",
    "<role>/seconds": "duration of the step",
    "<role>/waited_seconds": "that the learner had waited for a full window",
    "<role>/eta": "steps' worth of groups that may be ready, when the guard on staleness moves it",
    "heldout/<mode>/easy": "accuracy on held-out easy questions; the step is the version",
    "heldout/<mode>/hard": "on hard ones",
    "heldout/<mode>/kind/<kind>": "on one kind of question",
    "run/pictures": "pictures so far; the step is the run's seconds",
    "run/render_success": "share of the drawings so far that became pictures",
    "run/<figure>": "what the supervisor measures: `resident_bytes`, `peak_resident_bytes`, "
    "`restarts`, `running_seconds`",
}
_WORDS = {
    "<role>": "(proposer|coder|solver)",
    "<age>": "(same_version|older_versions)",
    "<mode>": "(greedy|sampled)",
}


def named_by(series: str) -> list[str]:
    """The lines of TABLE that speak of a series; the exact ones before the general ones."""
    found = []
    for name in TABLE:
        pattern = "".join(
            _WORDS.get(part, "[^/]+") if part.startswith("<") else re.escape(part)
            for part in re.split(r"(<\w+>)", name)
        )
        if re.fullmatch(pattern, series):
            found.append(name)
    return sorted(found, key=lambda name: name.count("<"))
