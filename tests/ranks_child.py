"""A rank of test_parallel.py's learners, started by torchrun: the real group over a tiny model.

    torchrun --nproc-per-node N ranks_child.py STORY MODEL_FOLDER OUT KEY=VALUE...

Rank 0 leads as workers/learner.py does, the others follow as workers/learner_follower.py does.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import tiny_model
import torch
from tiny_training import ALBUM, WINDOWS

from mmzero_async.config import LearnerConfig, RoleLearning
from mmzero_async.learner import parallel
from mmzero_async.learner.full import FullModel
from mmzero_async.learner.step import Trainer, make_deterministic
from mmzero_async.loss_options import LossOptions


def configured(**settings: Any) -> LearnerConfig:
    """`tiny_model.config`, of what JSON can say."""
    for key, kind in (("loss_options", LossOptions), ("solver", RoleLearning)):
        if key in settings:
            settings[key] = kind(**settings[key])
    return tiny_model.config(**settings)


def policy(folder: Path, config: LearnerConfig) -> Any:
    if config.weights == "full":
        return FullModel(folder, gradient_checkpointing=config.gradient_checkpointing)
    return tiny_model.policy(
        folder,
        logprob_chunk=config.logprob_chunk,
        gradient_checkpointing=config.gradient_checkpointing,
    )


def story(it: Trainer, out: Path) -> dict[str, Any]:
    """Two steps, a version, a third step that is thrown away, back, and the third and fourth."""
    it.save(out, 0)
    figures = [it.train(window, ALBUM.__getitem__).metrics for window in WINDOWS[:2]]
    saved = it.save(out, 2)
    it.train(WINDOWS[3], ALBUM.__getitem__)
    it.restore(out, saved)
    pictures = it.check_pictures(WINDOWS[2], ALBUM.__getitem__)
    figures += [it.train(window, ALBUM.__getitem__).metrics for window in WINDOWS[2:]]
    digest = it.save(out, 4).digest
    return {"digest": digest, "metrics": figures, "pictures": pictures}


def held(it: Any) -> int:
    """Values of the layers, without adapters, that this process keeps."""
    found = 0
    for layer in it.layers():
        for name, parameter in layer.named_parameters():
            if "lora_" not in name:
                found += getattr(parameter, "to_local", lambda p=parameter: p)().numel()
    return found


def main() -> None:
    kind, folder, out, *settings = sys.argv[1:]
    config = configured(**{k: json.loads(v) for k, v in (s.split("=") for s in settings)})
    make_deterministic(1)
    rank = os.environ["RANK"]
    place = Path(out) / rank
    place.mkdir(parents=True)
    with parallel.join(config) as group:
        model = policy(Path(folder), config)
        trainers = parallel.trainers(group, model, config)
        solver = trainers["solver"]
        found: dict[str, Any] = {"held": held(model)}
        if kind == "apart" and rank == "1":  # a bit of memory that fell over
            with torch.no_grad():
                next(iter(model.parameters("solver").values()))[0, 0] += 1e-7
        if rank == "0":
            found |= story(solver, place)
        else:
            parallel.follow(group, trainers, print)
        (place / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
