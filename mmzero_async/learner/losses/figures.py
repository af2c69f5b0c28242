"""What a loss reports beside its value: sums over tokens that add up over micro-batches.

Knows numbers, no formula of a loss. Ratios in here are pi / mu, untruncated.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from mmzero_async.learner.losses.seen import Tokens, bounded


@dataclass(frozen=True, slots=True)
class TokenSums:
    """Sums over the loss mask; two micro-batches' sums add. Ratios are untruncated."""

    tokens: float = 0.0
    loss: float = 0.0  # already divided by the window's token count
    ratio: float = 0.0
    ratio_squared: float = 0.0
    clipped: float = 0.0  # tokens that any cause touched
    mismatch_kl: float = 0.0
    prob_error: float = 0.0
    surprise: float = 0.0
    kl: float = 0.0
    causes: Mapping[str, float] = field(default_factory=dict)  # touched tokens by cause
    older_touched: Mapping[str, float] = field(default_factory=dict)  # of older versions alone

    def __add__(self, other: "TokenSums") -> "TokenSums":
        names = [f.name for f in fields(self) if f.name not in ("causes", "older_touched")]
        return TokenSums(
            **{name: getattr(self, name) + getattr(other, name) for name in names},
            causes=_added(self.causes, other.causes),
            older_touched=_added(self.older_touched, other.older_touched),
        )

    def metrics(self) -> dict[str, float]:
        """Means over tokens.

        - ratio_mean: mean r = pi / mu; 1 on policy.
        - clipped_share: share of tokens whose weight was truncated, clipped or masked.
        - mismatch_kl: mean (r - log r - 1), the k3 estimate of KL(mu || pi).
        - token_mult_prob_error: mean exp|log r|; healthy up to 1.05 at the same version.
        - ess_share: (sum r)^2 / (N sum r^2); 1 on policy, alarming below 0.9.
        - entropy: mean -log pi of the sampled tokens, an estimate that is exact on policy.
        - kl: mean k3 estimate of KL(pi || base); 0 where it was not asked for.
        - share_<cause>: share of tokens that one clip, cap or mask touched; they may overlap.
        """
        n = max(self.tokens, 1.0)
        return {
            "tokens": self.tokens,
            "ratio_mean": self.ratio / n,
            "clipped_share": self.clipped / n,
            "mismatch_kl": self.mismatch_kl / n,
            "token_mult_prob_error": self.prob_error / n,
            "ess_share": self.ratio**2 / (n * self.ratio_squared) if self.ratio_squared else 0.0,
            "entropy": self.surprise / n,
            "kl": self.kl / n,
            **{f"share_{cause}": touched / n for cause, touched in self.causes.items()},
        }


def _added(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    names = dict.fromkeys([*one, *other])
    return {name: one.get(name, 0.0) + other.get(name, 0.0) for name in names}


@dataclass(frozen=True, slots=True)
class AgeSums:
    """Sums over the tokens of one age; x = log pi - log mu."""

    tokens: float = 0.0
    k1: float = 0.0  # -x
    k3: float = 0.0  # e^x - x - 1
    error: float = 0.0  # e^|x|
    distance: float = 0.0  # |x|
    ratio: float = 0.0
    ratio_squared: float = 0.0
    farthest: float = 0.0  # largest |x|

    def __add__(self, other: "AgeSums") -> "AgeSums":
        added = [getattr(self, f.name) + getattr(other, f.name) for f in fields(self)[:-1]]
        return AgeSums(*[*added, max(self.farthest, other.farthest)])

    def metrics(self, kl: str, age: str) -> dict[str, float]:
        n = self.tokens
        return {
            kl: self.k3 / n,
            f"prob_error_{age}": self.error / n,
            f"k1_{age}": self.k1 / n,
            f"log_ratio_abs_{age}": self.distance / n,
            f"log_ratio_max_{age}": self.farthest,
            f"ess_{age}": self.ratio**2 / (n * self.ratio_squared) if self.ratio_squared else 0.0,
        }


@dataclass(frozen=True, slots=True)
class VersionSums:
    """Mismatch (tokens of the current version) kept apart from drift (tokens of older ones)."""

    same: AgeSums = AgeSums()
    older: AgeSums = AgeSums()
    staleness: float = 0.0

    def __add__(self, other: "VersionSums") -> "VersionSums":
        return VersionSums(
            self.same + other.same, self.older + other.older, self.staleness + other.staleness
        )

    def metrics(self) -> dict[str, float]:
        """Means over tokens; a kind of token that the window lacks has no mean and no key.

        - older_share, token_staleness_mean: how much of the window is how old.
        - mismatch_kl_same_version (k3), prob_error_, k1_, log_ratio_abs_, log_ratio_max_ and
          ess_same_version: where engine and trainer hold the same weights, so any difference is a
          defect of arithmetic: healthy near 0, the error up to 1.05.
        - drift_kl_older_versions (k3), .._older_versions: the same where the policy has moved on
          since; what mismatch there is comes on top.
        """
        n = max(self.same.tokens + self.older.tokens, 1.0)
        found = {
            "older_share": self.older.tokens / n,
            "token_staleness_mean": self.staleness / n,
        }
        if self.same.tokens:
            found |= self.same.metrics("mismatch_kl_same_version", "same_version")
        if self.older.tokens:
            found |= self.older.metrics("drift_kl_older_versions", "older_versions")
        return found

    def shares(self, sums: TokenSums) -> dict[str, float]:
        """What clips, caps and masks touched of each age, by cause: <cause>_share_<age>."""
        found = {}
        for cause, older in sums.older_touched.items():
            touched = sums.clipped if cause == "clipped" else sums.causes[cause]
            if self.same.tokens:
                found[f"{cause}_share_same_version"] = (touched - older) / self.same.tokens
            if self.older.tokens:
                found[f"{cause}_share_older_versions"] = older / self.older.tokens
        return found


def version_sums(tokens: Tokens) -> VersionSums:
    """Sums over a micro-batch's tokens, by whether they are of the current version."""
    if tokens.staleness is None:
        raise ValueError("figures by version need each token's staleness")
    mask, age = tokens.mask, tokens.staleness
    log_ratio = bounded(
        torch.where(mask, tokens.logprobs.detach() - tokens.behaviour, 0.0)
    ).double()
    ratio, distance = log_ratio.exp(), log_ratio.abs()
    terms = [
        torch.ones_like(ratio),
        -log_ratio,
        ratio - log_ratio - 1.0,
        distance.exp(),
        distance,
        ratio,
        ratio.square(),
    ]
    ages = []
    for chosen in (mask & (age <= 0), mask & (age > 0)):
        sums = torch.stack([(term * chosen).sum() for term in terms]).tolist()
        ages.append(AgeSums(*[*sums, float((distance * chosen).max())]))
    return VersionSums(ages[0], ages[1], float((age * (mask & (age > 0))).sum()))


def of_older(mask: Tensor, staleness: Tensor | None) -> Tensor:
    """[B, T] bool: sampled tokens of older versions; none where ages are not told."""
    return torch.zeros_like(mask) if staleness is None else mask & (staleness > 0)
