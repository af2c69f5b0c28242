"""Keys of `[learner]` that make a bigger model or window fit, and say nothing of the loss."""

from typing import Annotated

import msgspec


class ScaleOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """LearnerConfig has them beside its own keys. None changes what a step means."""

    logprob_chunk: Annotated[int, msgspec.Meta(ge=0)] = 0  # tokens; 0: 64 MiB of logits
    gradient_checkpointing: bool = False  # a layer's activations are computed again, not kept
