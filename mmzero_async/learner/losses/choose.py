"""From the configuration to a loss: the only place that knows the losses by their names."""

from typing import Protocol

from torch import Tensor

from mmzero_async.config import ConfigError, LearnerConfig
from mmzero_async.learner.losses.corrections import (
    Correction,
    GeometricMask,
    ImportanceWeight,
    OffPolicyMask,
    SecondMomentMask,
    TotalVariationMask,
    Veto,
)
from mmzero_async.learner.losses.denominators import Denominator
from mmzero_async.learner.losses.figures import TokenSums
from mmzero_async.learner.losses.objectives import (
    Aipo,
    Cispo,
    Clip,
    Objective,
    PlainRatio,
    Sapo,
    Topr,
    Vespo,
)
from mmzero_async.learner.losses.penalties import Penalty, ReferenceKL, SquaredLogRatio
from mmzero_async.learner.losses.recipe import Recipe
from mmzero_async.learner.losses.seen import Tokens, Whole
from mmzero_async.learner.losses.truncated import TruncatedImportance
from mmzero_async.loss_options import (
    LossName,
    LossOptions,
    against_proximal,
    contradiction,
    upper_epsilon,
)

DENOMINATORS: dict[str, Denominator] = {
    "grpo": "samples",
    "sapo": "samples",
    "dr_grpo": "length",
    "luspo": "sums",
}  # the others: "tokens"


class Loss(Protocol):
    """A micro-batch's share of the window's loss and its figures."""

    @property
    def needs_reference(self) -> bool: ...

    @property
    def needs_proximal(self) -> bool: ...

    @property
    def second_moment_threshold(self) -> float | None: ...

    def __call__(self, tokens: Tokens, whole: Whole, /) -> tuple[Tensor, TokenSums]: ...


def loss_from(config: LearnerConfig) -> Loss:
    """The configured loss. ConfigError for settings that contradict each other."""
    name, options = config.loss, config.loss_options
    why = contradiction(name, options, config.is_cap, config.kl_coefficient, config.num_iterations)
    if why is not None:
        raise ConfigError(why)
    if name == "tis":
        return TruncatedImportance(config.is_cap, config.kl_coefficient)
    return Recipe(
        objective=_objective(name, options),
        proximal=options.proximal if against_proximal(name, options) else "behaviour",
        level=options.importance_sampling_level,
        corrections=_corrections(name, options),
        penalties=_penalties(name, options),
        denominator=DENOMINATORS.get(name, "tokens"),
    )


def _objective(name: LossName, options: LossOptions) -> Objective:
    match name:
        case "cispo":
            return Cispo(upper_epsilon(name, options))
        case "sapo":
            return Sapo(options.sapo_temperature_pos, options.sapo_temperature_neg)
        case "vespo":
            return Vespo(
                options.vespo_k_pos,
                options.vespo_lambda_pos,
                options.vespo_k_neg,
                options.vespo_lambda_neg,
                _importance_weight(options) if against_proximal(name, options) else None,
            )
        case "aipo":
            return Aipo(options.aipo_rho)
        case "topr":
            return Topr()
        case "dppo" | "m2po":
            return PlainRatio()
        case _:
            return Clip(
                options.epsilon, upper_epsilon(name, options), options.delta or float("inf")
            )


def _corrections(name: LossName, options: LossOptions) -> tuple[Correction, ...]:
    """In the order in which their shares are reported."""
    chosen: list[Correction] = []
    weighed = against_proximal(name, options) and options.proximal != "behaviour"
    if weighed and name != "vespo" and options.vllm_importance_sampling_correction:
        chosen.append(_importance_weight(options))
    if name == "dppo":
        chosen.append(TotalVariationMask(options.dppo_threshold))
    if name == "m2po":
        chosen.append(SecondMomentMask(options.m2_threshold))
    if options.geometric_mask != (0.0, 0.0):
        chosen.append(GeometricMask(*options.geometric_mask))
    if options.veto > 0.0:
        chosen.append(Veto(options.veto))
    if options.off_policy_mask_threshold > 0.0:
        chosen.append(OffPolicyMask(options.off_policy_mask_threshold))
    return tuple(chosen)


def _importance_weight(options: LossOptions) -> ImportanceWeight:
    return ImportanceWeight(
        "token" if options.vllm_importance_sampling_mode.startswith("token") else "sequence",
        "truncate" if options.vllm_importance_sampling_mode.endswith("truncate") else "mask",
        options.vllm_importance_sampling_clip_min,
        options.vllm_importance_sampling_clip_max or float("inf"),
    )


def _penalties(name: LossName, options: LossOptions) -> tuple[Penalty, ...]:
    chosen: list[Penalty] = []
    if options.beta > 0.0:
        chosen.append(ReferenceKL(options.beta, options.use_bias_correction_kl))
    if name == "dppo" and options.dppo_log_ratio_penalty > 0.0:
        chosen.append(SquaredLogRatio(options.dppo_log_ratio_penalty))
    return tuple(chosen)
