"""What the seedling can do, role by role: `python -m mmzero_async.seedling.score [--weights DIR]`.

Speaks to the weights through transformers alone, so that it says something about the model and not
about an engine. Scenes, topics and drawings are held out: their seeds are never used for lessons.
"""

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration

from mmzero_async.roles import coder, proposer, solver
from mmzero_async.seedling import scenes
from mmzero_async.seedling.batches import Encoder, patches, render
from mmzero_async.seedling.heldout import heldout
from mmzero_async.seedling.lessons import TEMPLATES, Lesson, coder_lesson, proposer_lesson

SIZE = 96
SAME_PICTURE = 0.03  # share of pixels in which a drawing may differ from the scene that was meant
_BATCH = 100


class Writer:
    """The model as a function from lessons to texts."""

    def __init__(self, weights: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(weights)
        self.model: Any = Qwen3VLForConditionalGeneration.from_pretrained(
            weights, dtype=torch.float32
        ).eval()
        self.encoder = Encoder(tokenizer, SIZE)
        self.image_token = self.model.config.image_token_id

    @torch.inference_mode()
    def write(self, lessons: Sequence[Lesson], tokens: int, temperature: float) -> Iterator[str]:
        """One reply a lesson; temperature 0 is greedy."""
        tokenizer = self.encoder.tokenizer
        for start in range(0, len(lessons), _BATCH):
            part = lessons[start : start + _BATCH]
            prompts = tokenizer(
                [self.encoder.prompt_text(lesson) for lesson in part],
                padding=True,
                padding_side="left",
                return_tensors="pt",
            )
            inputs: dict[str, Any] = dict(prompts)
            pictures = [patches(render(x.svg, SIZE)) for x in part if x.svg is not None]
            if pictures:
                side = SIZE // 16
                inputs["pixel_values"] = torch.from_numpy(np.concatenate(pictures))
                inputs["image_grid_thw"] = torch.tensor([[1, side, side]] * len(pictures))
                inputs["mm_token_type_ids"] = (prompts.input_ids == self.image_token).int()
            written = self.model.generate(
                **inputs,
                max_new_tokens=tokens,
                do_sample=temperature > 0,
                temperature=temperature or None,
                top_k=0,
                top_p=1.0,
                pad_token_id=self.encoder.pad,
            )
            for ids in written[:, prompts.input_ids.shape[1] :]:
                text = tokenizer.decode(ids, skip_special_tokens=False)
                yield text.partition("<|im_end|>")[0].partition("<|endoftext|>")[0]


def solver_scores(writer: Writer, count: int, temperature: float) -> dict[str, tuple[int, int]]:
    """kind -> (right, asked) over so many held-out scenes, an easy and a hard question each."""
    lessons, wanted = [], []
    for scene in heldout(count, seed=777):
        for asked in (scene.easy, scene.hard):
            prompt = TEMPLATES["solver"].format(question=asked.question)
            lessons.append(Lesson("solver", prompt, "", svg=scene.svg, kind=asked.kind))
            wanted.append(asked)
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for asked, text in zip(wanted, writer.write(lessons, 40, temperature), strict=True):
        total[asked.kind] += 1
        right[asked.kind] += solver.agrees(solver.parse(text).answer, asked.answer)
    return {kind: (right[kind], total[kind]) for kind in sorted(total)}


def proposer_scores(writer: Writer, count: int) -> dict[str, float]:
    """Shares of sampled proposals (temperature 1) that parse, and that differ from each other."""
    rng = random.Random("heldout/proposer")
    lessons = [proposer_lesson(rng) for _ in range(count)]
    parsed = [proposer.parse(text).proposal for text in writer.write(lessons, 120, 1.0)]
    captions = [proposal.caption for proposal in parsed if proposal is not None]
    return {
        "parsed": len(captions) / count,
        "distinct_captions": len(set(captions)) / max(1, len(captions)),
    }


def coder_scores(writer: Writer, count: int) -> dict[str, float]:
    """Shares of sampled drawings (temperature 1) that render, and that show the scene meant."""
    rng = random.Random("heldout/coder")
    lessons = [coder_lesson(rng) for _ in range(count)]
    rendered = right = 0
    for lesson, text in zip(lessons, writer.write(lessons, 200, 1.0), strict=True):
        svg = coder.parse(text).svg
        picture = None if svg is None else _picture(svg)
        if picture is None:
            continue
        rendered += 1
        meant = coder.parse(lesson.reply).svg
        assert meant is not None, "the generator draws well"
        differs = (picture != render(meant, SIZE)).any(axis=-1).mean()
        right += bool(differs <= SAME_PICTURE)
    return {"rendered": rendered / count, "as_specified": right / count}


def _picture(svg: str) -> Any:
    try:
        return render(svg, SIZE)
    except ValueError:
        return None


def summary(by_kind: dict[str, tuple[int, int]]) -> dict[str, float]:
    """Shares by kind, and over easy and hard questions."""
    hard = set(scenes.HARD_KINDS)
    found = {kind: right / asked for kind, (right, asked) in by_kind.items()}
    for name, kinds in (("easy", by_kind.keys() - hard), ("hard", by_kind.keys() & hard)):
        asked = sum(by_kind[kind][1] for kind in kinds)
        found[name] = sum(by_kind[kind][0] for kind in kinds) / max(1, asked)
    return {name: round(value, 4) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=Path(__file__).parent / "weights")
    parser.add_argument("--count", type=int, default=1000, help="scenes, proposals and drawings")
    args = parser.parse_args()
    torch.manual_seed(0)
    writer = Writer(args.weights)
    for mode, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        found = summary(solver_scores(writer, args.count, temperature))
        print(json.dumps({f"solver {mode}": found}), flush=True)
    print(json.dumps({"proposer": proposer_scores(writer, args.count)}), flush=True)
    print(json.dumps({"coder": coder_scores(writer, args.count)}))


if __name__ == "__main__":
    main()
