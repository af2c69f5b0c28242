"""How alike drawings are by their structure (rendering/structure.py): the share of equal numbers.

An estimate of what two drawings have in common over all that either has; its standard deviation is
at most 0.0625. Knows nothing of how the numbers came about.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

STRUCTURE_BYTES = 128
NUMBERS = STRUCTURE_BYTES // 2
_ROWS = 64  # compared with all others at once; bounds the memory

Structures = npt.NDArray[np.uint16]


def read(structure: bytes) -> Structures | None:
    """uint16 [64]; None for none, or for a stranger's nonsense."""
    if len(structure) != STRUCTURE_BYTES:
        return None
    return np.frombuffer(structure, "<u2").astype(np.uint16)


def likeness(one: Structures, others: Structures) -> npt.NDArray[np.float64]:
    """float64 [n] in [0, 1]: of one drawing with each of n."""
    return np.asarray((others == one).mean(axis=1), dtype=np.float64)


def likenesses(structures: Sequence[Structures]) -> npt.NDArray[np.float64]:
    """float64 [n, n], symmetric, 1 on the diagonal."""
    stacked = np.asarray(structures, dtype=np.uint16).reshape(len(structures), NUMBERS)
    found = np.empty((len(stacked), len(stacked)))
    for at in range(0, len(stacked), _ROWS):
        rows = stacked[at : at + _ROWS, None, :]
        found[at : at + _ROWS] = (rows == stacked[None]).mean(axis=2)
    return found


def spread(drawings: Sequence[bytes]) -> float | None:
    """Mean of 1 - likeness over all pairs, 0 to 1; None where fewer than two have a structure."""
    known = [structure for drawing in drawings if (structure := read(drawing)) is not None]
    if len(known) < 2:
        return None
    pairs = np.triu_indices(len(known), k=1)
    return float(1.0 - likenesses(known)[pairs].mean())


def nearest_of_others(proposals: Sequence[Sequence[bytes]]) -> list[float]:
    """One a proposal: the largest likeness of any of its drawings with any of another's; 0 where
    there is nothing to compare."""
    known = [
        (i, structure)
        for i, drawings in enumerate(proposals)
        for drawing in drawings
        if (structure := read(drawing)) is not None
    ]
    nearest = [0.0] * len(proposals)
    if not known:
        return nearest
    owners = np.array([i for i, _ in known])
    found = likenesses([structure for _, structure in known])
    found[owners[:, None] == owners[None, :]] = 0.0
    for owner, value in zip(owners, found.max(axis=1), strict=True):
        nearest[owner] = max(nearest[owner], float(value))
    return nearest
