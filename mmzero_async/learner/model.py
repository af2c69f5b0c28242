"""One frozen base with three LoRA adapters, and the log-probabilities that it gives to a batch.

Only the language model's linear layers carry LoRA (vLLM ignores it on the vision tower), so what
the vision tower sees in a picture is a constant: computed once a window, without gradient, shared
by all rows. Logits exist for sampled tokens only, a chunk at a time. What differs between families
of models is in mmzero_async.families.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import logging

from mmzero_async import families
from mmzero_async.families import Dtype, Family, Reader, Views
from mmzero_async.learner import checkpoint as saving
from mmzero_async.learner.batch import Batch, InputSpec, MicroBatch
from mmzero_async.learner.errors import CheckpointError, LearnerError
from mmzero_async.schemas.events import ROLES, Role

LOGITS_A_CHUNK = 1 << 24  # 64 MiB of float32: a seedling's window at once, 110 tokens of a 152k
PATCHES_A_CALL = 1 << 14


class PolicyModel:
    """The base and the adapters `proposer`, `coder` and `solver`; one of them is active.

    A subclass may have more than an adapter for each role; what is said here of adapters is then
    true of that (full.py).
    """

    layout = saving.ADAPTER  # of a version's folder

    def __init__(
        self,
        base: Any,
        family: Family,
        read: Reader,
        *,
        rank: int,
        alpha: int,
        seed: int,
        logprob_chunk: int = 0,
        gradient_checkpointing: bool = False,
    ) -> None:
        """Wraps `base`, a model of the family, in place; it is frozen from here on.

        Version 0 of every role: B = 0, so the policy is the base, and A drawn from (seed, role).
        `logprob_chunk`: tokens whose logits exist at once, 0: LOGITS_A_CHUNK values of them.
        `gradient_checkpointing`: a layer's activations are computed again in the backward pass.
        """
        self.spec = input_spec(base.config, read)
        self.family = family
        self.lora = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=0.0,
            bias="none",
            target_modules=family.lora_targets,
        )
        self._inner = base.model
        self._head: nn.Module = base.lm_head
        self._logprob_chunk = logprob_chunk
        peft: Any = None
        with torch.random.fork_rng(devices=[]):
            for role in ROLES:
                torch.manual_seed(_seed(seed, role))
                if peft is None:
                    peft = get_peft_model(base, self.lora, adapter_name=role)
                else:
                    peft.add_adapter(role, self.lora)
        self._peft = peft
        self._peft.eval()  # no dropout anywhere; gradients flow all the same
        if gradient_checkpointing:
            checkpoint_layers(family.words(self._inner))
        self._parameters = {role: self._find(role) for role in ROLES}
        self.device: torch.device = next(base.parameters()).device

    def parameters(self, role: Role) -> dict[str, nn.Parameter]:
        """The role's LoRA matrices by their name in peft's file layout, in the model's order."""
        return self._parameters[role]

    def adapter(self, role: Role) -> dict[str, Tensor]:
        """A copy of the role's LoRA matrices on the CPU, as they go into a checkpoint."""
        return {n: p.detach().cpu().clone() for n, p in self.parameters(role).items()}

    def set_adapter(self, role: Role, tensors: dict[str, Tensor]) -> None:
        """Puts matrices into the role's adapter. CheckpointError if names or shapes differ."""
        own = self.parameters(role)
        if own.keys() != tensors.keys():
            odd = sorted(own.keys() ^ tensors.keys())[:3]
            raise CheckpointError(
                f"{role}'s adapter has other matrices than the base model asks for, e.g. {odd}: "
                "it was trained on another base"
            )
        for name, parameter in own.items():
            if parameter.shape != tensors[name].shape:
                raise CheckpointError(
                    f"{role}'s adapter: {name} is {tuple(tensors[name].shape)}, this run expects "
                    f"{tuple(parameter.shape)}: learner.lora_rank or the base has changed"
                )
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(tensors[name])

    def activate(self, role: Role) -> None:
        """The role's adapter is applied and takes gradients; the other two do neither."""
        self._peft.set_adapter(role)

    def layers(self) -> list[GradientCheckpointingLayer]:
        """The language model's layers, whose weights are most of the base's, in their order."""
        return layers_of(self.family.words(self._inner))

    def kept_whole(self) -> list[nn.Parameter]:
        """Parameters of the layers that every process has all of where layers are sharded."""
        return [p for role in ROLES for p in self.parameters(role).values()]

    def before_backward(self, *, last: bool) -> None:
        """A window's gradients are added up from one backward pass to the `last`."""

    @contextlib.contextmanager
    def base(self) -> Iterator[None]:
        """Within it no adapter is applied and nothing takes gradients."""
        with torch.no_grad(), self._peft.disable_adapter():
            yield

    def saved_config(self) -> dict[str, Any]:
        """The JSON beside a version's weights: peft's, without which no engine reads them."""
        config = {**self.lora.to_dict(), "inference_mode": True}
        return dict(json.loads(json.dumps(config, default=_jsonable)))

    def saved_beside(self) -> list[Path]:
        """Files that a version's folder has copies of."""
        return []

    @torch.no_grad()
    def look(self, batch: Batch) -> Views | None:
        """Runs the vision tower over every picture of the batch once; None without pictures."""
        pictures = batch.pictures
        if pictures is None:
            return None
        levels: list[list[Tensor]] = []
        first, count = 0, len(pictures.patches)
        while first < count:
            last, patches = first, 0
            while last < count and (last == first or patches < PATCHES_A_CALL):
                patches += pictures.patches[last]
                last += 1
            seen = self.family.see(self._inner, pictures.part(first, last))
            levels = levels or [[] for _ in seen]
            for level, features in zip(levels, seen, strict=True):
                level += features
            first = last
        return Views(pictures, tuple(levels))

    def logprobs(self, micro: MicroBatch, views: Views | None) -> Tensor:
        """Log-probabilities [B, T] float32 of the sampled tokens at their own temperature.

        Zero where `micro.mask` is false. Natural logarithms over the whole vocabulary, i.e. after
        temperature and before any top-p or top-k.
        """
        mask = micro.mask.to(self.device)
        hidden = self._hidden(micro, views)
        rows, columns = mask.nonzero(as_tuple=True)
        # The hidden state at the place before a token predicts it.
        before = micro.prompt_lengths.to(self.device)[rows] - 1 + columns
        flat = token_logprobs(
            hidden[rows, before],
            self._head,
            micro.completion_ids.to(self.device)[rows, columns],
            micro.temperatures.to(self.device)[rows],
            self._logprob_chunk,
        )
        return flat.new_zeros(mask.shape).masked_scatter(mask, flat)

    def _hidden(self, micro: MicroBatch, views: Views | None) -> Tensor:
        """Last hidden states [B, L, hidden].

        The family feeds the language model itself: transformers' whole forward passes count every
        placeholder token as a picture, also one that a policy sampled, which for the engine is a
        word like any other.
        """
        return self.family.hidden(
            self._inner,
            micro.input_ids.to(self.device),
            micro.token_types.to(self.device),
            micro.pictures.tolist(),
            views,
        )

    def _find(self, role: Role) -> dict[str, nn.Parameter]:
        marker = f".{role}."
        found = {
            name.replace(marker, "."): parameter
            for name, parameter in self._peft.named_parameters()
            if marker in name and "lora_" in name
        }
        if not found:
            raise CheckpointError(
                f"no layer of the base matches {self.family.lora_targets}: is it a model of the "
                f"{self.family.name} family?"
            )
        return found


def load(
    folder: Path,
    *,
    rank: int,
    alpha: int,
    seed: int,
    dtype: Dtype = "float32",
    device: str = "cpu",
    logprob_chunk: int = 0,
    gradient_checkpointing: bool = False,
) -> PolicyModel:
    """A base model's folder (weights, image processor) as PolicyModel. Never downloads.

    LearnerError when the device is not there or the model is of no known family.
    """
    base, family, read = load_base(folder, dtype, device)
    return PolicyModel(
        base,
        family,
        read,
        rank=rank,
        alpha=alpha,
        seed=seed,
        logprob_chunk=logprob_chunk,
        gradient_checkpointing=gradient_checkpointing,
    )


def load_base(folder: Path, dtype: Dtype, device: str) -> tuple[Any, Family, Reader]:
    """transformers' model of a folder, its family and how it reads. LearnerError as `load`."""
    if device == "cuda" and not torch.cuda.is_available():
        raise LearnerError(
            'learner.device = "cuda", but torch finds no CUDA device here. Set learner.device=cpu, '
            "or install a torch for this machine's GPU"
        )
    logging.disable_progress_bar()  # its lines would stand among a command's figures
    try:
        family = families.of_folder(folder)
    except (families.UnknownFamily, OSError, ValueError) as error:
        raise LearnerError(f"model {folder}: {error}") from error
    base = family.load(folder, dtype).to(device)
    return base, family, family.reader(folder, base.config)


def input_spec(config: Any, read: Reader) -> InputSpec:
    """What a model's own configuration asks of its tensors."""
    return InputSpec(
        read=read,
        image_token_id=config.image_token_id,
        pad_token_id=config.text_config.pad_token_id or 0,
        vocabulary=config.text_config.vocab_size,
    )


def token_logprobs(
    hidden: Tensor, head: nn.Module, targets: Tensor, temperatures: Tensor, size: int = 0
) -> Tensor:
    """log softmax(head(h) / temperature)[target], float32 [N], for hidden states [N, hidden].

    Logits of `size` tokens exist at a time (0: of as many as have LOGITS_A_CHUNK of them): with
    more than one chunk they are computed again in the backward pass.
    """

    def chunk(h: Tensor, target: Tensor, temperature: Tensor) -> Tensor:
        logits: Tensor = head(h).float() / temperature[:, None]
        chosen = logits.gather(-1, target[:, None]).squeeze(-1)
        return chosen - logits.logsumexp(-1)

    vocabulary = int(getattr(head, "out_features", 1))
    size = size or max(1, LOGITS_A_CHUNK // vocabulary)
    if len(hidden) <= size:
        return chunk(hidden, targets, temperatures)
    parts = [
        checkpoint(
            chunk,
            hidden[start : start + size],
            targets[start : start + size],
            temperatures[start : start + size],
            use_reentrant=False,
        )
        for start in range(0, len(hidden), size)
    ]
    return torch.cat(parts)


def checkpoint_layers(language_model: nn.Module) -> None:
    """transformers' own gradient checkpointing, for its layers alone, and without training mode:
    a layer asks whether it is in training before it checkpoints, its parts before they drop out."""
    for layer in layers_of(language_model):
        layer.gradient_checkpointing = layer.training = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)


def layers_of(module: nn.Module) -> list[GradientCheckpointingLayer]:
    """transformers' layers in it, in their order."""
    return [m for m in module.modules() if isinstance(m, GradientCheckpointingLayer)]


def _seed(seed: int, role: Role) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{role}".encode()).digest()[:7])


def _jsonable(value: object) -> object:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)
