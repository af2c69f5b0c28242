"""The versions that drew what is still in the making: the oldest must not grow stale."""

from collections import Counter
from dataclasses import dataclass, field

from mmzero_async.schemas.events import ROLES, Role


@dataclass(slots=True)
class Making:
    """Counted as they come and go, for it is asked at every lease. Few are alive at once."""

    versions: dict[Role, Counter[int]] = field(
        default_factory=lambda: {role: Counter() for role in ROLES}
    )

    def began(self, role: Role, version: int) -> None:
        self.versions[role][version] += 1

    def ended(self, role: Role, version: int) -> None:
        counts = self.versions[role]
        counts[version] -= 1
        if counts[version] <= 0:
            del counts[version]

    def oldest(self, role: Role) -> int | None:
        """None when nothing of the role is in the making."""
        return min(self.versions[role], default=None)
