"""Which losses there are, what each reads, and what contradicts: one table, no tensors.

`learner.loss` names the loss, `[learner.loss_options]` its options. Options that TRL's GRPOConfig
has bear its name and mean the same; where TRL says None, 0 stands here. An option that the chosen
loss would not read must keep its default: nothing is ignored in silence.
"""

from typing import Annotated, Literal

import msgspec

LossName = Literal[
    "tis",
    # TRL's loss_type
    "grpo",
    "dr_grpo",
    "dapo",
    "bnpo",
    "luspo",
    "cispo",
    "sapo",
    "vespo",
    # others'
    "aipo",
    "topr",
    "dppo",
    "m2po",
]

NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]


class LossOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of every loss but "tis", which reads learner.is_cap and learner.kl_coefficient."""

    # what the ratio is taken against, and at which level
    proximal: Literal["current", "behaviour", "loglinear", "forward"] = "current"
    importance_sampling_level: Literal["token", "sequence"] = "token"  # "sequence": GSPO's mean
    # the objective's own constants
    epsilon: Positive = 0.2  # lower clip
    epsilon_high: NotNegative = 0.0  # upper clip, 0: epsilon; cispo: cap on the ratio, 0: 5
    delta: NotNegative = 0.0  # cap on the ratio where the advantage is negative; 0: none
    sapo_temperature_pos: Positive = 1.0
    sapo_temperature_neg: Positive = 1.05
    vespo_k_pos: NotNegative = 2.0
    vespo_lambda_pos: NotNegative = 3.0
    vespo_k_neg: NotNegative = 3.0
    vespo_lambda_neg: NotNegative = 2.0
    aipo_rho: Positive = 4.0  # cap on pi / mu
    dppo_threshold: Positive = 0.2  # probability that may move away from mu
    dppo_log_ratio_penalty: NotNegative = 1e-3  # times (log pi - log mu)^2
    m2_threshold: Positive = 0.04  # mean (log pi - log mu)^2 of the tokens kept
    max_completion_length: Annotated[int, msgspec.Meta(ge=0)] = 0  # dr_grpo; 0: as sampled
    # importance weight pi_prox / mu
    vllm_importance_sampling_correction: bool = True
    vllm_importance_sampling_mode: Literal[
        "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"
    ] = "sequence_mask"
    vllm_importance_sampling_clip_max: NotNegative = 3.0  # 0: none
    vllm_importance_sampling_clip_min: NotNegative = 0.0  # 0: none
    # masks of whole samples
    off_policy_mask_threshold: NotNegative = 0.0  # OPSM on mean log mu - log pi; 0: off
    geometric_mask: tuple[NotNegative, NotNegative] = (0.0, 0.0)  # keeps exp(mean log r) in it
    veto: NotNegative = 0.0  # drops a sample with a ratio below; 0: off
    # KL to the base
    beta: NotNegative = 0.0  # times k3
    use_bias_correction_kl: bool = True  # times pi / pi_prox, with its gradient


CLIPPED = ("grpo", "dr_grpo", "dapo", "bnpo", "luspo")
AGAINST_PROXIMAL = (*CLIPPED, "cispo", "sapo")
_WEIGHT_BOUNDS = (
    "vllm_importance_sampling_mode",
    "vllm_importance_sampling_clip_max",
    "vllm_importance_sampling_clip_min",
)
_OWN: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(CLIPPED, ("epsilon", "epsilon_high", "delta")),
    "cispo": ("epsilon_high",),
    "sapo": ("sapo_temperature_pos", "sapo_temperature_neg"),
    "vespo": ("vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg", "vespo_lambda_neg"),
    "aipo": ("aipo_rho",),
    "topr": (),
    "dppo": ("dppo_threshold", "dppo_log_ratio_penalty"),
    "m2po": ("m2_threshold",),
}
_ALWAYS = ("off_policy_mask_threshold", "geometric_mask", "veto", "beta")


def against_proximal(loss: LossName, options: LossOptions) -> bool:
    """Whether the ratio is pi / pi_prox: vespo's is where pi_prox / mu is bounded token by token,
    and otherwise, as the other losses' by definition, pi / mu."""
    return loss in AGAINST_PROXIMAL or (
        loss == "vespo" and options.vllm_importance_sampling_mode.startswith("token")
    )


def read_by(loss: LossName, options: LossOptions) -> set[str]:
    """The names of the options that change what this loss does, as the others stand."""
    if loss == "tis":
        return set()
    read = set(_ALWAYS)
    if options.beta > 0.0:
        read.add("use_bias_correction_kl")
    if loss == "dr_grpo":
        read.add("max_completion_length")
    if loss == "vespo":
        return read | _read_by_vespo(options)
    if loss not in AGAINST_PROXIMAL:
        return read.union(_OWN[loss])
    read |= {"proximal", "importance_sampling_level"}
    if options.proximal != "current":  # else the ratio is 1 and nothing bounds it
        read.update(_OWN[loss])
    if options.proximal != "behaviour":  # else the weight is 1
        read.add("vllm_importance_sampling_correction")
        if options.vllm_importance_sampling_correction:
            read.update(_WEIGHT_BOUNDS)
    return read


def _read_by_vespo(options: LossOptions) -> set[str]:
    """TRL's default mode, which TRL refuses here, is the weight without a bound."""
    read = set(_OWN["vespo"])
    if options.proximal != "behaviour":  # else there is no weight to bound
        read.add("vllm_importance_sampling_mode")
    if against_proximal("vespo", options):
        read.update(("proximal", *_WEIGHT_BOUNDS[1:]))
    if options.beta > 0.0 and options.use_bias_correction_kl:  # its weight is by sequence anyway
        read.add("importance_sampling_level")
    return read


def upper_epsilon(loss: LossName, options: LossOptions) -> float:
    """epsilon_high, or what it is where it was not set."""
    if options.epsilon_high > 0.0:
        return options.epsilon_high
    return 5.0 if loss == "cispo" else options.epsilon


def contradiction(
    loss: LossName,
    options: LossOptions,
    is_cap: float,
    kl_coefficient: float,
    num_iterations: int = 1,
) -> str | None:
    """What is wrong with these settings together and what to do; None if nothing is."""
    place = "learner.loss_options"
    if loss != "tis" and (is_cap, kl_coefficient) != (2.0, 0.0):
        return (
            f'learner.is_cap and learner.kl_coefficient belong to learner.loss = "tis"; '
            f'with "{loss}" set {place}.vllm_importance_sampling_clip_max and {place}.beta'
        )
    read, untouched = read_by(loss, options), LossOptions()
    for name in options.__struct_fields__:
        value = getattr(options, name)
        if name not in read and value != getattr(untouched, name):
            return (
                f"{place}.{name} = {value!r} is not read by {_as_set(loss, options)}: leave it out"
            )
    high = upper_epsilon(loss, options)
    low, top = options.geometric_mask
    least = options.vllm_importance_sampling_clip_min
    most = options.vllm_importance_sampling_clip_max
    truncating = options.vllm_importance_sampling_mode.endswith("truncate")
    rules = [
        (
            options.proximal == "forward" and num_iterations < 2,
            'proximal = "forward", the policy that a window begins with, is the current one unless '
            "learner.num_iterations is at least 2",
        ),
        (loss in CLIPPED and options.epsilon >= 1.0, "epsilon must be below 1"),
        (
            0.0 < options.delta <= 1.0 + high,
            f"delta must be above 1 + epsilon_high = {1.0 + high}, or 0",
        ),
        (
            loss == "cispo" and high < 1.0,
            "epsilon_high is with cispo the cap on the ratio itself: at least 1, 5 as a rule",
        ),
        (0.0 < most <= least, "vllm_importance_sampling_clip_min must be below .._clip_max"),
        (
            truncating and options.vllm_importance_sampling_correction and most == least == 0.0,
            "a *_truncate mode needs vllm_importance_sampling_clip_max or .._clip_min",
        ),
        (
            loss == "vespo" and options.vllm_importance_sampling_mode == "sequence_truncate",
            "vespo multiplies over the sequence itself: its vllm_importance_sampling_mode is "
            "token_truncate or token_mask",
        ),
        ((low, top) != (0.0, 0.0) and low >= top, "geometric_mask must be [low, high]"),
        (options.veto >= 1.0, "veto must be below 1, the ratio on policy"),
    ]
    return next((f"{place}: {why}" for broken, why in rules if broken), None)


def _as_set(loss: LossName, options: LossOptions) -> str:
    said = f'learner.loss = "{loss}"'
    if against_proximal(loss, options):
        said += f' with proximal = "{options.proximal}"'
        if not options.vllm_importance_sampling_correction:
            said += " and no importance weight"
    return said
