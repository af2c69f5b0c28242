"""A trained version as a whole model: the base's own files, with an adapter's products added.

Works on tensors by their names in the files and loads no model, so that layout, types, tokenizer,
processor and chat template are the base's to the byte, and what is made is a function of the two
folders alone.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save as packed
from torch import Tensor

from mmzero_async import families
from mmzero_async.learner import checkpoint
from mmzero_async.learner.errors import CheckpointError

_PEFT = "base_model.model."  # what peft puts before a module's name
_A, _B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True, slots=True)
class Product:
    """What an adapter adds to one matrix: scale * B @ A."""

    a: Tensor  # [rank, in]
    b: Tensor  # [out, rank]
    scale: float

    def added_to(self, weight: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """In float64, rounded once, to the weight's own type where no other is said."""
        product = self.scale * (self.b.double() @ self.a.double())
        return (weight.double() + product).to(dtype or weight.dtype)


def merge(base: Path, version: Path, out: Path) -> list[str]:
    """Fills the folder `out` with the model that the adapter of `version` makes of `base`; returns
    the names of the tensors that changed. CheckpointError when the two do not fit each other."""
    products = _products(version)
    family = families.of_folder(base)
    files = sorted(base.glob("*.safetensors"))
    names = {file: _names(file) for file in files}
    places = _places(products, [name for found in names.values() for name in found], family.vision)
    for file in files:
        tensors = dict(_changed(file, names[file], places, _computed_in(base)))
        (out / file.name).write_bytes(packed(tensors, metadata={"format": "pt"}))
    for file in sorted(base.iterdir()):
        if file.is_file() and file.suffix != ".safetensors":
            shutil.copyfile(file, out / file.name)
    return sorted(places)


def copy_whole(base: Path, version: Path, out: Path) -> list[str]:
    """The same of a version with full weights, whose folder holds a model already."""
    kept = {checkpoint.MANIFEST, checkpoint.WHOLE.optimizer}
    for file in sorted(version.iterdir()):
        if file.is_file() and file.name not in kept:
            shutil.copyfile(file, out / file.name)
    return sorted(_names(out / checkpoint.WHOLE.weights))


def _products(version: Path) -> dict[str, Product]:
    """By the module's name in the base."""
    layout = checkpoint.ADAPTER
    config = json.loads((version / layout.config).read_text())
    if config.get("use_rslora") or config.get("use_dora") or config.get("fan_in_fan_out"):
        raise CheckpointError(f"{version}: its adapter is no plain LoRA: we cannot merge it")
    scale = config["lora_alpha"] / config["r"]
    with safe_open(version / layout.weights, "pt") as file:
        names = [name for name in file.keys() if name.endswith(_A)]  # noqa: SIM118
        return {
            name.removeprefix(_PEFT).removesuffix(_A): Product(
                file.get_tensor(name), file.get_tensor(name.removesuffix(_A) + _B), scale
            )
            for name in names
        }


def _places(products: Mapping[str, Product], names: list[str], vision: str) -> dict[str, Product]:
    """By the matrix's name in the base's files.

    Files may call modules otherwise than transformers does (Qwen2.5-VL's `model.layers.0` is its
    `model.language_model.layers.0`); from the layer's number on they agree.
    """
    words = [name for name in names if not re.fullmatch(vision, name)]
    found: dict[str, Product] = {}
    for module, product in products.items():
        own = f"{module}.weight"
        layer = own[own.index("layers.") :] if "layers." in own else own
        fitting = [own] if own in words else [n for n in words if n.endswith(f".{layer}")]
        if len(fitting) != 1:
            raise CheckpointError(
                f"the adapter changes {module}, and {len(fitting)} matrices of the base's files "
                "are called so: it was trained on another base"
            )
        found[fitting[0]] = product
    return found


def _changed(
    file: Path, names: list[str], places: Mapping[str, Product], computed_in: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    with safe_open(file, "pt") as tensors, torch.no_grad():
        for name in names:
            tensor = tensors.get_tensor(name)
            product = places.get(name)
            if product is None:
                yield name, tensor
                continue
            if tuple(tensor.shape) != (len(product.b), product.a.shape[1]):
                raise CheckpointError(
                    f"{name} is {tuple(tensor.shape)}, the adapter's is "
                    f"{(len(product.b), product.a.shape[1])}: it was trained on another base"
                )
            # Files may be narrower than what the model computes in, as the seedling's are.
            yield name, product.added_to(tensor, torch.promote_types(tensor.dtype, computed_in))


def _computed_in(base: Path) -> torch.dtype:
    """The type that the model's own configuration names; the narrowest where it names none."""
    config = json.loads((base / "config.json").read_text())
    name = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
    return getattr(torch, str(name).removeprefix("torch."))  # type: ignore[no-any-return]


def _names(file: Path) -> list[str]:
    with safe_open(file, "pt") as tensors:
        return sorted(tensors.keys())
