"""How often things happened lately: counts in slots of a few seconds, by the times in the log.

Bounded: what is older than the window is forgotten, whatever a run's length.
"""

from collections import Counter
from dataclasses import dataclass, field

SLOT = 5.0  # seconds
WINDOW = 60.0


@dataclass(slots=True)
class Rates:
    """Feed it roughly in order of time; a clock that jumps back counts into the newest slot."""

    slots: dict[int, Counter[str]] = field(default_factory=dict)
    first: float | None = None  # unix seconds of the first thing counted

    def add(self, name: str, seconds: float, count: int = 1) -> None:
        self.first = seconds if self.first is None else self.first
        newest = max(self.slots, default=0)
        slot = max(int(seconds // SLOT), newest)
        self.slots.setdefault(slot, Counter())[name] += count
        if slot != newest:
            for old in [each for each in self.slots if (slot - each) * SLOT > WINDOW]:
                del self.slots[old]

    def per_minute(self, name: str, now: float) -> float:
        """Of the window that ends now, or of the time since the first thing, if that is less."""
        if self.first is None:
            return 0.0
        since = int((now - WINDOW) // SLOT)
        found = sum(counts[name] for slot, counts in self.slots.items() if slot > since)
        lasted = min(WINDOW, max(SLOT, now - self.first))
        return found * 60.0 / lasted
