"""`[tracker]`: where a run's figures are shown beside its log."""

from typing import Literal

import msgspec

TrackerKind = Literal["none", "tensorboard", "wandb", "trackio"]


class TrackerOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A follower of the log shows every figure there (docs/TRACKERS.md). Nothing in it can slow
    the run or change what it does."""

    kind: TrackerKind = "none"
    project: str = "mmzero"  # of wandb and trackio

    @property
    def wanted(self) -> bool:
        """Whether a run starts a follower beside its log server."""
        return self.kind != "none"
