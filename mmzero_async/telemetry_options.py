"""What the processes of a run tell of themselves: `[logs]`."""

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
