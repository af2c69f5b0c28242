"""Do pictures take part in what a policy says? Its replies again, with every picture grayed out.

Systems have trained on lost images unnoticed: the loss falls all the same. A reply whose
log-probabilities do not move when its picture goes is one that never saw it.
"""

from dataclasses import dataclass, replace

import torch

from mmzero_async.learner.batch import Batch
from mmzero_async.learner.errors import PicturesUnseen
from mmzero_async.learner.model import PolicyModel

FLOOR = 1e-5  # nats; a change below it anywhere is rounding, no picture


@dataclass(frozen=True, slots=True)
class Dependence:
    """How much the sampled tokens' log-probabilities move with their pictures, in nats."""

    tokens: int  # of rows that were shown a picture
    mean: float  # of |change|
    largest: float

    def metrics(self) -> dict[str, float]:
        return {"picture_effect_mean": self.mean, "picture_effect_max": self.largest}


@torch.no_grad()
def dependence(model: PolicyModel, batch: Batch) -> Dependence | None:
    """Under the active adapter; None for a batch without pictures."""
    if batch.pictures is None:
        return None
    seen = model.look(batch)
    unseen = model.look(replace(batch, pictures=batch.pictures.grayed()))
    changes = []
    for micro in batch.micro_batches:
        shown = micro.mask & micro.token_types.bool().any(-1)[:, None]
        if shown.any():
            change = model.logprobs(micro, seen) - model.logprobs(micro, unseen)
            changes.append(change.abs().cpu()[shown].double())
    moved = torch.cat(changes) if changes else torch.zeros(0, dtype=torch.float64)
    if not len(moved):
        return None
    return Dependence(len(moved), float(moved.mean()), float(moved.max()))


def check(found: Dependence, where: str) -> None:
    """PicturesUnseen when no token's log-probability moves by more than FLOOR."""
    if found.largest > FLOOR:
        return
    raise PicturesUnseen(
        f"{where}: the log-probabilities of its {found.tokens} reply tokens do not depend on the "
        f"pictures: grayed out, they change by {found.largest:.1e} nats at most. The run is "
        "stopped, for it would train on questions without their pictures. Check that the base "
        "model's vision weights are there and joined to the language model (run.base_model), and "
        "its image processor; learner.canary_steps = 0 turns this check off"
    )
