"""One optimiser step of the learner beside TRL's GRPOTrainer, and how much of the device it uses.

Both train the same LoRA matrices of the same frozen model on the same window: the same prompt and
sampled ids, pictures, advantages and behaviour log-probabilities, the same loss (token-level
truncated importance sampling), optimiser and threads. TRL runs its own training loop (trl_peer.py),
and between two of its steps the learner takes one. What is counted:

- the learner's is all of `Trainer.train`: from logged events and PNGs to tensors, forward, loss,
  backward, clip, AdamW, digest of the batch and metrics;
- TRL's is one step of `train()`: shuffling and splitting the finished tensors, forward, loss,
  backward, clip, AdamW, its metrics. Tokenising, picture processing and padding are not counted,
  nor, in `step_vs_trl`, the forward pass for old log-probabilities that it makes beside vLLM;
  `step_vs_trl_whole` counts that one.

TRL splits the rows into equal micro-batches, the fewest whose rows fit the learner's budget of
padded tokens. Gradient checkpointing, TRL's default, is off as it is in the preset.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from mmzero_async.learner.batch import Batch, build
from mmzero_async.learner.model import PolicyModel
from mmzero_async.learner.step import Trainer, make_deterministic
from mmzero_async.ops.bench.figures import Figure
from mmzero_async.ops.bench.flops import PEAKS, rows, step_flops
from mmzero_async.ops.bench.lesson_windows import Shown, window
from mmzero_async.ops.bench.sizes import Size
from mmzero_async.ops.bench.subjects import Subject, subject
from mmzero_async.ops.bench.trl_peer import Peer, Seconds, Step, Timed, peer

AGREE = 1e-4  # losses may differ by so much, else different things were measured
PEER = "TRL GRPOTrainer"


class OtherLoss(Exception):
    """The two losses differ, so that the figures would compare different work."""


@dataclass(frozen=True)
class Ours:
    """A learner's trainer, its window and the same window as tensors."""

    policy: PolicyModel
    trainer: Trainer
    shown: Shown
    batch: Batch

    def step(self) -> Step:
        began = Seconds.now()
        result = self.trainer.train(self.shown.window, self.shown.blobs.__getitem__)
        return Step(result.loss, Seconds.now() - began)


def ours(subject: Subject, size: Size) -> Ours:
    make_deterministic(subject.learner.threads)
    policy, budget = subject.policy(), subject.learner.micro_batch_tokens
    shown = window(policy, list(subject.asked(policy, size)), budget)
    batch = build(shown.window, shown.blobs.__getitem__, policy.spec, budget)
    return Ours(policy, Trainer(policy, "solver", subject.learner), shown, batch)


def theirs(subject: Subject, own: Ours, work: Path, *, steps: int) -> Peer:
    """TRL's trainer on the window, from the adapter that the learner's now has."""
    widest = max(micro.input_ids.shape[1] for micro in own.batch.micro_batches)
    return peer(
        subject.base(),
        subject.processor,
        own.batch,
        own.policy.lora,
        own.policy.adapter("solver"),
        subject.learner,
        work,
        rows_a_pass=max(1, subject.learner.micro_batch_tokens // widest),
        steps=steps,
    )


def measured(name: str, device: str, size: Size, repeats: int) -> list[Figure]:
    """`compare` of a preset's model."""
    with subject(name, device) as it:
        return list(compare(it, size, repeats))


def compare(subject: Subject, size: Size, repeats: int) -> Iterator[Figure]:
    """Medians of so many steps of each, after one that is not counted. OtherLoss."""
    own = ours(subject, size)
    taken: list[tuple[Step, Step]] = []
    with tempfile.TemporaryDirectory(prefix="bench-trl-") as work:
        trl = theirs(subject, own, Path(work), steps=repeats + 1)
        trl.add_callback(Timed(trl, after=lambda step: taken.append((own.step(), step))))
        trl.train()
    apart = max(abs(one.loss - other.loss) for one, other in taken)
    if apart > AGREE:
        raise OtherLoss(f"the learner's loss and TRL's are {apart:.2e} apart, at most {AGREE}")
    mine, others = [one for one, _ in taken[1:]], [other for _, other in taken[1:]]
    tokens = sum(row.tokens for row in rows(own.batch))
    seconds = median(one.took.wall for one in mine)
    cpu = median(one.took.cpu for one in others) / median(one.took.cpu for one in mine)
    yield Figure(
        "step_vs_trl",
        tokens / seconds,
        "tokens/s",
        f"{PEER}, a step without its old log-probabilities",
        tokens / median(one.took.wall for one in others),
        f"{subject.name}, {own.batch.samples} samples of {tokens} tokens on "
        f"{subject.learner.device}, threads: {subject.learner.threads}, {len(mine)} steps of each "
        f"by turns, losses at most {apart:.0e} apart; by CPU time the ratio is {cpu:.3g}",
    )
    yield Figure(
        "step_vs_trl_whole",
        tokens / seconds,
        "tokens/s",
        f"{PEER} with its old log-probabilities",
        tokens / median((one.took + one.old).wall for one in others),
    )
    yield _utilisation(subject, own, seconds)


def _utilisation(subject: Subject, own: Ours, seconds: float) -> Figure:
    """Model FLOPs a second, against the data sheet's peak or a matrix product of this device."""
    assert own.batch.pictures is not None, "a solver's window has pictures"
    flops = step_flops(
        subject.config, subject.learner.lora_rank, rows(own.batch), own.batch.pictures.patches
    )
    peak, against = _peak(subject)
    return Figure("step_flops", flops / seconds / 1e12, "TFLOP/s", against, peak / 1e12)


def _peak(subject: Subject) -> tuple[float, str]:
    if subject.learner.device == "cuda":
        name = torch.cuda.get_device_name()
        for part, peak in PEAKS.items():
            if part in name and subject.learner.dtype == "bfloat16":
                return peak, f"data sheet's peak of {name}, bfloat16"
    side, dtype = 1024, getattr(torch, subject.learner.dtype)
    one = torch.ones((side, side), dtype=dtype, device=subject.learner.device)
    taken = []
    for _ in range(9):
        began = Seconds.now()
        one @ one
        taken.append((Seconds.now() - began).wall)
    return 2 * side**3 / median(taken), f"a product of {side} x {side} matrices, same threads"
