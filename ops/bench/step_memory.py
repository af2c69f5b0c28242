"""How much memory one step takes, the learner's or TRL's, in the process that calls this.

The peak of a process's second step above what was resident before it: the first one made the
optimiser's state. On a GPU it is the allocated memory's.
"""

import ctypes
import gc
import tempfile
from pathlib import Path
from typing import Literal

import torch

from mmzero_async.ops.bench.sizes import Size
from mmzero_async.ops.bench.steps import ours, theirs
from mmzero_async.ops.bench.subjects import subject
from mmzero_async.ops.bench.trl_peer import Step, Timed

Who = Literal["ours", "trl"]


class Meter:
    """The peak between `begin` and `end`, in bytes above what there was."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        self._before = 0

    def begin(self) -> None:
        gc.collect()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
            return
        ctypes.CDLL(None).malloc_trim(0)  # what an earlier step left over is not this one's
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
        self._before = _status("VmRSS")

    def end(self) -> int:
        peak = torch.cuda.max_memory_allocated() if self._cuda else _status("VmHWM")
        return int(peak) - self._before


def measured(who: Who, name: str, device: str, size: Size, checkpointing: bool) -> int:
    """Bytes that the second step of this process takes at its peak."""
    meter = Meter(device)
    with (
        subject(name, device, checkpointing=checkpointing) as it,
        tempfile.TemporaryDirectory(prefix="bench-trl-") as work,
    ):
        own = ours(it, size)
        if who == "ours":
            own.step()
            meter.begin()
            own.step()
            return meter.end()
        trl = theirs(it, own, Path(work), steps=2)
        del own
        found: list[int] = []

        def after(_: Step) -> None:
            found.append(meter.end())

        trl.add_callback(Timed(trl, before=meter.begin, after=after))
        trl.train()
        return found[-1]


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
