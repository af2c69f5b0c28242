"""Blind probes: which answered questions are asked again without their picture, and how.

Can a question be answered without looking? A share of them, chosen by drawing and question from
the run's seed, is asked again with no picture or with another one of the run. A probe falls due
once its question is answered. Unless a penalty makes it part of the proposer's reward, no group
waits for it, it is leased only where nothing else is to be answered, and at most MAX_OPEN wait.
"""

from collections import deque

from mmzero_async.projections.settings import ProbeSettings
from mmzero_async.schemas.events import Answered, Proposal, Rendered
from mmzero_async.schemas.ids import parent
from mmzero_async.schemas.work import Blind, Work, derived_seed

MAX_OPEN = 256  # probes that no group waits for; while so many are open no further one falls due
REMEMBERED = 64  # pictures to choose another one from
_RANGE = 1 << 31  # of derived_seed


class Probes:
    """Fed by the lineage; holds no probe itself."""

    def __init__(self, settings: ProbeSettings | None = None, seed: int = 0) -> None:
        self._settings, self._seed = settings or ProbeSettings(), seed
        self._pictures: deque[tuple[str, str]] = deque(maxlen=REMEMBERED)  # proposal, digest
        self.open = 0

    @property
    def awaited(self) -> bool:
        """Whether groups wait for their probes, as these enter a reward."""
        return self._settings.penalty > 0

    def rendered(self, event: Rendered) -> None:
        if event.picture is not None:
            self._pictures.append((parent(event.drawing), event.picture))

    def due(self, event: Answered, proposal: Proposal | None) -> Work | None:
        """The probe that an answered question calls for, if it was chosen."""
        key = f"probe/{event.drawing}/{event.question}"
        if derived_seed(self._seed, key) >= self._settings.share * _RANGE:
            return None
        if not self.awaited and self.open >= MAX_OPEN:
            return None
        self.open += 1
        blind, picture = self._instead(event.drawing, key)
        return Work(
            stage="answer",
            target=event.drawing,
            proposal=proposal,
            picture=picture,
            question=event.question,
            blind=blind,
            answers=[outcome.answer for outcome in event.outcomes],
        )

    def settled(self) -> None:
        self.open -= 1

    def _instead(self, drawing: str, key: str) -> tuple[Blind, str]:
        """What is shown: nothing, or the picture of another proposal."""
        choice = derived_seed(self._seed, f"{key}/instead")
        others = [digest for proposal, digest in self._pictures if proposal != parent(drawing)]
        wanted = self._settings.without
        other = wanted == "other" or (wanted == "either" and choice % 2 == 1)
        return ("other", others[choice // 2 % len(others)]) if other and others else ("none", "")
