"""One step of one role: window in, figures out, the policy one version further.

Knows no log and no engine. A step is all or nothing, and from the same checkpoint, window and
machine it gives the same bits.
"""

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mmzero_async.config import LearnerConfig, RoleLearning
from mmzero_async.families import Views
from mmzero_async.learner import canary, checkpoint
from mmzero_async.learner.batch import Batch, Blobs, MicroBatch, batch_digest, build
from mmzero_async.learner.checkpoint import Saved
from mmzero_async.learner.errors import CheckpointError, StepError
from mmzero_async.learner.losses import (
    Tokens,
    TokenSums,
    VersionSums,
    Whole,
    loss_from,
    version_sums,
)
from mmzero_async.learner.losses.corrections import second_moment_cutoff, squares
from mmzero_async.learner.losses.seen import look
from mmzero_async.learner.model import PolicyModel
from mmzero_async.learner.parts import as_part, clip, optimised, whole
from mmzero_async.learner.ranks import Ranks, deal
from mmzero_async.learner.rate import SampleSums, rate, sample_sums
from mmzero_async.learner.window import Window
from mmzero_async.roles.filters import truncated
from mmzero_async.schemas.events import Role


class Sums(NamedTuple):
    """What micro-batches add up to."""

    tokens: TokenSums
    versions: VersionSums
    samples: SampleSums

    def plus(self, other: "Sums") -> "Sums":
        return Sums(
            self.tokens + other.tokens, self.versions + other.versions, self.samples + other.samples
        )


class Update(NamedTuple):
    """One optimiser step."""

    sums: Sums
    gradient_norm: float
    lr: float


@dataclass(frozen=True, slots=True)
class Hand:
    """What one rank has of a window."""

    batch: Batch
    views: Views | None
    proximal: Sequence[Tensor | None]  # log pi that the window began with, a micro-batch each


@dataclass(frozen=True, slots=True)
class StepResult:
    """`metrics` are deterministic; `seconds` and `padded_tokens` say how fast the step was."""

    loss: float
    metrics: dict[str, float]
    batch_digest: str
    seconds: float
    padded_tokens: int


def make_deterministic(threads: int) -> None:
    """Same inputs, same bits, from here on in this process. Call once, before any model runs."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Filling fresh memory with NaN finds reads of uninitialised memory; here it only costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


class Trainer:
    """Optimiser of one role over the shared PolicyModel. Use one at a time: adapters switch.

    ConfigError for settings of the loss that contradict each other.
    """

    def __init__(
        self, model: PolicyModel, role: Role, config: LearnerConfig, ranks: Ranks | None = None
    ) -> None:
        self.model = model
        self.role: Role = role
        self.config = config
        self.ranks = ranks or Ranks()
        self.version = 0  # of the weights as they are; staleness counts from it
        self._loss = loss_from(config)
        self._learning: RoleLearning = getattr(config, role)
        self._parameters = model.parameters(role)
        self._optimizer = torch.optim.AdamW(
            optimised(self._parameters.values()),
            lr=self._learning.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            foreach=True,
        )

    def train(self, window: Window, blobs: Blobs) -> StepResult:
        """Takes one step on the window.

        Raises WindowError for a window that cannot become tensors and StepError for a loss or
        gradient that is not finite; weights and optimiser are then untouched.
        """
        if window.role != self.role:
            raise StepError(f"a {window.role} window was given to the {self.role}'s trainer")
        started = time.perf_counter()
        batch = build(
            window,
            blobs,
            self.model.spec,
            self.config.micro_batch_tokens,
            mask_truncated=self.config.mask_truncated_completions,
        )
        self.model.activate(self.role)
        updates = self._updates(window, batch)
        self.version += 1
        (sums, versions, weights), gradient_norm, lr = updates[0]
        rewards, advantages = _all(window, "rewards"), _all(window, "advantages")
        samples = [sample for g in window.groups for sample in g.generation.samples]
        metrics = {
            "loss": sums.loss,
            **sums.metrics(),
            **versions.metrics(),
            **versions.shares(sums),
            "grad_norm": gradient_norm,
            "lr": lr,
            **({"sample_ess": weights.effective} if self.config.lr_by_ess else {}),
            **({"ranks": float(self.ranks.size)} if self.ranks.size > 1 else {}),
            "groups": float(len(window.groups)),
            "samples": float(len(rewards)),
            "reward_mean": float(rewards.mean()),
            "reward_std": float(rewards.std(correction=0)),
            "advantage_std": float(advantages.std(correction=0)),
            "advantage_max": float(advantages.abs().max()),
            "truncated_share": sum(map(truncated, samples)) / max(1, len(samples)),
            **(_of_last(updates[-1]) if len(updates) > 1 else {}),
        }
        return StepResult(
            loss=sums.loss,
            metrics=metrics,
            batch_digest=batch_digest(batch),
            seconds=time.perf_counter() - started,
            padded_tokens=sum(m.input_ids.numel() for m in batch.micro_batches),
        )

    def check_pictures(self, window: Window, blobs: Blobs) -> dict[str, float]:
        """Figures of how much the window's replies depend on their pictures; none without pictures.

        PicturesUnseen when they do not at all, WindowError for a window that is no tensors.
        """
        batch = build(window, blobs, self.model.spec, self.config.micro_batch_tokens)
        self.model.activate(self.role)
        found = canary.dependence(self.model, batch)
        if found is None:
            return {}
        canary.check(found, f"{self.role}, window that begins with group {window.groups[0].group}")
        return found.metrics()

    def save(self, run: Path, version: int) -> Saved:
        """The policy and its optimiser as a version of the run (0: the initial policy)."""
        adapter, optimizer = self.state()
        saved = checkpoint.save(
            run,
            self.role,
            version,
            adapter=adapter,
            adapter_config=self.model.saved_config(),
            optimizer=optimizer,
            layout=self.model.layout,
            beside=self.model.saved_beside(),
        )
        self.version = version
        return saved

    def restore(self, run: Path, saved: Saved) -> None:
        """Back to a saved version, bit for bit. CheckpointError if it is damaged or foreign."""
        loaded = checkpoint.read(run, saved.checkpoint, saved.digest)
        self.put(loaded.adapter, loaded.optimizer, checkpoint.version_of(saved))

    def put(
        self, adapter: dict[str, Tensor], optimizer: Mapping[str, Tensor], version: int
    ) -> None:
        """These weights and moments from here on. CheckpointError if they do not fit the model."""
        self._put(adapter, optimizer)
        self.version = version

    def fingerprint(self) -> str:
        """Sha-256 (16 hex digits) over the policy's bits and its optimiser's."""
        digest = hashlib.sha256()
        adapter, optimizer = self.state()
        for name, tensor in (adapter | optimizer).items():
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Copies of the policy's weights and its optimiser's state, whole, on the CPU."""
        return self.model.adapter(self.role), self._optimizer_state()

    def begin_with(self, run: Path, saved: Saved, *, optimizer: bool) -> None:
        """A version of another run, to be saved as this one's first. Its optimiser's moments come
        along or are left there. Raises as `restore` does."""
        loaded = checkpoint.read(run, saved.checkpoint, saved.digest)
        self.put(loaded.adapter, loaded.optimizer if optimizer else {}, self.version)

    def _put(self, adapter: dict[str, Tensor], optimizer: Mapping[str, Tensor]) -> None:
        state = self._unpacked(optimizer)
        self.model.set_adapter(self.role, adapter)
        # Clearing first: a version 0 has no moments, and none may survive from a later one.
        self._optimizer.state.clear()
        for name, values in state.items():
            self._optimizer.state[self._parameters[name]] = values

    def _updates(self, window: Window, batch: Batch) -> list[Update]:
        """`learner.num_iterations` optimiser steps on one window: all of them or none."""
        count = self.config.num_iterations
        begun = self.state() if count > 1 else None
        updates: list[Update] = []
        try:
            hands = [self._hand(part) for part in self.ranks.own(deal(batch, self.ranks.size))]
            whole = Whole(
                tokens=batch.tokens,
                samples=batch.samples,
                max_completion_length=self._max_completion_length(batch),
            )
            for _ in range(count):
                updates.append(self._update(window, hands, whole))
        except BaseException:
            if begun is not None and updates:
                self._put(*begun)
            raise
        finally:
            self._optimizer.zero_grad(set_to_none=True)
        return updates

    def _hand(self, batch: Batch) -> Hand:
        views = self.model.look(batch)
        return Hand(batch, views, self._proximal(batch, views))

    def _update(self, window: Window, hands: Sequence[Hand], whole: Whole) -> Update:
        everything = self._accumulate(hands, whole)
        sums = everything.tokens
        gradient_norm = clip(self._parameters.values(), self.config.max_grad_norm)
        # The ratio too: a loss that never weighs by mu would train on a broken mu unnoticed.
        if not all(map(_finite, (sums.loss, gradient_norm, sums.ratio))):
            raise StepError(
                f"{self.role}: loss {sums.loss}, gradient norm {gradient_norm}, summed ratio "
                f"{sums.ratio} on the window that begins with group {window.groups[0].group}: "
                "nothing was changed. Reject these groups or lower learner.<role>.lr"
            )
        lr = rate(self.config, self._learning, self.version, everything.samples)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        return Update(everything, gradient_norm, lr)

    def _proximal(self, batch: Batch, views: Views | None) -> Sequence[Tensor | None]:
        """log pi of the weights as they are, a micro-batch each, for a loss that asks for them."""
        if not self._loss.needs_proximal:
            return [None] * len(batch.micro_batches)
        with torch.no_grad():
            return [self.model.logprobs(micro, views) for micro in batch.micro_batches]

    def _accumulate(self, hands: Sequence[Hand], whole: Whole) -> Sums:
        """Gradients of the whole window; returns its sums."""
        whole = replace(whole, second_moment_cutoff=self._second_moment_cutoff(hands))
        parameters = list(self._parameters.values())
        gradients, found = [], []
        for hand in hands:
            self._optimizer.zero_grad(set_to_none=True)
            found.append(self._backward(hand, whole))
            gradients.append([parameter.grad for parameter in parameters])
        summed = self.ranks.add(gradients, parameters)
        for parameter, gradient in zip(parameters, summed, strict=True):
            parameter.grad = gradient
        return reduce(Sums.plus, self.ranks.gather(found))

    def _backward(self, hand: Hand, whole: Whole) -> Sums:
        """Gradients of one hand's micro-batches; returns their sums."""
        sums, left = Sums(TokenSums(), VersionSums(), SampleSums()), len(hand.proximal)
        for micro, begun_with in zip(hand.batch.micro_batches, hand.proximal, strict=True):
            left -= 1
            self.model.before_backward(last=not left)
            reference: Tensor | None = None
            if self._loss.needs_reference:
                with self.model.base():
                    reference = self.model.logprobs(micro, hand.views)
            tokens = replace(
                self._tokens(micro, self.model.logprobs(micro, hand.views), reference),
                proximal=begun_with,
            )
            loss, part = self._loss(tokens, whole)
            loss.backward()  # type: ignore[no-untyped-call]
            weights = sample_sums(tokens) if self.config.lr_by_ess else SampleSums()
            sums = sums.plus(Sums(part, version_sums(tokens), weights))
        return sums

    def _tokens(self, micro: MicroBatch, logprobs: Tensor, reference: Tensor | None) -> Tokens:
        device = self.model.device
        return Tokens(
            logprobs=logprobs,
            behaviour=micro.behaviour.to(device),
            mask=(micro.mask & micro.in_loss[:, None]).to(device),
            advantages=micro.advantages.to(device),
            reference=reference,
            staleness=(self.version - micro.versions).to(device),
        )

    def _max_completion_length(self, batch: Batch) -> int:
        length = self.config.loss_options.max_completion_length or batch.max_tokens
        if self.config.loss == "dr_grpo" and length < 1:
            raise StepError(
                "dr_grpo divides by the longest completion there can be, and the window's requests "
                "do not say it: set learner.loss_options.max_completion_length"
            )
        return length

    def _second_moment_cutoff(self, hands: Sequence[Hand]) -> float | None:
        """M2PO's, for which the whole window is looked at once more, without gradient."""
        threshold = self._loss.second_moment_threshold
        if threshold is None:
            return None
        found = []
        for hand in hands:
            moments = []
            with torch.no_grad():
                for micro in hand.batch.micro_batches:
                    tokens = self._tokens(micro, self.model.logprobs(micro, hand.views), None)
                    departure = look(tokens, tokens.behaviour).departure
                    moments.append(squares(departure)[tokens.mask].cpu())
            found.append(torch.cat(moments))
        return second_moment_cutoff(torch.cat(self.ranks.gather(found)), threshold)

    def _optimizer_state(self) -> dict[str, Tensor]:
        """Adam's step and moments by parameter: `<parameter>::<exp_avg | exp_avg_sq | step>`."""
        return {
            f"{name}::{key}": whole(value.detach()).cpu().clone()
            for name, parameter in self._parameters.items()
            for key, value in self._optimizer.state.get(parameter, {}).items()
        }

    def _unpacked(self, packed: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        state: dict[str, dict[str, Tensor]] = {}
        for key, value in packed.items():
            name, _, moment = key.partition("::")
            parameter = self._parameters.get(name)
            if parameter is None or (moment != "step" and value.shape != parameter.shape):
                raise CheckpointError(
                    f"{self.role}'s optimiser state does not fit the model at {key}: the "
                    "checkpoint was made with another base or learner.lora_rank"
                )
            placed = value.cpu() if moment == "step" else as_part(value, parameter)
            state.setdefault(name, {})[moment] = placed
        return state


def _of_last(update: Update) -> dict[str, float]:
    """Figures of a window's last optimiser step; the others are of its first."""
    sums = update.sums.tokens
    return {
        "last_loss": sums.loss,
        "last_grad_norm": update.gradient_norm,
        "last_clipped_share": sums.metrics()["clipped_share"],
        "last_mismatch_kl": sums.metrics()["mismatch_kl"],
    }


def _all(window: Window, name: Literal["rewards", "advantages"]) -> Tensor:
    """float64 [samples of the window]"""
    return torch.tensor([v for g in window.groups for v in getattr(g, name)], dtype=torch.float64)


def _finite(value: float) -> bool:
    return bool(torch.isfinite(torch.tensor(value)))
