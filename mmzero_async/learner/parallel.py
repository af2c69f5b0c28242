"""A learner of several processes: rank 0 leads, the others do its steps with it.

    torchrun starts N of them -> each loads the base -> rank 0 restores, trains, saves as one would
    alone, and says each of these to the others first -> they do the same -> gradients are added up

Only rank 0 sees the log, the engine and the checkpoints. All hold the same adapters and moments,
to the bit, and compare them before a version is written. A rank that dies ends them all: nothing
that is not committed counts, and the supervisor starts them again from the last committed step.

Orders are pickled: they come from rank 0 of the same job, over torch's own connections, which are
neither encrypted nor authenticated. Hosts of one learner belong on one trusted network.
"""

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from mmzero_async.config import LearnerConfig
from mmzero_async.learner.batch import Blobs
from mmzero_async.learner.checkpoint import Saved
from mmzero_async.learner.errors import LearnerError, RanksError
from mmzero_async.learner.model import PolicyModel
from mmzero_async.learner.parts import is_part
from mmzero_async.learner.ranks import Gradients, Ranks
from mmzero_async.learner.step import StepResult, Trainer
from mmzero_async.learner.window import Window
from mmzero_async.scale_options import LAUNCHER
from mmzero_async.schemas.events import ROLES, Role

T = TypeVar("T")
FOREVER = timedelta(days=365)  # that a rank waits for the next order: a window may take long
VALUES_A_CALL = 1 << 24  # gradient values that are gathered at once
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Train:
    role: Role
    window: Window
    pictures: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class LookAtPictures:
    role: Role
    window: Window
    pictures: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Put:
    role: Role
    adapter: dict[str, Tensor]
    optimizer: Mapping[str, Tensor]
    version: int


@dataclass(frozen=True, slots=True)
class Compare:
    role: Role


@dataclass(frozen=True, slots=True)
class Gather:
    """Rank 0 is about to write down what each has a part of."""

    role: Role


Order = Train | LookAtPictures | Put | Compare | Gather


class Group(Ranks):
    """This process's place among the ranks of one learner. Use as a context manager."""

    def __init__(self) -> None:
        super().__init__(dist.get_world_size())
        self.rank = dist.get_rank()
        # A step that hangs ends by torch's own timeout; waiting for the next one must not.
        self._orders = dist.new_group(backend="gloo", timeout=FOREVER)

    def __enter__(self) -> "Group":
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            with contextlib.suppress(RanksError):  # a signal may have ended them before us
                self.tell(None)
            dist.destroy_process_group()

    def own(self, hands: Sequence[T]) -> Sequence[T]:
        return hands[self.rank : self.rank + 1]

    def gather(self, found: list[T]) -> list[T]:
        gathered: list[Any] = [None] * self.size
        with self._together():
            dist.all_gather_object(gathered, found[0])
        return gathered

    def add(self, gradients: list[Gradients], parameters: Sequence[Tensor]) -> Gradients:
        (own,) = gradients
        had = self.gather([[g is not None and not is_part(g) for g in own]])
        moved = [any(ranks) for ranks in zip(*had, strict=True)]
        # Minus zero, for one who has none: added to anything it leaves the very bits.
        flat = torch.cat(
            [
                (torch.full_like(p, -0.0) if g is None else g).flatten()
                for g, p, needed in zip(own, parameters, moved, strict=True)
                if needed
            ]
        )
        for part in torch.split(flat, VALUES_A_CALL):
            parts = [torch.empty_like(part) for _ in range(self.size)]
            with self._together():
                dist.all_gather(parts, part.contiguous())
            part.copy_(parts[0])
            for other in parts[1:]:
                part.add_(other)
        pairs = list(zip(parameters, moved, strict=True))
        values = iter(torch.split(flat, [p.numel() for p, needed in pairs if needed]))
        # Of what is sharded each rank has its part of the sum already.
        return [
            next(values).view_as(p) if needed else g
            for (p, needed), g in zip(pairs, own, strict=True)
        ]

    def tell(self, order: Order | None) -> None:
        """Rank 0 to all others; None: it was the last."""
        if self.rank == 0:
            with self._together():
                dist.broadcast_object_list([order], src=0, group=self._orders)

    def hear(self) -> Order | None:
        """What rank 0 says next."""
        heard: list[Any] = [None]
        with self._together():
            dist.broadcast_object_list(heard, src=0, group=self._orders)
        order: Order | None = heard[0]
        return order

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise RanksError(
                f"rank {self.rank} of {self.size} has lost another one: {error}. All of them end; "
                "the learner starts again from the last committed step"
            ) from error


class LeadingTrainer(Trainer):
    """Rank 0's: what it does, all do."""

    def __init__(self, model: PolicyModel, role: Role, config: LearnerConfig, group: Group) -> None:
        super().__init__(model, role, config, group)
        self.group = group

    def train(self, window: Window, blobs: Blobs) -> StepResult:
        pictures = _pictures(window, blobs)
        self.group.tell(Train(self.role, window, pictures))
        return super().train(window, pictures.__getitem__)

    def check_pictures(self, window: Window, blobs: Blobs) -> dict[str, float]:
        pictures = _pictures(window, blobs)
        if self.config.sharding != "none":  # else each can run the model alone
            self.group.tell(LookAtPictures(self.role, window, pictures))
        return super().check_pictures(window, pictures.__getitem__)

    def put(
        self, adapter: dict[str, Tensor], optimizer: Mapping[str, Tensor], version: int
    ) -> None:
        self.group.tell(Put(self.role, adapter, optimizer, version))
        super().put(adapter, optimizer, version)

    def save(self, run: Path, version: int) -> Saved:
        """As `Trainer.save`. RanksError when the ranks do not hold the same bits."""
        self.group.tell(Compare(self.role))
        held = self.group.gather([self.fingerprint()])
        if len(set(held)) > 1:
            raise RanksError(
                f"{self.role}, version {version}: the ranks hold different weights or moments "
                f"({held}), so nothing was saved. Are they the same machine, torch and base model?"
            )
        if self.config.sharding != "none":
            self.group.tell(Gather(self.role))
        return super().save(run, version)


def join(config: LearnerConfig) -> Group:
    """This process's place, from what torchrun says in the environment.

    RanksError when it was not started so, or with another number of processes than configured.
    """
    if os.environ.get("LOCAL_WORLD_SIZE") != str(config.processes):
        raise RanksError(
            f"learner.processes = {config.processes}, but {_started()}: start the learner with "
            "`python -m mmzero_async.workers.learner_ranks --run-dir RUN`, as the supervisor does"
        )
    _die_with_launcher()
    backend = "gloo"
    if config.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend)
    return Group()


def trainers(group: Group, policy: PolicyModel, learner: LearnerConfig) -> dict[Role, Trainer]:
    """Each role's trainer over this rank's model, sharded where the configuration says so."""
    if learner.sharding == "fsdp":
        from mmzero_async.learner.fsdp import shard

        shard(policy.layers(), policy.device.type, policy.kept_whole())
    if group.rank == 0:
        return {role: LeadingTrainer(policy, role, learner, group) for role in ROLES}
    return {role: Trainer(policy, role, learner, group) for role in ROLES}


def follow(group: Group, trainers: Mapping[Role, Trainer], logger: Any) -> None:
    """Does what rank 0 says until it says no more. RanksError when it is gone."""
    while (order := group.hear()) is not None:
        try:
            obey(order, trainers[order.role], group)
        except RanksError:
            raise
        except LearnerError as error:  # rank 0 has met the same and decides
            logger.warning("not done", order=type(order).__name__, error=str(error))


def obey(order: Order, trainer: Trainer, group: Group) -> None:
    match order:
        case Train(window=window, pictures=pictures):
            trainer.train(window, pictures.__getitem__)
        case LookAtPictures(window=window, pictures=pictures):
            trainer.check_pictures(window, pictures.__getitem__)
        case Put(adapter=adapter, optimizer=optimizer, version=version):
            trainer.put(adapter, optimizer, version)
        case Compare():
            group.gather([trainer.fingerprint()])
        case Gather():
            trainer.state()


def _pictures(window: Window, blobs: Blobs) -> dict[str, bytes]:
    return {digest: blobs(digest) for g in window.groups for digest in g.generation.images}


def _started() -> str:
    local = os.environ.get("LOCAL_WORLD_SIZE")
    return f"torchrun started {local}" if local else "torchrun did not start this one"


def _die_with_launcher() -> None:
    """The launcher ends its ranks, unless it is killed itself: then the kernel does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    launcher = os.environ.get(LAUNCHER)
    if launcher and os.getppid() != int(launcher):
        raise RanksError("the process that started this rank is gone already")
