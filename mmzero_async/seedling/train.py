"""Grows the seedling: `python -m mmzero_async.seedling.train --out DIR --steps 3200`.

One process makes lessons, one learns from them. First it learns to see: half of the lessons ask for
a description. Hard questions come late and seldom, so that the seedling reads pictures well and
reasons over them badly enough to have room to grow. Everything random follows from --seed: the same
steps, seed and threads on the same machine give the same weights.
"""

import argparse
import json
import math
import multiprocessing
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from mmzero_async.seedling import model as architecture
from mmzero_async.seedling import tokenizer as vocabulary
from mmzero_async.seedling.batches import Batch, Encoder, lesson_batches

IMAGE_SIZE = 96
SOLVERS, WRITERS = 64, 8  # lessons a step
SEEING = 0.4  # the first part of the training
DESCRIBE_SHARES = (0.5, 0.15)  # of the solver's lessons, in the first part and after it
HARD_SHARES = (0.0, 0.05)  # of the solver's other lessons, likewise


def teach(queue: Any, folder: str, seed: int, steps: int) -> None:
    """Makes the lessons of every step, in a process of its own."""
    torch.set_num_threads(1)
    encoder = Encoder(AutoTokenizer.from_pretrained(folder), IMAGE_SIZE)
    rng = random.Random(seed)
    for step in range(steps):
        part = int(step >= SEEING * steps)
        queue.put(
            lesson_batches(
                encoder,
                rng,
                solvers=SOLVERS,
                writers=WRITERS,
                describe_share=DESCRIBE_SHARES[part],
                hard_share=HARD_SHARES[part],
            )
        )


def batches(folder: Path, seed: int, steps: int) -> Iterator[tuple[Batch, Batch]]:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue(maxsize=8)
    teacher = context.Process(target=teach, args=(queue, str(folder), seed, steps), daemon=True)
    teacher.start()
    try:
        for _ in range(steps):
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "weights")
    parser.add_argument("--steps", type=int, default=3200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)

    vocabulary.build(args.out, image_size=IMAGE_SIZE)
    words = AutoTokenizer.from_pretrained(args.out)
    ids = {token: words.convert_tokens_to_ids(token) for token in vocabulary.SPECIALS}
    model = architecture.with_linear_patches(architecture.build(len(words), ids))
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters / 1e6:.2f} M parameters, {len(words)} tokens", flush=True)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.lr, weight_decay=0.01, betas=(0.9, 0.98)
    )

    started, step = time.monotonic(), 0
    means = [0.0, 0.0]
    for looking, writing in batches(args.out, args.seed, args.steps):
        progress = step / args.steps
        lr = args.lr * min(1.0, step / 200) * (0.02 + 0.98 * (1 + math.cos(math.pi * progress)) / 2)
        for group in optimizer.param_groups:
            group["lr"] = lr
        seen, written = loss_of(model, looking), loss_of(model, writing)
        torch.autograd.backward(seen + written)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        keep = min(0.99, 1 - 1 / step)
        for i, value in enumerate((seen, written)):
            means[i] = keep * means[i] + (1 - keep) * value.item()
        if step % 50 == 0:
            took = (time.monotonic() - started) / 60
            print(
                f"step {step} of {args.steps}, solver loss {means[0]:.4f}, writers {means[1]:.4f}, "
                f"{took:.1f} min, about {took / step * (args.steps - step):.0f} more",
                flush=True,
            )
        if step % 100 == 0:
            save(model, args.out, args, step, means)
    save(model, args.out, args, step, means)


def save(model: Any, folder: Path, args: argparse.Namespace, step: int, means: list[float]) -> None:
    """bfloat16 on disk: half the bytes, and the loop loads them as float32."""
    state = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    model.config.dtype = "bfloat16"
    model.save_pretrained(folder, state_dict=state)
    recipe = {
        "seed": args.seed,
        "threads": args.threads,
        "steps": step,
        "lr": args.lr,
        "image_size": IMAGE_SIZE,
        "solver_lessons": step * SOLVERS,
        "writer_lessons": step * WRITERS,
        "seeing": SEEING,
        "describe_shares": DESCRIBE_SHARES,
        "hard_shares": HARD_SHARES,
        "parameters": sum(p.numel() for p in model.parameters()),
        "solver_loss": round(means[0], 4),
        "writer_loss": round(means[1], 4),
    }
    (folder / "recipe.json").write_text(json.dumps(recipe, indent=1) + "\n")


if __name__ == "__main__":
    main()
