"""Every loss once more, from docs/LOSSES.md, with loops, plain floats and derivatives by hand.

Shares no line with mmzero_async.learner.losses. Returns value, gradient by token and how many
tokens each cause touched.
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
        if loss in ("grpo", "sapo"):
            share = 1.0 / (len(rows) * max(1, len(row)))
        elif loss == "dr_grpo":
            share = 1.0 / (len(rows) * longest)
        elif loss == "luspo":
            share = 1.0 / len(rows)
        else:
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
                x = row.base[t] - row.new[t]
                k3 = math.exp(x) - x - 1.0
                factor = ratios[t] if o.use_bias_correction_kl else 1.0
                value += share * o.beta * k3 * factor
                gradient[t] += share * o.beta * (1.0 - math.exp(x)) * factor
                if o.use_bias_correction_kl:
                    for u in range(len(row)):
                        gradient[u] += share * o.beta * k3 * slopes[t][u]
            if loss == "dppo":
                distance = row.new[t] - row.old[t]
                value += share * o.dppo_log_ratio_penalty * distance**2
                gradient[t] += share * o.dppo_log_ratio_penalty * 2.0 * distance
        for cause, _ in set(touched):
            causes[cause] = causes.get(cause, 0) + 1
        gradients.append(gradient)
    return Found(value, gradients, causes)


def _proximal(loss: LossName, o: LossOptions, row: Row, t: int) -> float:
    if loss not in PROXIMAL_RATIO or o.proximal == "behaviour":
        return row.old[t]
    if o.proximal == "current" or row.age[t] == 0:
        return row.new[t]
    return (row.old[t] + (row.age[t] - 1) * row.new[t]) / row.age[t]


def _ratios(loss: LossName, o: LossOptions, row: Row) -> tuple[list[float], list[list[float]]]:
    """The ratio at each token, and its derivative by every token's log-probability."""
    n = len(row)
    logs = [row.new[t] - _proximal(loss, o, row, t) for t in range(n)]
    if o.importance_sampling_level == "token":
        found = [math.exp(x) for x in logs]
        return found, [[found[t] if t == u else 0.0 for u in range(n)] for t in range(n)]
    s = math.exp(sum(logs) / n) if n else 1.0
    return [s] * n, [[s / n] * n for _ in range(n)]


def _objective(
    loss: LossName, o: LossOptions, row: Row, t: int, r: float
) -> tuple[float, float, float, list[str]]:
    """Value, derivative by the ratio, derivative by log pi with the ratio held, causes."""
    a, log_pi = row.advantage, row.new[t]
    if loss == "cispo":
        top = o.epsilon_high or 5.0
        weight = min(r, top)
        return -weight * a * log_pi, 0.0, -weight * a, ["cap"] if r > top else []
    if loss == "sapo":
        tau = o.sapo_temperature_pos if a > 0 else o.sapo_temperature_neg
        gate = 1.0 / (1.0 + math.exp(-tau * (r - 1.0)))
        return -4.0 / tau * gate * a, -4.0 * gate * (1.0 - gate) * a, 0.0, []
    if loss == "vespo":
        k, rate = (
            (o.vespo_k_pos, o.vespo_lambda_pos) if a >= 0 else (o.vespo_k_neg, o.vespo_lambda_neg)
        )
        w = math.prod(math.exp(n) / math.exp(b) for n, b in zip(row.new, row.old, strict=True))
        phi = math.exp(rate - rate * w) * w**k
        return -phi * a * log_pi, 0.0, -phi * a, []
    if loss == "aipo":
        weight = min(r, o.aipo_rho)
        return -weight * a, 0.0, -weight * a, ["cap"] if r > o.aipo_rho else []
    if loss == "topr":
        weight = 1.0 if a > 0 else min(r, 1.0)
        return -weight * a * log_pi, 0.0, -weight * a, ["cap"] if a <= 0 and r > 1.0 else []
    if loss in ("dppo", "m2po"):
        return -r * a, -a, 0.0, []
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
        level, action = o.vllm_importance_sampling_mode.split("_")
        low = o.vllm_importance_sampling_clip_min
        high = o.vllm_importance_sampling_clip_max or math.inf
        logs = [_proximal(loss, o, row, t) - row.old[t] for t in range(n)]
        for t in range(n):
            w = math.exp(logs[t] if level == "token" else sum(logs))
            inside = low <= w <= high
            weights[t] = (w if inside else 0.0) if action == "mask" else min(max(w, low), high)
            if not inside:
                touched.append((o.vllm_importance_sampling_mode, t))

    everything = list(range(n))
    logs = [row.new[t] - row.old[t] for t in range(n)]
    mean = sum(logs) / n if n else 0.0
    if loss == "dppo":
        moved = [math.exp(row.new[t]) - math.exp(row.old[t]) for t in range(n)]
        if row.advantage > 0:
            drop("tv_mask", [t for t in everything if moved[t] > o.dppo_threshold])
        else:
            drop("tv_mask", [t for t in everything if moved[t] < -o.dppo_threshold])
    if loss == "m2po":
        drop("second_moment_mask", [t for t in everything if logs[t] ** 2 > cutoff])
    if any(o.geometric_mask) and not o.geometric_mask[0] <= math.exp(mean) <= o.geometric_mask[1]:
        drop("geometric_mask", everything)
    if o.veto and any(math.exp(x) < o.veto for x in logs):
        drop("veto", everything)
    if o.off_policy_mask_threshold and row.advantage < 0 and -mean > o.off_policy_mask_threshold:
        drop("off_policy_mask", everything)
    return weights, touched


def _largest_kept(rows: list[Row], threshold: float) -> float:
    """M2PO: drop the largest square, all of its equals with it, until the mean is small enough."""
    kept = [(a - b) ** 2 for row in rows for a, b in zip(row.new, row.old, strict=True)]
    while kept and sum(kept) / len(kept) > threshold:
        kept = [square for square in kept if square < max(kept)]
    return max(kept, default=-1.0)
