"""Grows the seedling: `python -m mmzero_async.seedling.train --out DIR`.

One process makes lessons, one learns from them. In the first stage it learns to look: half of the
lessons ask for a description; hard questions come late and seldom. The second gives it two habits
with hard questions: to read the picture first, or, more often, to answer at once, which it does
badly. Which habit pays is for the loop to find out. Everything random follows from --seed: with
one thread the same steps and seed on the same machine give the same weights, bit for bit.
"""

import argparse
import json
import math
import multiprocessing
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration

from mmzero_async.seedling import model as architecture
from mmzero_async.seedling import tokenizer as vocabulary
from mmzero_async.seedling.batches import Batch, Encoder, lesson_batches

IMAGE_SIZE = 96
SOLVERS, WRITERS = 64, 12  # lessons a step


@dataclass(frozen=True)
class Stage:
    """A part of the schooling with a learning rate that falls from `lr` to a fiftieth of it.

    Shares of the solver's lessons, before and after `turn` (a share of the steps): descriptions of
    the whole picture; hard questions among the others; hasty answers among the hard ones.
    """

    name: str
    steps: int
    lr: float
    turn: float
    describe: tuple[float, float]
    hard: tuple[float, float]
    hasty: float


SCHOOLING = (
    Stage("looking", 3600, 1.5e-3, turn=0.4, describe=(0.5, 0.15), hard=(0.0, 0.06), hasty=0.0),
    Stage("habits", 500, 5e-4, turn=0.0, describe=(0.1, 0.1), hard=(0.3, 0.3), hasty=0.6),
)


def teach(queue: Any, folder: str, seed: int, stage: Stage) -> None:
    """Makes the lessons of every step of a stage, in a process of its own."""
    torch.set_num_threads(1)
    encoder = Encoder(AutoTokenizer.from_pretrained(folder), IMAGE_SIZE)
    rng = random.Random(seed)
    for step in range(stage.steps):
        part = int(step >= stage.turn * stage.steps)
        queue.put(
            lesson_batches(
                encoder,
                rng,
                solvers=SOLVERS,
                writers=WRITERS,
                describe_share=stage.describe[part],
                hard_share=stage.hard[part],
                hasty_share=stage.hasty,
            )
        )


def batches(folder: Path, seed: int, stage: Stage) -> Iterator[tuple[Batch, Batch]]:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue(maxsize=8)
    teacher = context.Process(target=teach, args=(queue, str(folder), seed, stage), daemon=True)
    teacher.start()
    try:
        for _ in range(stage.steps):
            yield queue.get()
    finally:
        teacher.terminate()


def loss_of(model: Any, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy of the reply tokens."""
    ids = torch.from_numpy(batch.ids)
    config = model.config
    mask = (ids != config.text_config.pad_token_id).long()
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    if batch.pixels is not None:
        side = IMAGE_SIZE // 16
        inputs["pixel_values"] = torch.from_numpy(batch.pixels)
        inputs["image_grid_thw"] = torch.tensor([[1, side, side]] * len(ids))
        inputs["mm_token_type_ids"] = (ids == config.image_token_id).int()
    hidden = model.model(**inputs).last_hidden_state
    labels = torch.from_numpy(batch.labels)[:, 1:]
    taught = labels != -100
    logits = model.lm_head(hidden[:, :-1][taught])
    return torch.nn.functional.cross_entropy(logits, labels[taught])


def school(model: Any, folder: Path, stage: Stage, seed: int) -> dict[str, float]:
    """Takes the stage's steps, saves now and then; returns the mean losses of the end."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=stage.lr, weight_decay=0.01, betas=(0.9, 0.98)
    )
    warm = min(200, max(1, stage.steps // 10))
    started = time.monotonic()
    means = [0.0, 0.0]
    for step, (looking, writing) in enumerate(batches(folder, seed, stage)):
        falling = (1 + math.cos(math.pi * step / stage.steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = stage.lr * min(1.0, step / warm) * (0.02 + 0.98 * falling)
        seen, written = loss_of(model, looking), loss_of(model, writing)
        torch.autograd.backward(seen + written)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done = step + 1
        keep = min(0.99, 1 - 1 / done)
        for i, value in enumerate((seen, written)):
            means[i] = keep * means[i] + (1 - keep) * value.item()
        if done % 50 == 0:
            took = (time.monotonic() - started) / 60
            print(
                f"{stage.name}: step {done} of {stage.steps}, solver loss {means[0]:.4f}, "
                f"writers {means[1]:.4f}, {took:.1f} min, "
                f"about {took / done * (stage.steps - done):.0f} more",
                flush=True,
            )
        if done % 100 == 0:
            save(model, folder)
    save(model, folder)
    return {"solver": round(means[0], 4), "writers": round(means[1], 4)}


def newborn(folder: Path, seed: int) -> Any:
    """Vocabulary and random weights."""
    torch.manual_seed(seed)
    vocabulary.build(folder, image_size=IMAGE_SIZE)
    words = AutoTokenizer.from_pretrained(folder)
    ids = {token: words.convert_tokens_to_ids(token) for token in vocabulary.SPECIALS}
    return architecture.build(len(words), ids)


def grown(folder: Path) -> Any:
    """What a stage left in the folder, as float32."""
    return Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)


def save(model: Any, folder: Path) -> None:
    """bfloat16 on disk: half the bytes, and the loop loads them as float32."""
    state = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    model.config.dtype = "bfloat16"
    model.save_pretrained(folder, state_dict=state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "weights")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    for stage in SCHOOLING:
        parser.add_argument(f"--{stage.name}-steps", type=int, default=stage.steps)
    parser.add_argument(
        "--from",
        dest="first",
        choices=[stage.name for stage in SCHOOLING],
        default=SCHOOLING[0].name,
        help="go on with this stage from the weights in --out",
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    # Without it, sums over rows that are looked up twice are made in whatever order threads come.
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]

    recipe: dict[str, Any] = {"seed": args.seed, "threads": args.threads, "image_size": IMAGE_SIZE}
    recipe |= {"solver_lessons_a_step": SOLVERS, "writer_lessons_a_step": WRITERS}
    file = args.out / "recipe.json"
    stages: dict[str, Any] = {}
    if args.first != SCHOOLING[0].name:
        stages = json.loads(file.read_text())["stages"]
    names = [stage.name for stage in SCHOOLING]
    for number, plan in enumerate(SCHOOLING):
        if number < names.index(args.first):
            continue
        stage = replace(plan, steps=getattr(args, f"{plan.name}_steps"))
        model = architecture.with_linear_patches(
            grown(args.out) if number else newborn(args.out, args.seed)
        )
        losses = school(model, args.out, stage, args.seed + number)
        stages[stage.name] = {**asdict(stage), "loss": losses}
        parameters = sum(p.numel() for p in model.parameters())
        file.write_text(
            json.dumps({**recipe, "parameters": parameters, "stages": stages}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
