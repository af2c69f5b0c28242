"""What the processes of a run tell of themselves: `[logs]`, `[metrics]`."""

from typing import Annotated

import msgspec


class LogsOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON lines of each process. On disk they take at most file_mib * (keep + 1) a process,
    and what it and its libraries print as much again."""

    file_mib: Annotated[float, msgspec.Meta(gt=0)] = 16.0  # when a file is full, the next begins
    keep: Annotated[int, msgspec.Meta(ge=0, le=99)] = 3  # full files beside the one written to

    @property
    def file_bytes(self) -> int:
        return int(self.file_mib * (1 << 20))


class MetricsOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Figures of each process over HTTP (docs/METRICS.md)."""

    # -1: none; 0: any free port; else the first free one of a hundred from here on.
    port: Annotated[int, msgspec.Meta(ge=-1, le=65435)] = -1
    host: str = "127.0.0.1"  # nobody is asked for a key: another address is for a private network
