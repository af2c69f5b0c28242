"""TRL's GRPOTrainer on a window of ours: its own training loop, with the generation left out.

`train()` runs as TRL's users run it: dataloader, buffered batches shuffled and split by TRL,
`training_step`, `compute_loss`, gradient accumulation, clipping, AdamW. Only what would sample and
score (`_generate_and_score_completions`) hands over the window instead, and computes the old
log-probabilities as TRL does beside vLLM; the time for these is told apart.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, set_peft_model_state_dict
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback

from mmzero_async.config import LearnerConfig
from mmzero_async.learner.batch import Batch
from mmzero_async.ops.bench.trl_alone import GRPOConfig, GRPOTrainer

ADAPTER = "default"


@dataclass(frozen=True)
class Seconds:
    """By the clock, and of all threads of this process."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> "Seconds":
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return cls(time.perf_counter(), time.process_time())

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.wall + other.wall, self.cpu + other.cpu)

    def __sub__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.wall - other.wall, self.cpu - other.cpu)


NONE = Seconds(0.0, 0.0)


@dataclass(frozen=True)
class Step:
    """One optimiser step."""

    loss: float
    took: Seconds  # without `old`
    old: Seconds = NONE  # for TRL's old log-probabilities, a forward pass more


def micro_batches(rows: int, at_most: int) -> int:
    """Into how many equal parts TRL splits the rows: the fewest of no more than `at_most` rows."""
    return next(n for n in range(1, rows + 1) if rows % n == 0 and rows // n <= at_most)


def left_padded(batch: Batch) -> dict[str, Any]:
    """TRL's layout of a batch: prompts padded on the left, completions on the right, and every row
    with its own picture."""
    micros = batch.micro_batches
    rows = batch.samples
    longest = max(int(micro.prompt_lengths.max()) for micro in micros)
    width = max(micro.mask.shape[1] for micro in micros)
    prompts = torch.zeros((rows, longest), dtype=torch.long)
    prompt_mask = torch.zeros((rows, longest), dtype=torch.long)
    types = torch.zeros((rows, longest + width), dtype=torch.long)
    completions = torch.zeros((rows, width), dtype=torch.long)
    mask = torch.zeros((rows, width), dtype=torch.long)
    behaviour = torch.zeros((rows, width))
    row = 0
    for micro in micros:
        for i, length in enumerate(micro.prompt_lengths.tolist()):
            prompts[row, longest - length :] = micro.input_ids[i, :length]
            prompt_mask[row, longest - length :] = 1
            types[row, longest - length : longest] = micro.token_types[i, :length]
            sampled = int(micro.mask[i].sum())
            completions[row, :sampled] = micro.completion_ids[i, :sampled]
            mask[row, :sampled] = 1
            behaviour[row, :sampled] = micro.behaviour[i, :sampled]
            row += 1
    assert batch.pictures is not None, "a solver's window has pictures"
    shown = torch.cat([micro.pictures for micro in micros])
    pixels, grids = (batch.pictures.tensors[name] for name in ("pixel_values", "image_grid_thw"))
    patches = torch.split(pixels, list(batch.pictures.patches))
    return {
        "prompt_ids": prompts,
        "prompt_mask": prompt_mask,
        "completion_ids": completions,
        "completion_mask": mask,
        "mm_token_type_ids": types,
        "pixel_values": torch.cat([patches[i] for i in shown.tolist()]),
        "image_grid_thw": grids[shown],
        "num_images": [1] * rows,
        "advantages": torch.cat([micro.advantages for micro in micros]),
        "sampling_per_token_logps": behaviour,
        "num_items_in_batch": torch.tensor(batch.tokens),
    }


class Peer(GRPOTrainer):  # type: ignore[misc]
    """A GRPOTrainer whose every generation is the same window."""

    ready: dict[str, Any]
    cap: float
    losses: list[Tensor]
    old: Seconds = NONE

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        """As TRL: old log-probabilities, no gradient, their ratio to the sampler's truncated."""
        began = Seconds.now()
        given = {key: _on(value, self.accelerator.device) for key, value in self.ready.items()}
        behaviour = given.pop("sampling_per_token_logps")
        with torch.no_grad():
            old, _, _ = self._get_per_token_logps_and_entropies(
                self.model,
                torch.cat([given["prompt_ids"], given["completion_ids"]], dim=1),
                torch.cat([given["prompt_mask"], given["completion_mask"]], dim=1),
                given["completion_ids"].size(1),
                batch_size=self.args.per_device_train_batch_size,
                pixel_values=given["pixel_values"],
                image_grid_thw=given["image_grid_thw"],
                num_images=given["num_images"],
                mm_token_type_ids=given["mm_token_type_ids"],
            )
        ratio = ((old - behaviour) * given["completion_mask"]).exp().clamp(max=self.cap)
        self.old = Seconds.now() - began
        return {**given, "old_per_token_logps": old, "importance_sampling_ratio": ratio}

    def compute_loss(self, *arguments: Any, **named: Any) -> Any:
        loss = super().compute_loss(*arguments, **named)
        self.losses.append(loss.detach())
        return loss


def _nothing() -> None: ...


class Timed(TrainerCallback):  # type: ignore[misc]
    """Clocks every optimiser step of TRL's, from its batch to the updated weights."""

    def __init__(
        self, peer: Peer, *, after: Callable[[Step], None], before: Callable[[], None] = _nothing
    ) -> None:
        self.peer, self.after, self.before = peer, after, before
        self.began = NONE

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        # The learner asks for deterministic algorithms, TRL does not.
        torch.use_deterministic_algorithms(False)
        self.peer.losses = []
        self.before()
        self.began = Seconds.now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        took = Seconds.now() - self.began
        torch.use_deterministic_algorithms(True)
        loss = float(sum(float(part) for part in self.peer.losses))
        self.after(Step(loss, took - self.peer.old, self.peer.old))


def peer(
    model: Any,
    processor: Any,
    batch: Batch,
    lora: LoraConfig,
    adapter: dict[str, Tensor],
    learner: LearnerConfig,
    work: Path,
    *,
    rows_a_pass: int,
    steps: int,
) -> Peer:
    """A trainer that takes `steps` steps on the batch, from the same adapter, with the same
    optimiser's settings and a forward pass of at most `rows_a_pass` rows."""
    parts = micro_batches(batch.samples, rows_a_pass)
    on_cpu = learner.device == "cpu"
    config = GRPOConfig(
        output_dir=str(work),
        use_cpu=on_cpu,
        bf16=not on_cpu and learner.dtype == "bfloat16",
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        loss_type="dapo",
        beta=0.0,
        temperature=1.0,
        num_iterations=1,
        importance_sampling_level="token",
        vllm_importance_sampling_mode="token_truncate",
        vllm_importance_sampling_clip_max=learner.is_cap,
        per_device_train_batch_size=batch.samples // parts,
        gradient_accumulation_steps=parts,
        steps_per_generation=parts,
        num_generations=batch.samples // parts,
        max_steps=steps,
        learning_rate=learner.solver.lr,
        lr_scheduler_type="constant",
        adam_beta1=learner.betas[0],
        adam_beta2=learner.betas[1],
        weight_decay=learner.weight_decay,
        max_grad_norm=learner.max_grad_norm,
        gradient_checkpointing=learner.gradient_checkpointing,
    )
    made = Peer(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config,
        train_dataset=Dataset.from_dict({"prompt": ["a", "b"] * batch.samples}),
        processing_class=processor,
        peft_config=LoraConfig(
            r=lora.r, lora_alpha=lora.lora_alpha, target_modules=lora.target_modules
        ),
    )
    made.remove_callback(PrinterCallback)  # would print among the figures
    made.ready, made.cap, made.losses = left_padded(batch), learner.is_cap, []
    set_peft_model_state_dict(made.model, adapter)
    # The weights multiply the loss only beside vLLM; the batch says what they are.
    made.use_vllm, made.vllm_importance_sampling_correction = True, True
    return made


def _on(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value
