"""Pictures that look like an earlier picture of another proposal: from the log, in bounded memory.

Drawings of one proposal should look alike; pictures of two are copies when their fingerprints
differ in at most `bits` of 2304 (`by` "looks"), or at least the share `likeness` of the numbers of
their structures agrees ("structure"), or "either". Only the newest `memory` pictures are compared
with.
"""

from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from mmzero_async.projections import structures
from mmzero_async.projections.settings import CopySettings
from mmzero_async.schemas.events import Rendered
from mmzero_async.schemas.ids import parent

FINGERPRINT_BYTES = 288
_WORDS = FINGERPRINT_BYTES // 8


class Copies:
    """`see` every picture once, in the order of the log."""

    def __init__(
        self,
        bits: int = 8,
        memory: int = 4096,
        by: Literal["looks", "structure", "either"] = "looks",
        likeness: float = 0.95,
    ) -> None:
        self.bits, self.memory = bits, memory
        self.by, self.likeness = by, likeness
        self.found = 0
        self._drawings: list[str] = []
        self._structures = np.zeros((0, structures.NUMBERS), np.uint16)
        self._structured: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)
        self._prints: npt.NDArray[np.uint64] = np.zeros((0, _WORDS), np.uint64)
        self._set_bits: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._next = 0  # where the oldest stands once the memory is full

    @classmethod
    def of(cls, settings: CopySettings) -> Self:
        memory = 0 if settings.copy == "off" else settings.copy_memory
        return cls(settings.copy_bits, memory, settings.copy_by, settings.copy_likeness)

    def novelty(self, event: Rendered) -> float | None:
        """1 - the largest likeness in structure with a remembered picture of another proposal;
        None for a picture without a structure. To be asked before `see`."""
        if event.picture is None or not self.memory:
            return None
        structure = structures.read(event.structure)
        if structure is None:
            return None
        shares = self._likenesses(structure)
        own = parent(event.drawing)
        for place in np.argsort(-shares, kind="stable"):
            if parent(self._drawings[place]) != own:
                return float(1.0 - shares[place])
        return 1.0

    def see(self, event: Rendered) -> str:
        """The oldest drawing that is remembered and looks the same; "" for a new picture.

        A picture without a fingerprint (of an older writer, or a stranger's nonsense) is neither
        compared nor remembered.
        """
        if event.picture is None or len(event.fingerprint) != FINGERPRINT_BYTES or not self.memory:
            return ""
        mine = np.frombuffer(event.fingerprint, "<u8").astype(np.uint64)
        weight, structure = _weights(mine), structures.read(event.structure)
        found = np.zeros(len(self._drawings), np.bool_)
        if self.by != "structure":
            found |= self._looks(mine, int(weight))
        if self.by != "looks" and structure is not None:
            found |= self._likenesses(structure) >= self.likeness
        alike = [self._drawings[i] for i in self._oldest_first(np.flatnonzero(found))]
        self._remember(event.drawing, mine, int(weight), structure)
        others = [drawing for drawing in alike if parent(drawing) != parent(event.drawing)]
        self.found += bool(others)
        return others[0] if others else ""

    def _looks(self, mine: npt.NDArray[np.uint64], weight: int) -> npt.NDArray[np.bool_]:
        """bool [remembered]: whose fingerprints differ in few bits."""
        # No two differ in fewer bits than in the number of set ones: that leaves few to compare.
        near = np.abs(self._set_bits[: len(self._drawings)] - weight) <= self.bits
        candidates = np.flatnonzero(near)
        near[candidates] = _weights(self._prints[candidates] ^ mine) <= self.bits
        return near

    def _likenesses(self, structure: structures.Structures) -> npt.NDArray[np.float64]:
        """float64 [remembered]: 0 where there is no structure to compare with."""
        count = len(self._drawings)
        shares = structures.likeness(structure, self._structures[:count])
        return np.where(self._structured[:count], shares, 0.0)

    def _oldest_first(self, places: npt.NDArray[np.intp]) -> list[int]:
        count = max(1, len(self._drawings))
        return sorted(map(int, places), key=lambda place: (place - self._next) % count)

    def _remember(
        self,
        drawing: str,
        mine: npt.NDArray[np.uint64],
        weight: int,
        structure: structures.Structures | None,
    ) -> None:
        count = len(self._drawings)
        if count < self.memory:
            if count == len(self._prints):  # grows by doubling, within the memory
                grown = min(max(64, 2 * count), self.memory) - count
                self._prints = np.pad(self._prints, ((0, grown), (0, 0)))
                self._set_bits = np.pad(self._set_bits, (0, grown))
                self._structures = np.pad(self._structures, ((0, grown), (0, 0)))
                self._structured = np.pad(self._structured, (0, grown))
            self._drawings.append(drawing)
        place = count if count < self.memory else self._next
        self._drawings[place], self._prints[place] = drawing, mine
        self._set_bits[place] = weight
        self._structured[place] = structure is not None
        if structure is not None:
            self._structures[place] = structure
        if count == self.memory:
            self._next = (self._next + 1) % self.memory


def _weights(prints: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Set bits of each fingerprint; of one alone a number without dimensions."""
    return np.asarray(np.bitwise_count(prints).sum(axis=-1, dtype=np.int64))
