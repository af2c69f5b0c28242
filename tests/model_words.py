"""Log-probabilities of a whole batch: as the policy says them, and independently of it."""

import tiny_model
import torch
from tiny_model import Album
from torch import Tensor

from mmzero_async.learner.batch import Batch, build
from mmzero_async.learner.model import PolicyModel


def whole(policy: PolicyModel, album: Album, budget: int = 64, seed: int = 0) -> Batch:
    return build(tiny_model.window(album, seed), album.__getitem__, policy.spec, budget)


def all_logprobs(policy: PolicyModel, batch: Batch) -> list[Tensor]:
    views = policy.look(batch)
    return [policy.logprobs(micro, views) for micro in batch.micro_batches]


@torch.no_grad()
def independently(model, batch: Batch) -> list[Tensor]:
    """Row by row, unpadded, through the model's own forward: all logits, then log_softmax."""
    found = []
    for micro in batch.micro_batches:
        left = micro.pictures.tolist()
        out = torch.zeros(micro.mask.shape)
        for i, start in enumerate(micro.prompt_lengths.tolist()):
            drawn = int(micro.mask[i].sum())
            ids = micro.input_ids[i : i + 1, : start + drawn]
            seen: dict[str, Tensor] = {}
            shown = int(micro.token_types[i].sum())
            mine: list[int] = []
            while shown:
                mine.append(left.pop(0))
                shown -= batch.pictures.patches[mine[-1]] // 4
            if mine:
                parts = [batch.pictures.part(p, p + 1).tensors for p in mine]
                seen = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
                seen["mm_token_type_ids"] = micro.token_types[i : i + 1, : start + drawn]
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **seen).logits[0]
            for t in range(drawn):
                scores = (logits[start + t - 1] / micro.temperatures[i]).log_softmax(-1)
                out[i, t] = scores[ids[0, start + t]]
        assert not left
        found.append(out)
    return found
