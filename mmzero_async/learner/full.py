"""Full weights: a whole model a role, every parameter of it trained, the base for reference alone.

A version is a folder that transformers and vLLM load as any other model. The vision tower is
trained as the paper does it, so what it sees in a picture changes with every step and takes
gradients: it looks at the pictures of one forward pass at a time. `freeze_vision` leaves it as it
was, and looks once a window.
"""

import contextlib
import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from mmzero_async.families import Pictures, Views
from mmzero_async.learner import checkpoint
from mmzero_async.learner.batch import Batch, MicroBatch
from mmzero_async.learner.errors import CheckpointError
from mmzero_async.learner.model import (
    PolicyModel,
    checkpoint_layers,
    input_spec,
    layers_of,
    load_base,
)
from mmzero_async.learner.parts import as_part, whole
from mmzero_async.schemas.events import ROLES, Role

_OF_THE_TOKENIZER = ("*.json", "*.jinja", "*.txt", "*.model")  # and of processors


@runtime_checkable
class Sharded(Protocol):
    """A layer that fsdp.py has divided."""

    def set_requires_gradient_sync(self, requires: bool, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Unseen:
    """Pictures that are looked at when their turn comes."""

    pictures: Pictures


class FullModel(PolicyModel):
    """Three models, `proposer`, `coder` and `solver`, that begin as the base; one is active."""

    layout = checkpoint.WHOLE

    def __init__(
        self,
        folder: Path,
        *,
        freeze_vision: bool = False,
        device: str = "cpu",
        logprob_chunk: int = 0,
        gradient_checkpointing: bool = False,
    ) -> None:
        """Loads the base model's folder, in float32. LearnerError when the device is not there."""
        base, self.family, read = load_base(folder, "float32", device)
        base.eval()  # no dropout anywhere; gradients flow all the same
        self.spec = input_spec(base.config, read)
        self.device: torch.device = next(base.parameters()).device
        self._folder = folder
        self._freeze_vision = freeze_vision
        self._logprob_chunk = logprob_chunk
        self._reference: Any = None
        self._models: dict[Role, Any] = {role: copy.deepcopy(base) for role in ROLES[1:]}
        self._models[ROLES[0]] = base
        for model in self._models.values():
            if gradient_checkpointing:
                checkpoint_layers(model.model)
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(not freeze_vision or not self._is_vision(name))
        self._use(self._models[ROLES[0]])

    def parameters(self, role: Role) -> dict[str, nn.Parameter]:
        """The role's trained weights by their name in the file, in the model's order."""
        return {n: p for n, p in self._all(role).items() if p.requires_grad}

    def adapter(self, role: Role) -> dict[str, Tensor]:
        """A copy of all the role's weights on the CPU, tied ones once."""
        return {n: whole(p.detach()).cpu().clone() for n, p in self._all(role).items()}

    def set_adapter(self, role: Role, tensors: dict[str, Tensor]) -> None:
        """Puts weights into the role's model. CheckpointError if names or shapes differ."""
        own = self._all(role)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        expected = {name: tuple(parameter.shape) for name, parameter in own.items()}
        if shapes != expected:
            odd = sorted(n for n in shapes.keys() | expected if shapes.get(n) != expected.get(n))
            raise CheckpointError(
                f"{role}'s weights are not of this base model, e.g. {odd[:3]}: they were trained "
                "from another base, or with another learner.weights"
            )
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(as_part(tensors[name], parameter))

    def layers(self) -> list[GradientCheckpointingLayer]:
        """The language model's of every role, the first one's first."""
        return [it for role in ROLES for it in layers_of(self.family.words(self._inner_of(role)))]

    def kept_whole(self) -> list[nn.Parameter]:
        """None: all of a layer is trained, and so much that its moments are divided too."""
        return []

    def before_backward(self, *, last: bool) -> None:
        """Sharded layers keep their gradients whole until the last pass, and are told apart then:
        each rank's own sum first, and the ranks' in their order, as where nothing is sharded."""
        for layer in layers_of(self._inner):
            if isinstance(layer, Sharded):
                layer.set_requires_gradient_sync(last)

    def activate(self, role: Role) -> None:
        """The role's model is the one that is asked."""
        self._use(self._models[role])

    @contextlib.contextmanager
    def base(self) -> Iterator[None]:
        """Within it the base model is asked, and nothing takes gradients."""
        if self._reference is None:  # a fourth model in memory, for losses that look at it
            self._reference, *_ = load_base(self._folder, "float32", str(self.device))
            self._reference.eval().requires_grad_(False)
        active = self._active
        self._use(self._reference)
        try:
            with torch.no_grad():
                yield
        finally:
            self._use(active)

    def look(self, batch: Batch) -> Views | None:
        """As an adapter's model where the vision tower is frozen; otherwise pictures are looked at
        in each forward pass, and with gradient."""
        if self._freeze_vision or batch.pictures is None:
            return super().look(batch)
        return Unseen(batch.pictures)  # type: ignore[return-value]

    def logprobs(self, micro: MicroBatch, views: Views | Unseen | None) -> Tensor:
        """As an adapter's model."""
        if isinstance(views, Unseen):
            shown = sorted(set(micro.pictures.tolist()))
            views = self._seen(views.pictures, shown) if shown else None
        return super().logprobs(micro, views)

    def saved_config(self) -> dict[str, Any]:
        """The base's config.json, with the type that the weights are trained and saved in."""
        config: dict[str, Any] = json.loads((self._folder / "config.json").read_text())
        for part in (config, *(v for v in config.values() if isinstance(v, dict))):
            for key in ("dtype", "torch_dtype"):
                if key in part:
                    part[key] = "float32"
        return config

    def saved_beside(self) -> list[Path]:
        """The base's tokenizer and processor files."""
        found = {file for kind in _OF_THE_TOKENIZER for file in self._folder.glob(kind)}
        return sorted(
            file
            for file in found
            if file.name != checkpoint.WHOLE.config and not file.name.endswith(".index.json")
        )

    def _seen(self, pictures: Pictures, shown: list[int]) -> Views:
        """Of some pictures, in their own places among all of them."""
        levels: tuple[list[Tensor], ...] = ()
        for place in shown:
            seen = self.family.see(self._inner, pictures.part(place, place + 1))
            levels = levels or tuple([torch.empty(0)] * len(pictures.patches) for _ in seen)
            for level, (features,) in zip(levels, seen, strict=True):
                level[place] = features
        return Views(pictures, levels)

    def _all(self, role: Role) -> dict[str, nn.Parameter]:
        return dict(self._models[role].named_parameters())

    def _inner_of(self, role: Role) -> Any:
        return self._models[role].model

    def _is_vision(self, name: str) -> bool:
        return re.fullmatch(self.family.vision, name) is not None

    def _use(self, model: Any) -> None:
        self._active = model
        self._inner, self._head = model.model, model.lm_head
