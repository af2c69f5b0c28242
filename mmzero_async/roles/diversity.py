"""Penalties for sameness across all proposals of a window: by content type, by wording and by what
their drawings are made of.

Works on all proposals at once. Independent of the proposals' order:
BLEU is directed, so two texts are as alike as the mean of both directions.
MM-Zero, arXiv 2603.09206; BLEU as nltk's sentence_bleu with smoothing method 1.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmzero_async.config import ProposerConfig
from mmzero_async.projections.structures import nearest_of_others
from mmzero_async.roles.content_types import content_type_of
from mmzero_async.schemas.events import Proposal, Proposed
from mmzero_async.schemas.ids import proposal_id

ORDERS = 4  # n-gram lengths in BLEU
SMOOTHING = 0.1  # method 1: the count that stands in for no match


@dataclass(frozen=True, slots=True)
class BatchContext:
    """Penalties (0 or more) by proposal id; a proposal that is not in it has none."""

    type_penalties: dict[str, float] = field(default_factory=dict)
    diversity_penalties: dict[str, float] = field(default_factory=dict)
    memory_penalties: dict[str, float] = field(default_factory=dict)  # empty when that is off
    structure_penalties: dict[str, float] = field(default_factory=dict)  # empty when that is off


def batch_context(
    groups: Sequence[Proposed],
    config: ProposerConfig,
    memory: Sequence[str] = (),
    structures: Mapping[str, Sequence[bytes]] = MappingProxyType({}),
) -> BatchContext:
    """The penalties of every parsed proposal of the groups of a window; `memory` holds the
    captions of the windows before it, `structures` those of each proposal's pictures, by its id."""
    named = [
        (proposal_id(group.group, i), outcome.proposal)
        for group in groups
        for i, outcome in enumerate(group.outcomes)
        if outcome.proposal is not None
    ]
    ids = [name for name, _ in named]
    proposals = [proposal for _, proposal in named]
    return BatchContext(
        type_penalties=dict(zip(ids, type_penalties(proposals, config), strict=True)),
        diversity_penalties=dict(zip(ids, diversity_penalties(proposals, config), strict=True)),
        memory_penalties=dict(zip(ids, memory_penalties(proposals, memory, config), strict=False)),
        structure_penalties=structure_penalties(ids, structures, config),
    )


def type_penalties(proposals: Sequence[Proposal], config: ProposerConfig) -> list[float]:
    """One a proposal: weight * (f - limit) / (1 - limit) for a type whose share f is over the
    limit, 0 where the batch knows one type only (nothing to compare with)."""
    types = [content_type_of(proposal) for proposal in proposals]
    counts = Counter(types)
    limit = config.type_share_limit
    if len(counts) < 2 or limit >= 1.0:
        return [0.0] * len(types)
    return [
        config.type_penalty * max(0.0, counts[kind] / len(types) - limit) / (1.0 - limit)
        for kind in types
    ]


def diversity_penalties(proposals: Sequence[Proposal], config: ProposerConfig) -> list[float]:
    """One a proposal, in [0, cap]: scale * n * how much larger the shares of its clusters are than
    a lone proposal's."""
    n = len(proposals)
    if n < 2:
        return [0.0] * n
    fields = (
        [p.caption for p in proposals],
        [p.easy_question for p in proposals],
        [p.hard_question for p in proposals],
    )
    excess = np.zeros(n)
    for weight, texts in zip(config.diversity_weights, fields, strict=True):
        excess += weight * (cluster_shares(texts, config.diversity_threshold) - 1.0 / n)
    cap = config.diversity_cap
    penalties = np.clip(excess * n * config.diversity_scale, -cap, cap)
    return [float(value) for value in penalties]


def memory_penalties(
    proposals: Sequence[Proposal], memory: Sequence[str], config: ProposerConfig
) -> list[float]:
    """One a proposal: weight * the largest BLEU of its caption with a remembered one; none at all
    when the weight is 0 or nothing is remembered."""
    if not proposals or not memory or not config.memory_weight:
        return []
    known = list(dict.fromkeys(memory))
    distances = bleu_distances([*(p.caption for p in proposals), *known])
    nearest = distances[: len(proposals), len(proposals) :].min(axis=1)
    return [float(value) for value in config.memory_weight * (1.0 - nearest)]


def structure_penalties(
    ids: Sequence[str], structures: Mapping[str, Sequence[bytes]], config: ProposerConfig
) -> dict[str, float]:
    """weight * the largest likeness in structure of a proposal's pictures with those of another
    proposal of the window, by id; none at all when the weight is 0."""
    if not config.structure_weight:
        return {}
    nearest = nearest_of_others([structures.get(name, ()) for name in ids])
    return {n: config.structure_weight * value for n, value in zip(ids, nearest, strict=True)}


def cluster_shares(texts: Sequence[str], threshold: float) -> NDArray[np.float64]:
    """float64 [n]: size of each text's cluster over n. Average linkage on 1 - BLEU; clusters join
    while they are nearer than the threshold. Of equal distances the linkage takes the first, so
    the texts stand in an order of their own."""
    n = len(texts)
    if n < 2:
        return np.ones(n)
    # Heavy and needed in one process only, so not at the module's import.
    from scipy.cluster.hierarchy import fcluster, linkage  # type: ignore[import-untyped]

    order = sorted(range(n), key=lambda i: texts[i].split())
    distances = bleu_distances([texts[i] for i in order])
    condensed = distances[np.triu_indices(n, k=1)]
    tree = linkage(condensed, method="average")
    labels = fcluster(tree, t=np.nextafter(threshold, 0.0), criterion="distance")
    sizes = np.bincount(labels)
    shares = np.empty(n)
    shares[order] = sizes[labels] / n
    return shares


def bleu_distances(texts: Sequence[str]) -> NDArray[np.float64]:
    """float64 [n, n], symmetric: 1 - mean BLEU of both directions; 0 for equal token lists.

    Without that last rule BLEU would call a text of fewer than four words unlike itself.
    """
    tokens = [tuple(text.split()) for text in texts]
    scores = bleu_matrix(tokens)
    distances = 1.0 - (scores + scores.T) / 2.0
    ids: dict[tuple[str, ...], int] = {}
    same = np.array([ids.setdefault(words, len(ids)) for words in tokens])
    distances[same[:, None] == same[None, :]] = 0.0
    return np.clip(distances, 0.0, 1.0)


def bleu_matrix(tokens: Sequence[tuple[str, ...]]) -> NDArray[np.float64]:
    """float64 [n, n]: sentence BLEU with row i as hypothesis, column j as its only reference."""
    lengths = np.array([len(words) for words in tokens], dtype=np.float64)
    log_precision = np.zeros((len(tokens), len(tokens)))
    matched_words: NDArray[np.float64] | None = None
    for order in range(1, ORDERS + 1):
        matches = _clipped_matches(tokens, order)
        if matched_words is None:
            matched_words = matches
        possible = np.maximum(1.0, lengths - order + 1)[:, None]
        log_precision += np.log(np.where(matches == 0, SMOOTHING, matches) / possible) / ORDERS
    assert matched_words is not None
    # A hypothesis that is no shorter than its reference is not punished for brevity.
    brevity = np.minimum(0.0, 1.0 - lengths[None, :] / np.maximum(lengths[:, None], 1.0))
    scores: NDArray[np.float64] = np.exp(log_precision + brevity)
    scores[matched_words == 0] = 0.0
    return scores


def _clipped_matches(tokens: Sequence[tuple[str, ...]], order: int) -> NDArray[np.float64]:
    """float64 [n, n]: how many n-grams of this length two texts share, counted as often as both
    have them. min(a, b) = sum over k of [a >= k][b >= k], so it is one product of 0/1 matrices."""
    columns: dict[Any, list[int]] = {}  # (n-gram, k) -> texts that have it k times or more
    for row, words in enumerate(tokens):
        for gram, count in Counter(zip(*(words[i:] for i in range(order)), strict=False)).items():
            for k in range(count):
                columns.setdefault((gram, k), []).append(row)
    matches = np.zeros((len(tokens), len(tokens)))
    shared: list[list[int]] = []
    for rows in columns.values():
        if len(rows) == 1:
            matches[rows[0], rows[0]] += 1.0  # only its own
        else:
            shared.append(rows)
    for start in range(0, len(shared), 4096):  # bounds the memory of the 0/1 matrix
        part = shared[start : start + 4096]
        has = np.zeros((len(tokens), len(part)), dtype=np.float32)
        for column, rows in enumerate(part):
            has[rows, column] = 1.0
        matches += has @ has.T
    return matches
