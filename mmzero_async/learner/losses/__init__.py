"""Losses of one window: pure functions from log-probabilities to a scalar and its figures.

A loss knows no model, no role and no log. Every one keeps the original token count in its
denominator, whatever it masks or clips, so micro-batches add up to the window.

Read in the order in which a loss is made: `seen.py` what it is given, `proximal.py` the policy
that ratios are taken against, `objectives.py` the clipped or weighted advantage, `corrections.py`
weights and masks for old or mismatched samples, `penalties.py` KL terms, `denominators.py` what the
sum is divided by, `recipe.py` all of them put together, `choose.py` from configuration to recipe.
`truncated.py` is the default, written out; `figures.py` what a loss reports beside its value.
"""

from mmzero_async.learner.losses.choose import Loss, loss_from
from mmzero_async.learner.losses.figures import TokenSums, VersionSums, version_sums
from mmzero_async.learner.losses.penalties import k3
from mmzero_async.learner.losses.recipe import Recipe
from mmzero_async.learner.losses.seen import LOG_RATIO_LIMIT, Tokens, Whole
from mmzero_async.learner.losses.truncated import TruncatedImportance, truncated_importance_loss

__all__ = [
    "LOG_RATIO_LIMIT",
    "Loss",
    "Recipe",
    "TokenSums",
    "Tokens",
    "TruncatedImportance",
    "VersionSums",
    "Whole",
    "k3",
    "loss_from",
    "truncated_importance_loss",
    "version_sums",
]
