"""Keys of `[learner]` that make a bigger model or window fit, and say nothing of the loss."""

import os
from typing import Annotated, Literal

import msgspec

LAUNCHER = "MMZERO_LAUNCHER"  # environment of a rank: process id of what started it


class ScaleOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """LearnerConfig has them beside its own keys. None changes what a step means."""

    logprob_chunk: Annotated[int, msgspec.Meta(ge=0)] = 0  # tokens; 0: 64 MiB of logits
    gradient_checkpointing: bool = False  # a layer's activations are computed again, not kept
    processes: Annotated[int, msgspec.Meta(ge=1)] = 1  # on each host; more: under torchrun
    sharding: Literal["none", "fsdp"] = "none"  # "fsdp": each holds its part of every layer


def under_torchrun(options: ScaleOptions) -> bool:
    """Whether the learner is more than one process: here, or on other hosts (PET_NNODES)."""
    return options.processes > 1 or os.environ.get("PET_NNODES", "1") != "1"
