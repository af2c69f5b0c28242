"""`just bench learner`: a step beside TRL's, its memory, and what overlapping is worth.

    python -m mmzero_async.ops.bench.learner              some minutes
    python -m mmzero_async.ops.bench.learner --quick      within 45 seconds on two free cores
    python -m mmzero_async.ops.bench.learner --model qwen3-vl-2b --device cuda

One JSON line a figure: `step_vs_trl` (steps.py says what is counted), `step_memory_vs_trl`,
`async_vs_sync_...` and `learner_waiting_...` (overlap.py says what is real in them), and
`diversity_512_...`, the clustering of a window's captions (diversity.py). With --model
a preset's architecture in full size, with random weights, takes the seedling's place in the steps;
`step_flops` on a GPU is then the model's FLOP utilisation. The overlap is always the seedling's.
"""

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from mmzero_async.ops.bench.figures import Figure
from mmzero_async.ops.bench.forks import Forks
from mmzero_async.ops.bench.overlap import overlap
from mmzero_async.ops.bench.sizes import FULL, MODELS, QUICK, Extent


def measured(model: str, device: str, extent: Extent) -> Iterator[Figure]:
    forks = Forks(["overlap_processes", "step_memory", "steps"])
    yield from forks.call("diversity:measured", extent.repeats)
    yield from forks.call("steps:measured", model, device, extent.window, extent.repeats)
    yield from _memory(forks, model, device, extent)
    yield from overlap(forks, extent.steps, extent.latency, beside=extent.beside)


def _memory(forks: Forks, model: str, device: str, extent: Extent) -> Iterator[Figure]:
    """Each in a process of its own; with layers computed again, as is TRL's default, and without,
    as is the presets'."""
    figures = {"step_memory_vs_trl": False, "step_memory_checkpointed_vs_trl": True}
    whose = [(who, checkpointing) for checkpointing in figures.values() for who in ("ours", "trl")]

    def peak(one: tuple[str, bool]) -> int:
        who, checkpointing = one
        asked = (who, model, device, extent.window, checkpointing)
        return int(forks.call("step_memory:measured", *asked))

    with ThreadPoolExecutor(2 if extent.beside else 1) as hands:
        peaks = dict(zip(whose, hands.map(peak, whose), strict=True))
    for figure, checkpointing in figures.items():
        own, trl = peaks["ours", checkpointing], peaks["trl", checkpointing]
        against = f"TRL GRPOTrainer, gradient checkpointing {'on' if checkpointing else 'off'}"
        note = f"{model}, peak of one step above the process before it"
        yield Figure(figure, own / 1e6, "MB", against, trl / 1e6, note)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="benchmark of the learner")
    parser.add_argument("--quick", action="store_true", help="within 45 seconds, rougher")
    parser.add_argument("--model", default="seedling", choices=MODELS, help="whose steps")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args(argv)
    for figure in measured(options.model, options.device, QUICK if options.quick else FULL):
        print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
