"""MM-Zero's rewards as a spreadsheet would have them: rows, one cell a formula, nothing shared.

Written from the paper's formulas and from our readings of them that docs/METHOD.md lists: shares
are of all answers asked for (or of the valid ones, as in the reference), BLEU is the mean of both
directions, equal texts are no distance, a content type must be a known one. So it finds slips, not
a wrong reading. Imports nothing of ours; answers are compared as strings, BLEU is nltk's, clusters
are scikit-learn's, shares are exact fractions until the last cell.
"""

from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from sklearn.cluster import AgglomerativeClustering


@dataclass
class DrawingRow:
    """failure: "" (rendered), "render", "no_code" or "not_svg"."""

    failure: str
    easy: list[str | None] = field(default_factory=list)
    hard: list[str | None] = field(default_factory=list)
    formats: list[bool] = field(default_factory=list)


@dataclass
class ProposalRow:
    """kind "" is an unparseable sample, with no drawings."""

    kind: str
    caption: str = ""
    easy_question: str = ""
    hard_question: str = ""
    easy_answer: str = ""
    drawings: list[DrawingRow] = field(default_factory=list)


def valid(answers: list[str | None]) -> list[str | None]:
    """Without those that the reference's code takes for none."""
    return [a for a in answers if a is not None and a not in ("none", "N/A", "unknown")]


def votes(answers: list[str | None]) -> Counter[str]:
    return Counter(answer for answer in answers if answer is not None)


def solvability(row: DrawingRow, easy_answer: str) -> Fraction:
    return Fraction(sum(answer == easy_answer for answer in row.easy), len(row.easy))


def consistency(answers: list[str | None]) -> Fraction:
    return Fraction(max(votes(answers).values(), default=0), max(1, len(answers)))


def difficulty(row: DrawingRow) -> Fraction:
    return min(consistency(row.hard), 1 - consistency(row.hard))


def solver_column(row: DrawingRow) -> list[list[float]]:
    """Rewards of the hard answers, one column for each answer that may be the silver one."""
    top = max(votes(row.hard).values(), default=0)
    labels = [answer for answer, count in votes(row.hard).items() if count == top] or [None]
    return [
        [
            float(Fraction(9, 10) * (a is not None and a == label) + Fraction(1, 10) * kept)
            for a, kept in zip(row.hard, row.formats, strict=True)
        ]
        for label in labels
    ]


def coder_cell(row: DrawingRow, easy_answer: str, reading: str = "min") -> float:
    """reading "min": d = min(c, 1 - c), as the paper's code; "any": 1 if anybody answered."""
    if not row.failure:
        d = difficulty(row) if reading == "min" else Fraction(bool(votes(row.hard)))
        return float(1 + solvability(row, easy_answer) + d)
    reward = Fraction(-1, 10)
    if row.failure == "no_code":
        reward -= Fraction(5, 100)
    if row.failure in ("no_code", "not_svg"):
        reward -= Fraction(1, 2)
    return float(max(reward, Fraction(-1, 2)))


def proposer_cell(row: ProposalRow, type_penalty: float, likeness: float) -> float:
    if not row.kind:
        return -1.0
    pictures = [drawing for drawing in row.drawings if not drawing.failure]
    total = Fraction(0)
    for picture in pictures:
        total += min(solvability(picture, row.easy_answer), Fraction(1, 2)) + difficulty(picture)
    reward = total / len(row.drawings)
    if pictures:
        mean = sum(map(difficulty, pictures), Fraction(0)) / len(pictures)
        reward -= Fraction(3, 10) * (mean < Fraction(15, 100))
    return float(reward) - type_penalty - likeness


def proposer_column(rows: list[ProposalRow]) -> list[float]:
    """Rewards of all samples of a window, in their order."""
    parsed = [row for row in rows if row.kind]
    types = type_column([row.kind for row in parsed])
    likenesses = likeness_column(parsed)
    penalties = iter(zip(types, likenesses, strict=True))
    return [proposer_cell(row, *(next(penalties) if row.kind else (0.0, 0.0))) for row in rows]


def type_column(kinds: list[str]) -> list[float]:
    counts = Counter(kinds)
    if len(counts) < 2:
        return [0.0] * len(kinds)
    shares = [Fraction(counts[kind], len(kinds)) for kind in kinds]
    half = Fraction(1, 2)
    return [
        float(Fraction(15, 100) * (share - half) / half) if share > half else 0.0
        for share in shares
    ]


def likeness_column(rows: list[ProposalRow]) -> list[float]:
    n = len(rows)
    if n < 2:
        return [0.0] * n
    columns = (
        (0.45, [row.caption for row in rows]),
        (0.20, [row.easy_question for row in rows]),
        (0.35, [row.hard_question for row in rows]),
    )
    excess = [0.0] * n
    for weight, texts in columns:
        labels = clusters(texts)
        for i in range(n):
            excess[i] += weight * (labels.count(labels[i]) / n - 1 / n)
    return [max(-0.5, min(0.5, cell * n * 0.5)) for cell in excess]


def clusters(texts: list[str]) -> list[int]:
    """Average linkage on 1 - BLEU, the mean of both directions; the same words are no distance."""
    smoothing = SmoothingFunction().method1
    words = [text.split() for text in texts]

    def bleu(hypothesis: list[str], reference: list[str]) -> float:
        return float(sentence_bleu([reference], hypothesis, smoothing_function=smoothing))

    distances = np.array(
        [[0.0 if a == b else 1.0 - (bleu(a, b) + bleu(b, a)) / 2.0 for b in words] for a in words]
    )
    found = AgglomerativeClustering(
        n_clusters=None, distance_threshold=0.25, metric="precomputed", linkage="average"
    ).fit_predict(distances)
    return [int(label) for label in found]


def advantage_column(rewards: list[float]) -> list[float]:
    """(r - mean) / (deviation with n - 1, plus 1e-4)."""
    mean = sum(rewards) / len(rewards)
    deviation = (sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1)) ** 0.5
    return [(r - mean) / (deviation + 1e-4) for r in rewards]
