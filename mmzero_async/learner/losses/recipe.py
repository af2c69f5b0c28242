"""A loss as data: which proximal policy, objective, corrections, penalties and denominator.

    L = sum_i sum_t d_i [ sg[prod_c w_c] objective(pi / pi_prox, A)  +  sum_p beta_p penalty_p ]

Knows no configuration and no formula of its own beyond this sum.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mmzero_async.learner.losses.corrections import Correction, SecondMomentMask
from mmzero_async.learner.losses.denominators import Denominator, token_share
from mmzero_async.learner.losses.figures import TokenSums, of_older
from mmzero_async.learner.losses.objectives import Objective
from mmzero_async.learner.losses.penalties import Penalty, ReferenceKL
from mmzero_async.learner.losses.proximal import Proximal, log_proximal
from mmzero_async.learner.losses.seen import Seen, Tokens, Whole, look, mean_of_sample

Level = Literal["token", "sequence"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Call it with a micro-batch's tokens: its share of the window's loss, and its figures."""

    objective: Objective
    proximal: Proximal = "current"
    level: Level = "token"
    corrections: tuple[Correction, ...] = ()
    penalties: tuple[Penalty, ...] = ()
    denominator: Denominator = "tokens"

    @property
    def needs_reference(self) -> bool:
        return any(isinstance(penalty, ReferenceKL) for penalty in self.penalties)

    @property
    def needs_proximal(self) -> bool:
        return self.proximal == "forward"

    @property
    def second_moment_threshold(self) -> float | None:
        """M2PO's, which asks for a look at the whole window first."""
        found = (c.threshold for c in self.corrections if isinstance(c, SecondMomentMask))
        return next(found, None)

    def __call__(self, tokens: Tokens, whole: Whole) -> tuple[Tensor, TokenSums]:
        seen = look(tokens, log_proximal(tokens, self.proximal))
        ratio = policy_ratio(seen, self.level)
        per_token, touched = self.objective(seen, ratio)
        causes = dict(touched)

        weight = torch.ones_like(seen.weighing)
        for correction in self.corrections:
            factor, causes[correction.name] = correction(seen, whole)
            weight = weight * factor
        per_token = per_token * weight

        kl = torch.zeros_like(seen.weighing)
        for penalty in self.penalties:
            value = penalty(seen, tokens, ratio)
            per_token = per_token + penalty.coefficient * value
            kl = value if isinstance(penalty, ReferenceKL) else kl

        share = token_share(seen.mask, whole, self.denominator, per_token.dtype)
        contribution = per_token * seen.weighing * share
        older = of_older(seen.mask, tokens.staleness)
        return contribution.sum(), _sums(seen, contribution, kl, causes, older)


def policy_ratio(seen: Seen, level: Level) -> Tensor:
    """r_t = pi / pi_prox, [B, T]; or GSPO's s = exp(mean_t log r_t) (arXiv 2507.18071), [B, 1]."""
    if level == "token":
        return seen.to_proximal.exp()
    return mean_of_sample(seen.to_proximal, seen.weighing).exp()


def _sums(
    seen: Seen, loss: Tensor, kl: Tensor, causes: dict[str, Tensor], older: Tensor
) -> TokenSums:
    ratio = seen.departure.exp()
    touched = {name: seen.mask & tokens for name, tokens in causes.items()}
    any_cause = torch.zeros_like(seen.mask)
    for tokens in touched.values():
        any_cause = any_cause | tokens
    terms = {
        "tokens": torch.ones_like(ratio),
        "loss": loss,
        "ratio": ratio,
        "ratio_squared": ratio.double().square(),
        "clipped": any_cause,
        "mismatch_kl": ratio - seen.departure - 1.0,
        "prob_error": seen.departure.abs().exp(),
        "surprise": -seen.logprobs,
        "kl": kl,
    }
    of_age = {name: older & mask for name, mask in {"clipped": any_cause, **touched}.items()}
    everything = [*terms.values(), *touched.values(), *of_age.values()]
    sums = torch.stack([(t.detach().double() * seen.weighing).sum() for t in everything]).tolist()
    named = dict(zip(terms, sums, strict=False))
    by_cause = dict(zip(touched, sums[len(terms) :], strict=False))
    by_age = dict(zip(of_age, sums[len(terms) + len(touched) :], strict=True))
    return TokenSums(**named, causes=by_cause, older_touched=by_age)
