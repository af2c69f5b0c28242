"""Trainers of the tiny model, windows for them, and how two of them are compared."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import tiny_model
import torch
from tiny_model import Album
from torch import Tensor

from mmzero_async.learner.checkpoint import Saved
from mmzero_async.learner.full import FullModel
from mmzero_async.learner.model import PolicyModel
from mmzero_async.learner.ranks import Ranks
from mmzero_async.learner.step import StepResult, Trainer, make_deterministic
from mmzero_async.learner.window import Window
from mmzero_async.schemas.events import Role

ALBUM = Album()
WINDOWS = [tiny_model.window(ALBUM, seed) for seed in range(4)]


@contextlib.contextmanager
def deterministically() -> Iterator[None]:
    """As the learner's process is all its life; the tests after it find torch as it was."""
    threads, before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    make_deterministic(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(before)


def trainer(
    model: PolicyModel, role: Role = "solver", ranks: int = 1, **changes: object
) -> Trainer:
    """`changes` are of the learner's configuration."""
    weights = "full" if isinstance(model, FullModel) else "lora"
    return Trainer(model, role, tiny_model.config(weights=weights, **changes), Ranks(ranks))


def train(it: Trainer, window: Window) -> StepResult:
    return it.train(replace(window, role=it.role), ALBUM.__getitem__)


def spoilt(window: Window, **changes: object) -> Window:
    """With another last group."""
    *most, last = window.groups
    return replace(window, groups=(*most, replace(last, **changes)))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(t, other[n]) for n, t in one.items())


def files(run: Path, saved: Saved) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (run / saved.checkpoint).iterdir()}
