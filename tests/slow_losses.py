"""Every loss once more, from its paper, with loops, plain floats and derivatives by hand.

Shares no line with mmzero_async.learner.losses. Returns value, gradient by token and how many
tokens each cause touched. Each branch says whose formula it is: the paper, and in it the equation
by its number or, where we know none, by its name there. What no paper states is named by the code
that it is from.
"""

import math
from dataclasses import dataclass

from mmzero_async.loss_options import LossName, LossOptions

PROXIMAL_RATIO = ("grpo", "dr_grpo", "dapo", "bnpo", "luspo", "cispo", "sapo")


@dataclass
class Row:
    """One sample's tokens: log pi, log mu, log pi_base, versions of age; and its advantage."""

    new: list[float]
    old: list[float]
    base: list[float]
    age: list[int]
    advantage: float

    def __len__(self) -> int:
        return len(self.new)


@dataclass
class Found:
    value: float
    gradient: list[list[float]]
    causes: dict[str, int]


def slowly(loss: LossName, o: LossOptions, rows: list[Row], longest: int) -> Found:
    tokens = sum(map(len, rows))
    cutoff = _largest_kept(rows, o.m2_threshold) if loss == "m2po" else 0.0
    value, gradients, causes = 0.0, [], {}
    for row in rows:
        gradient = [0.0] * len(row)
        if loss in ("grpo", "sapo"):  # 1/G sum_i 1/|o_i|: 2402.03300 (3); 2511.20347, objective
            share = 1.0 / (len(rows) * max(1, len(row)))
        elif loss == "dr_grpo":  # 1/|o_i| replaced by a constant: 2503.20783, Dr. GRPO
            share = 1.0 / (len(rows) * longest)
        elif loss == "luspo":  # 1/G, the length multiplied back in: 2602.05261, LUSPO's objective
            share = 1.0 / len(rows)
        else:  # 1 / sum_i |o_i|: DAPO, 2503.14476 (8), and 2506.13585 (4) of CISPO
            share = 1.0 / tokens
        weights, touched = _weights(loss, o, row, cutoff)
        ratios, slopes = _ratios(loss, o, row)
        for t in range(len(row)):
            term, by_ratio, by_logprob, hits = _objective(loss, o, row, t, ratios[t])
            touched += [(cause, t) for cause in hits]
            value += share * weights[t] * term
            gradient[t] += share * weights[t] * by_logprob
            for u in range(len(row)):
                gradient[u] += share * weights[t] * by_ratio * slopes[t][u]
            if o.beta:
                # k3: Schulman 2020, "Approximating KL Divergence"; GRPO, 2402.03300 (4). Times the
                # ratio: DeepSeek-V3.2, 2512.02556, unbiased KL estimate.
                x = row.base[t] - row.new[t]
                k3 = math.exp(x) - x - 1.0
                factor = ratios[t] if o.use_bias_correction_kl else 1.0
                value += share * o.beta * k3 * factor
                gradient[t] += share * o.beta * (1.0 - math.exp(x)) * factor
                if o.use_bias_correction_kl:
                    for u in range(len(row)):
                        gradient[u] += share * o.beta * k3 * slopes[t][u]
            if loss == "dppo":  # the code of PRIME-RL, its default loss's KL term
                distance = row.new[t] - row.old[t]
                value += share * o.dppo_log_ratio_penalty * distance**2
                gradient[t] += share * o.dppo_log_ratio_penalty * 2.0 * distance
        for cause, _ in set(touched):
            causes[cause] = causes.get(cause, 0) + 1
        gradients.append(gradient)
    return Found(value, gradients, causes)


def _proximal(loss: LossName, o: LossOptions, row: Row, t: int) -> float:
    """Decoupled PPO: AReaL, 2505.24298 (5), where pi_prox is any recent policy."""
    decoupled = loss in PROXIMAL_RATIO or (loss == "vespo" and _by_token(o))
    if not decoupled or o.proximal == "behaviour":
        return row.old[t]
    if o.proximal == "current" or row.age[t] == 0:
        return row.new[t]
    # A-3PO, 2512.06547, log-linear interpolation with alpha = (d - 1) / d.
    return (row.old[t] + (row.age[t] - 1) * row.new[t]) / row.age[t]


def _ratios(loss: LossName, o: LossOptions, row: Row) -> tuple[list[float], list[list[float]]]:
    """The ratio at each token, and its derivative by every token's log-probability."""
    n = len(row)
    logs = [row.new[t] - _proximal(loss, o, row, t) for t in range(n)]
    if o.importance_sampling_level == "token":
        found = [math.exp(x) for x in logs]
        return found, [[found[t] if t == u else 0.0 for u in range(n)] for t in range(n)]
    # GSPO, 2507.18071 (7): s_i = (pi(y) / pi_old(y))^(1/|y|).
    s = math.exp(sum(logs) / n) if n else 1.0
    return [s] * n, [[s / n] * n for _ in range(n)]


def _objective(
    loss: LossName, o: LossOptions, row: Row, t: int, r: float
) -> tuple[float, float, float, list[str]]:
    """Value, derivative by the ratio, derivative by log pi with the ratio held, causes."""
    a, log_pi = row.advantage, row.new[t]
    if loss == "cispo":  # MiniMax-M1, 2506.13585 (4) and (5), without its lower bound, as there
        top = o.epsilon_high or 5.0
        weight = min(r, top)
        return -weight * a * log_pi, 0.0, -weight * a, ["cap"] if r > top else []
    if loss == "sapo":  # 2511.20347, the soft gate: 4 / tau sigmoid(tau (r - 1)); tau by A's sign
        tau = o.sapo_temperature_pos if a > 0 else o.sapo_temperature_neg
        gate = 1.0 / (1.0 + math.exp(-tau * (r - 1.0)))
        return -4.0 / tau * gate * a, -4.0 * gate * (1.0 - gate) * a, 0.0, []
    if loss == "vespo":  # 2602.10693, phi(w) = e^lambda w^k e^(-lambda w), w of the sequence
        k, rate = (
            (o.vespo_k_pos, o.vespo_lambda_pos) if a >= 0 else (o.vespo_k_neg, o.vespo_lambda_neg)
        )
        w, hits = math.prod(math.exp(n - b) for n, b in zip(row.new, row.old, strict=True)), []
        if _by_token(o):  # TRL 1.16, get_gamma_weights: the bounded weights' product, 1e-8 for 0
            w = 1.0
            for u in range(len(row)):
                prox = _proximal(loss, o, row, u)
                weight, inside = _bounded(o, math.exp(prox - row.old[u]))
                w *= math.exp(row.new[u] - prox) * max(weight, 1e-8)
                hits += [o.vllm_importance_sampling_mode] if u == t and not inside else []
        w = max(w, 1e-8)
        phi = math.exp(rate - rate * w) * w**k
        return -phi * a * log_pi, 0.0, -phi * a, hits
    if loss == "aipo":  # LlamaRL, 2505.24034, AIPO: one-sided clip of pi / mu
        weight = min(r, o.aipo_rho)
        return -weight * a, 0.0, -weight * a, ["cap"] if r > o.aipo_rho else []
    if loss == "topr":  # 2503.14286, the TOPR gradient, [r]_0^1 where A < 0; by token: ROLL's code
        weight = 1.0 if a > 0 else min(r, 1.0)
        return -weight * a * log_pi, 0.0, -weight * a, ["cap"] if a <= 0 and r > 1.0 else []
    if loss in ("dppo", "m2po"):  # masks bound them: 2602.04879 and 2510.01161
        return -r * a, -a, 0.0, []
    # PPO's clip: GRPO, 2402.03300 (3); two bounds: DAPO, 2503.14476 (8); of s_i: GSPO, 2507.18071
    # (5). For A < 0 held at delta: dual-clip PPO, 1912.09729; INTELLECT-2, 2505.07291.
    low, high = 1.0 - o.epsilon, 1.0 + (o.epsilon_high or o.epsilon)
    if a > 0:
        return (-high * a, 0.0, 0.0, ["clip_high"]) if r > high else (-r * a, -a, 0.0, [])
    if a < 0 and r < low:
        return -low * a, 0.0, 0.0, ["clip_low"]
    if a < 0 and o.delta and r > o.delta:
        return -o.delta * a, 0.0, 0.0, ["delta"]
    return -r * a, -a, 0.0, []


def _weights(
    loss: LossName, o: LossOptions, row: Row, cutoff: float
) -> tuple[list[float], list[tuple[str, int]]]:
    """The product of all corrections at each token, and who touched it."""
    n = len(row)
    weights, touched = [1.0] * n, []

    def drop(cause: str, places: list[int]) -> None:
        for t in places:
            weights[t] = 0.0
            touched.append((cause, t))

    if (
        loss in PROXIMAL_RATIO
        and o.proximal != "behaviour"
        and o.vllm_importance_sampling_correction
    ):
        logs = [_proximal(loss, o, row, t) - row.old[t] for t in range(n)]
        for t in range(n):
            weights[t], inside = _bounded(o, math.exp(logs[t] if _by_token(o) else sum(logs)))
            if not inside:
                touched.append((o.vllm_importance_sampling_mode, t))

    everything = list(range(n))
    logs = [row.new[t] - row.old[t] for t in range(n)]
    mean = sum(logs) / n if n else 0.0
    if loss == "dppo":  # 2602.04879, the mask M of binary total variation
        moved = [math.exp(row.new[t]) - math.exp(row.old[t]) for t in range(n)]
        if row.advantage > 0:
            drop("tv_mask", [t for t in everything if moved[t] > o.dppo_threshold])
        else:
            drop("tv_mask", [t for t in everything if moved[t] < -o.dppo_threshold])
    if loss == "m2po":  # 2510.01161, the second-moment constraint M_2 <= tau
        drop("second_moment_mask", [t for t in everything if logs[t] ** 2 > cutoff])
    # The code of SkyRL and verl: the sequence's geometric mean within [low, high].
    if any(o.geometric_mask) and not o.geometric_mask[0] <= math.exp(mean) <= o.geometric_mask[1]:
        drop("geometric_mask", everything)
    # The code of slime: one ratio below the floor drops the sequence.
    if o.veto and any(math.exp(x) < o.veto for x in logs):
        drop("veto", everything)
    # DeepSeek-V3.2, 2512.02556 (9): off-policy sequence mask.
    if o.off_policy_mask_threshold and row.advantage < 0 and -mean > o.off_policy_mask_threshold:
        drop("off_policy_mask", everything)
    return weights, touched


def _by_token(o: LossOptions) -> bool:
    return o.vllm_importance_sampling_mode.startswith("token")


def _bounded(o: LossOptions, w: float) -> tuple[float, bool]:
    """Truncated: Yao et al. 2025, min(pi_prox / mu, C). Masked: IcePop (Ling team 2025), 0 outside;
    above 5 alone: AReaL, 2505.24298. With a lower bound as in TRL."""
    low = o.vllm_importance_sampling_clip_min
    high = o.vllm_importance_sampling_clip_max or math.inf
    inside = low <= w <= high
    if o.vllm_importance_sampling_mode.endswith("mask"):
        return (w if inside else 0.0), inside
    return min(max(w, low), high), inside


def _largest_kept(rows: list[Row], threshold: float) -> float:
    """M2PO, 2510.01161, its algorithm: drop the largest square, all of its equals with it, until
    the mean is small enough."""
    kept = [(a - b) ** 2 for row in rows for a, b in zip(row.new, row.old, strict=True)]
    while kept and sum(kept) / len(kept) > threshold:
        kept = [square for square in kept if square < max(kept)]
    return max(kept, default=-1.0)
