"""The proximal policy: what the objective's ratio is taken against.

Gives log pi_prox of the sampled tokens, without gradient. A forward pass of its own is needed where
a window makes several optimiser steps, and then only for "forward".
"""

from typing import Literal

from torch import Tensor

from mmzero_async.learner.losses.seen import Tokens

Proximal = Literal["current", "behaviour", "loglinear", "forward"]


def log_proximal(tokens: Tokens, proximal: Proximal) -> Tensor:
    match proximal:
        case "current":
            return current(tokens)
        case "behaviour":
            return tokens.behaviour
        case "loglinear":
            return log_linear(tokens)
        case "forward":
            return forward(tokens)


def current(tokens: Tokens) -> Tensor:
    """pi_prox = sg[pi], the weights that the step begins with.

    Decoupled PPO (AReaL, arXiv 2505.24298) and TRL's `old_per_token_logps` where a window is one
    step: the objective's ratio is 1 and no clip acts; staleness is the importance weight's to
    correct.
    """
    return tokens.logprobs.detach()


def forward(tokens: Tokens) -> Tensor:
    """pi_prox = the weights that the window's optimiser steps begin with, from a pass before them.

    Decoupled PPO as in AReaL (arXiv 2505.24298, equation 5); TRL's `old_per_token_logps` where
    `num_iterations` is above 1. In the first step the ratio is 1, from the second on the clip acts.
    """
    if tokens.proximal is None:
        raise ValueError("a proximal policy by forward pass needs its log-probabilities (proximal)")
    return tokens.proximal


def log_linear(tokens: Tokens) -> Tensor:
    """log pi_prox = log mu + alpha (log pi - log mu), alpha = (v_prox - v_mu) / (v_pi - v_mu).

    A-3PO (arXiv 2512.06547), with v_prox one version behind the current one: a token that is d
    versions old has alpha = (d - 1) / d, one of the current version alpha = 1. So a token one
    version old is clipped against mu, and an old one is mostly left to the importance weight.
    """
    if tokens.staleness is None:
        raise ValueError("a log-linear proximal policy needs each token's staleness")
    age = tokens.staleness.to(tokens.logprobs.dtype)
    alpha = ((age - 1.0) / age.clamp(min=1.0)).where(age > 0, 1.0)
    return tokens.behaviour + alpha * (tokens.logprobs.detach() - tokens.behaviour)
