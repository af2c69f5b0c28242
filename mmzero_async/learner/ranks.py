"""A step shared out over N ranks: which micro-batches are whose, and how the parts come together.

Knows neither processes nor a network. `Ranks(n)` lets one process play all n in turn: one rank is
a learner as ever, and n are how a step that n processes took (`parallel.py`) is taken again, to the
bit, for everything is added up in the order of the ranks.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from mmzero_async.learner.batch import Batch, MicroBatch

T = TypeVar("T")
Gradients = list[Tensor | None]  # a parameter each, None where no gradient came to it


class Ranks:
    """All ranks of a step, played by this process."""

    def __init__(self, size: int = 1) -> None:
        self.size = size

    def own(self, hands: Sequence[T]) -> Sequence[T]:
        """Of one thing a rank those that this process works on."""
        return hands

    def gather(self, found: list[T]) -> list[T]:
        """What this process found, one thing for each of `own`, becomes one of every rank."""
        return found

    def add(self, gradients: list[Gradients], parameters: Sequence[Tensor]) -> Gradients:
        """The sum over all ranks, added in their order, of a list for each of `own`."""
        total, *others = gradients
        for other in others:
            pairs = zip(total, other, strict=True)
            total = [b if a is None else a if b is None else a.add_(b) for a, b in pairs]
        return total


def deal(batch: Batch, size: int) -> list[Batch]:
    """The batch in `size` hands: each has its micro-batches and the pictures that these show.

    The largest first, by padded tokens, to whoever has least so far. Every hand has as many as the
    fullest, for what is sharded is gathered by all ranks at once: idle ones fill it up. `tokens`
    and `max_tokens` stay the window's.
    """
    if size == 1:
        return [batch]
    hands: list[list[MicroBatch]] = [[] for _ in range(size)]
    loads = [0] * size
    for micro in sorted(batch.micro_batches, key=_cost, reverse=True):
        lightest = loads.index(min(loads))
        hands[lightest].append(micro)
        loads[lightest] += _cost(micro)
    rounds = max(map(len, hands))
    return [_hand(batch, [*hand, *[_idle()] * (rounds - len(hand))]) for hand in hands]


def _cost(micro: MicroBatch) -> int:
    return micro.input_ids.numel()


def _hand(batch: Batch, micro_batches: list[MicroBatch]) -> Batch:
    if batch.pictures is None:
        return replace(batch, micro_batches=tuple(micro_batches))
    shown = sorted({picture for micro in micro_batches for picture in micro.pictures.tolist()})
    place = {picture: i for i, picture in enumerate(shown)}
    return replace(
        batch,
        micro_batches=tuple(
            replace(
                micro, pictures=torch.tensor([place[p] for p in micro.pictures.tolist()]).long()
            )
            for micro in micro_batches
        ),
        pictures=batch.pictures.chosen(shown) if shown else None,
    )


def _idle() -> MicroBatch:
    """One row without a sampled token: its loss, its gradient and its figures are zero."""
    return MicroBatch(
        input_ids=torch.zeros((1, 2), dtype=torch.int64),
        prompt_lengths=torch.ones(1, dtype=torch.int64),
        completion_ids=torch.zeros((1, 1), dtype=torch.int64),
        mask=torch.zeros((1, 1), dtype=torch.bool),
        behaviour=torch.zeros((1, 1)),
        advantages=torch.zeros(1),
        temperatures=torch.ones(1),
        pictures=torch.zeros(0, dtype=torch.int64),
        token_types=torch.zeros((1, 2), dtype=torch.int32),
        versions=torch.zeros((1, 1), dtype=torch.int64),
        in_loss=torch.ones(1, dtype=torch.bool),
    )
