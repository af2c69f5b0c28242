"""What a window's proposals pay for being alike: content types, BLEU, clusters."""

import itertools

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reward_builders import PROPOSER, proposal, proposed

from mmzero_async.roles.diversity import (
    batch_context,
    bleu_distances,
    bleu_matrix,
    cluster_shares,
    diversity_penalties,
    memory_penalties,
    type_penalties,
)
from mmzero_async.schemas.events import Proposal


def test_a_type_over_half_of_the_batch_pays_by_its_excess() -> None:
    batch = [proposal(content_type="map")] * 3 + [proposal(content_type="table")]
    # share .75: .15 * (.75 - .5) / .5
    assert type_penalties(batch, PROPOSER) == pytest.approx([0.075] * 3 + [0.0])


def test_a_batch_of_one_type_pays_nothing_for_it() -> None:
    assert type_penalties([proposal()] * 4, PROPOSER) == [0.0] * 4
    assert type_penalties([], PROPOSER) == []


A = proposal("a b c d e f", easy_question="g h i j k", hard_question="l m n o p")
B = proposal("q r s t u v", easy_question="w x y z 1", hard_question="2 3 4 5 6")
C = proposal("a b c d e f", easy_question="7 8 9 10 11", hard_question="12 13 14 15 16")


def test_the_penalty_for_likeness_worked_out_by_hand() -> None:
    # A and C share the caption: cap = 2/3, n = 3; .45 * (2/3 - 1/3) * 3 * .5 = .225
    assert diversity_penalties([A, B, C], PROPOSER) == pytest.approx([0.225, 0.0, 0.225])
    # all alike, n = 4: (1 - 1/4) * 4 * .5 = 1.5, clipped
    assert diversity_penalties([A] * 4, PROPOSER) == [0.5] * 4
    assert diversity_penalties([A], PROPOSER) == [0.0]
    assert diversity_penalties([], PROPOSER) == []


def test_the_scale_of_the_penalty_for_likeness_is_a_setting() -> None:
    gentle = msgspec.structs.replace(PROPOSER, diversity_scale=0.1)
    assert diversity_penalties([A, B, C], gentle) == pytest.approx([0.045, 0.0, 0.045])


def test_penalties_are_found_by_the_proposals_id_over_all_groups_of_a_window() -> None:
    context = batch_context([proposed(A, None, group="g1"), proposed(B, C, group="g2")], PROPOSER)
    assert context.diversity_penalties == pytest.approx(
        {"g1.s0": 0.225, "g2.s0": 0, "g2.s1": 0.225}
    )
    assert set(context.type_penalties) == {"g1.s0", "g2.s0", "g2.s1"}


WORDS = st.lists(
    st.sampled_from(
        ["the", "a", "bar", "chart", "with", "red", "blue", "and", "of", "in", "3", "5", "7"]
    ),
    max_size=14,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, min_size=2, max_size=6))
def test_bleu_equals_nltk(texts: list[list[str]]) -> None:
    bleu = pytest.importorskip("nltk.translate.bleu_score")
    smoothing = bleu.SmoothingFunction().method1
    mine = bleu_matrix([tuple(words) for words in texts])
    for i, hypothesis in enumerate(texts):
        for j, reference in enumerate(texts):
            theirs = bleu.sentence_bleu([reference], hypothesis, smoothing_function=smoothing)
            assert mine[i, j] == pytest.approx(float(theirs), abs=1e-9)


def clusters_by_hand(distances: np.ndarray, threshold: float) -> tuple[list[int], bool]:
    """Sizes of the clusters, by the definition, and whether equal distances made it a choice."""
    clusters = [[i] for i in range(len(distances))]
    tied = False
    while len(clusters) > 1:
        pairs = sorted(
            (float(distances[np.ix_(clusters[a], clusters[b])].mean()), a, b)
            for a in range(len(clusters))
            for b in range(a)
        )
        nearest, a, b = pairs[0]
        tied |= abs(nearest - threshold) < 1e-9
        if nearest >= threshold:
            break
        tied |= len(pairs) > 1 and nearest > 1e-9 and abs(pairs[1][0] - nearest) < 1e-9
        clusters[b] += clusters.pop(a)
    return [next(len(c) for c in clusters if i in c) for i in range(len(distances))], tied


SENTENCES = st.lists(
    st.sampled_from(
        ["a", "bar", "chart", "of", "six", "red", "blue", "bars", "with", "a", "title", "left"]
    ),
    min_size=5,
    max_size=9,
).map(" ".join)
NEAR = st.lists(SENTENCES, min_size=1, max_size=3).flatmap(
    lambda seeds: st.lists(
        st.tuples(st.sampled_from(seeds), st.sampled_from(["", " x", " y z", " end of it"])).map(
            "".join
        ),
        min_size=2,
        max_size=8,
    )
)
THRESHOLDS = st.sampled_from([0.25, 0.5, 0.8])


@settings(max_examples=80, deadline=None)
@given(NEAR, THRESHOLDS)
def test_clusters_are_those_of_the_definition_and_of_sklearn(
    texts: list[str], threshold: float
) -> None:
    distances = bleu_distances(texts)
    sizes, tied = clusters_by_hand(distances, threshold)
    assume(not tied)
    assert cluster_shares(texts, threshold) == pytest.approx(np.array(sizes) / len(texts))
    cluster = pytest.importorskip("sklearn.cluster")
    labels = cluster.AgglomerativeClustering(
        n_clusters=None, distance_threshold=threshold, metric="precomputed", linkage="average"
    ).fit_predict(distances)
    assert [int((labels == label).sum()) for label in labels] == sizes


@settings(max_examples=80, deadline=None)
@given(NEAR, THRESHOLDS, st.randoms())
def test_clusters_do_not_depend_on_the_order_of_texts(
    texts: list[str], threshold: float, rng: object
) -> None:
    order = list(range(len(texts)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    shares = cluster_shares(texts, threshold)
    assert np.array_equal(cluster_shares([texts[i] for i in order], threshold), shares[order])


def test_equal_distances_are_broken_by_the_texts_and_not_by_their_order() -> None:
    # b is as near to a as to c, and a and c are too far apart to be in one cluster.
    a, b, c = "p q r s t u", "p q r s t z", "o q r s t z"
    distances = bleu_distances([a, b, c])
    assert distances[0, 1] == distances[1, 2] < 0.25 < (distances[0, 2] + distances[0, 1]) / 2
    seen = {
        tuple(round(3 * share) for _, share in sorted(zip(texts, shares, strict=True)))
        for texts in itertools.permutations([a, b, c])
        for shares in [cluster_shares(texts, 0.25).tolist()]
    }
    assert len(seen) == 1


@settings(deadline=None)
@given(st.lists(WORDS.map(" ".join), min_size=1, max_size=8), st.randoms())
def test_distances_are_symmetric_and_blind_to_order(texts: list[str], rng: object) -> None:
    distances = bleu_distances(texts)
    assert np.array_equal(distances, distances.T)
    assert (distances >= 0).all() and (distances <= 1).all() and not distances.diagonal().any()
    order = list(range(len(texts)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    shuffled = bleu_distances([texts[i] for i in order])
    assert shuffled == pytest.approx(distances[np.ix_(order, order)])


@settings(deadline=None)
@given(st.lists(st.builds(proposal, WORDS.map(" ".join)), max_size=10))
def test_penalties_stay_within_their_caps(batch: list[Proposal]) -> None:
    assert all(-1e-9 <= p <= PROPOSER.diversity_cap for p in diversity_penalties(batch, PROPOSER))
    assert all(0 <= p <= PROPOSER.type_penalty for p in type_penalties(batch, PROPOSER))


def test_the_other_fields_weigh_as_the_method_says() -> None:
    # n = 2, both in one cluster of one field: weight * (1 - 1/2) * 2 * .5 = weight / 2
    easy = [A, proposal(B.caption, easy_question=A.easy_question, hard_question=B.hard_question)]
    hard = [A, proposal(B.caption, easy_question=B.easy_question, hard_question=A.hard_question)]
    assert diversity_penalties(easy, PROPOSER) == pytest.approx([0.20 / 2] * 2)
    assert diversity_penalties(hard, PROPOSER) == pytest.approx([0.35 / 2] * 2)
    # all three fields of four alike out of five: (4/5 - 1/5) * 5 * .5 = 1.5, clipped
    assert diversity_penalties([A, A, A, A, B], PROPOSER) == pytest.approx([0.5] * 4 + [0.0])


def test_a_type_at_the_limit_pays_nothing_and_other_counts_as_what_it_shows() -> None:
    half = [proposal(content_type="map"), proposal(content_type="table")]
    assert type_penalties(half, PROPOSER) == [0.0, 0.0]
    # two of three are charts, one of them by its caption: .15 * (2/3 - .5) / .5 = .05
    charts = [proposal(), proposal("A scatter plot", "other"), proposal(content_type="map")]
    assert type_penalties(charts, PROPOSER) == pytest.approx([0.05, 0.05, 0.0])


def test_short_texts_that_are_equal_are_alike_and_others_are_not() -> None:
    # BLEU of a three-word text with itself is below one: no four words to match.
    assert bleu_distances(["sum of bars", "sum of  bars", "sum of lines"])[0, 1] == 0.0
    assert cluster_shares(["one two", "one two", "three"], 0.25) == pytest.approx(
        [2 / 3, 2 / 3, 1 / 3]
    )
    assert cluster_shares(["", ""], 0.25) == pytest.approx([1.0, 1.0])
    assert cluster_shares(["x"], 0.25).tolist() == [1.0]
    assert cluster_shares([], 0.25).tolist() == []


# --- memory -----------------------------------------------------------------------------------

REMEMBERING = msgspec.structs.replace(PROPOSER, memory_weight=0.4)


def test_a_caption_pays_for_the_remembered_one_that_it_is_most_like() -> None:
    near, far = "a b c d e f g h", "q r s t u v w x"
    batch = [proposal(near), proposal(far)]
    # The first eight words are the same, the ninth is new: precisions 8/8, 7/7, 6/6, 5/5 one way
    # with brevity exp(1 - 9/8); 8/9, 7/8, 6/7, 5/6 the other way.
    bleu = (np.exp(1 - 9 / 8) + (8 / 9 * 7 / 8 * 6 / 7 * 5 / 6) ** 0.25) / 2
    penalties = memory_penalties(batch, ["1 2 3 4", near + " i"], REMEMBERING)
    assert penalties == pytest.approx([0.4 * bleu, 0.0], abs=1e-9)
    assert memory_penalties(batch, [near], REMEMBERING) == pytest.approx([0.4, 0.0])


def test_without_a_weight_or_a_memory_nothing_is_remembered() -> None:
    assert memory_penalties([A], [A.caption], PROPOSER) == []
    assert memory_penalties([A], [], REMEMBERING) == memory_penalties([], ["x"], REMEMBERING) == []
    context = batch_context([proposed(A, B, group="g1")], REMEMBERING, [B.caption])
    assert context.memory_penalties == pytest.approx({"g1.s0": 0.0, "g1.s1": 0.4})


@settings(deadline=None)
@given(st.lists(WORDS.map(" ".join), min_size=1, max_size=6), WORDS.map(" ".join), st.randoms())
def test_a_longer_memory_never_costs_less_and_its_order_does_not_matter(
    memory: list[str], caption: str, rng: object
) -> None:
    [all_of_it] = memory_penalties([proposal(caption)], memory, REMEMBERING)
    [part] = memory_penalties([proposal(caption)], memory[:1], REMEMBERING)
    assert 0.0 <= part <= all_of_it + 1e-12 <= 0.4 + 1e-9
    shuffled = list(memory)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert memory_penalties([proposal(caption)], shuffled, REMEMBERING) == pytest.approx(
        [all_of_it]
    )
