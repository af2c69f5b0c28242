"""What a loss reports beside its value: sums over tokens that add up over micro-batches.

Knows numbers, no formula of a loss. Ratios in here are pi / mu, untruncated.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import torch

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

    def __add__(self, other: "TokenSums") -> "TokenSums":
        names = [f.name for f in fields(self) if f.name != "causes"]
        causes = {
            name: self.causes.get(name, 0.0) + other.causes.get(name, 0.0)
            for name in dict.fromkeys([*self.causes, *other.causes])
        }
        added = {name: getattr(self, name) + getattr(other, name) for name in names}
        return TokenSums(**added, causes=causes)

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


@dataclass(frozen=True, slots=True)
class VersionSums:
    """Mismatch (tokens of the current version) kept apart from drift (tokens of older ones)."""

    same: float = 0.0  # tokens
    same_kl: float = 0.0
    same_error: float = 0.0
    older: float = 0.0  # tokens
    older_kl: float = 0.0
    older_error: float = 0.0
    staleness: float = 0.0

    def __add__(self, other: "VersionSums") -> "VersionSums":
        return VersionSums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def metrics(self) -> dict[str, float]:
        """Means over tokens; a kind of token that the window lacks has no mean and no key.

        - older_share, token_staleness_mean: how much of the window is how old.
        - mismatch_kl_same_version, prob_error_same_version: mean (r - log r - 1) and exp|log r|
          where engine and trainer hold the same weights, so any difference is a defect of
          arithmetic: healthy near 0 and up to 1.05.
        - drift_kl_older_versions, prob_error_older_versions: the same where the policy has moved
          on since; what mismatch there is comes on top.
        """
        n = max(self.same + self.older, 1.0)
        found = {"older_share": self.older / n, "token_staleness_mean": self.staleness / n}
        if self.same:
            found["mismatch_kl_same_version"] = self.same_kl / self.same
            found["prob_error_same_version"] = self.same_error / self.same
        if self.older:
            found["drift_kl_older_versions"] = self.older_kl / self.older
            found["prob_error_older_versions"] = self.older_error / self.older
        return found


def version_sums(tokens: Tokens) -> VersionSums:
    """Sums over a micro-batch's tokens, by whether they are of the current version."""
    if tokens.staleness is None:
        raise ValueError("figures by version need each token's staleness")
    mask, age = tokens.mask, tokens.staleness
    same_version, older_version = mask & (age <= 0), mask & (age > 0)
    log_ratio = bounded(
        torch.where(mask, tokens.logprobs.detach() - tokens.behaviour, 0.0)
    ).double()
    divergence = log_ratio.exp() - log_ratio - 1.0
    error = log_ratio.abs().exp()
    terms = [
        (term * chosen).sum()
        for chosen in (same_version, older_version)
        for term in (torch.ones_like(error), divergence, error)
    ]
    return VersionSums(*torch.stack([*terms, (age * older_version).sum().double()]).tolist())
