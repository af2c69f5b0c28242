"""How long a window's captions take to be clustered by BLEU: 512 of 40 to 90 words, within 1 s."""

import random
import time
from statistics import median

from mmzero_async.config import ProposerConfig
from mmzero_async.ops.bench.figures import Figure
from mmzero_async.roles.diversity import cluster_shares

CAPTIONS = 512
VOCABULARY = 3000
STEMS = 8  # that near twins are one word away from
LIMIT = 1.0  # seconds


def measured(repeats: int) -> list[Figure]:
    rng = random.Random(CAPTIONS)
    stems = [_caption(rng) for _ in range(STEMS)]
    kinds = {
        "strangers": [" ".join(_caption(rng)) for _ in range(CAPTIONS)],
        "twins": [_twin(rng, rng.choice(stems)) for _ in range(CAPTIONS)],
    }
    cluster_shares(kinds["twins"][:8], 0.5)  # loads the library
    return [_figure(name, captions, repeats) for name, captions in kinds.items()]


def _figure(kind: str, captions: list[str], repeats: int) -> Figure:
    wall, processor = [], []
    for _ in range(repeats):
        began, spent = time.perf_counter(), time.process_time()
        cluster_shares(captions, ProposerConfig().diversity_threshold)
        wall.append(time.perf_counter() - began)
        processor.append(time.process_time() - spent)
    note = f"{CAPTIONS} captions; {median(processor):.2f} s of processor time"
    return Figure(f"diversity_512_{kind}", median(wall), "s", "the limit of 1 s", LIMIT, note)


def _caption(rng: random.Random) -> list[str]:
    return [_word(rng) for _ in range(rng.randint(40, 90))]


def _twin(rng: random.Random, stem: list[str]) -> str:
    words = list(stem)
    words[rng.randrange(len(words))] = _word(rng)
    return " ".join(words)


def _word(rng: random.Random) -> str:
    return f"w{rng.randrange(VOCABULARY)}"
