"""A model's weights replaced inside vLLM's worker, all of them or none, and read back.

Loaded there by `--worker-extension-cls`; nothing else may import it. It adds a backend to vLLM's
weight transfer API: an update names a checkpoint's weights file and its digest. Whatever can be
refused is refused before the first byte changes. From then on the worker either holds exactly the
file's values, read back from where its layers compute with them, or it ends itself: an engine with
half a policy in it answers nobody.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from vllm.config import set_current_vllm_config
from vllm.distributed.weight_transfer import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.logger import init_logger
from vllm.model_executor.model_loader.reload import (
    finalize_layerwise_reload,
    initialize_layerwise_reload,
)
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

BACKEND = "checkpoint"
_BROKEN = 70  # exit status, EX_SOFTWARE
_ROWS_AT_ONCE = 256  # of an identity matrix that a packed layer is read back with
logger = init_logger(f"vllm.{__name__}")


@dataclass
class Nothing(WeightTransferInitInfo):  # type: ignore[misc]
    """There is nothing to agree on beforehand."""


@dataclass
class WeightsFile(WeightTransferUpdateInfo):  # type: ignore[misc]
    """A safetensors file as this machine sees it, and its sha-256 in hex digits."""

    path: str
    sha256: str


class CheckpointTransfer(WeightTransferEngine[Nothing, WeightsFile]):  # type: ignore[misc]
    """The backend. One update is one file; start and finish have nothing left to do."""

    init_info_cls = Nothing
    update_info_cls = WeightsFile
    supports_draft_weight_update = False

    def init_transfer_engine(self, init_info: Nothing) -> None:
        """Nothing to connect to."""

    def start_weight_update(self) -> None:
        """The model is touched only once the file is known to be good."""

    def finish_weight_update(self) -> None:
        """The update ended when the weights were read back."""

    def shutdown(self) -> None:
        """Nothing to release."""

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """ValueError, with the model as it was, for a file that is not what it should be."""
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: WeightsFile) -> None:
        try:
            _check_digest(Path(update_info.path), update_info.sha256)
            with safe_open(update_info.path, "pt") as file:
                odd = misfits(self.model, file)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{update_info.path} is no readable weights file: {error}") from error
        if odd:
            raise ValueError(f"{update_info.path} does not fit this engine's model: {odd[:3]}")
        try:
            initialize_layerwise_reload(self.model)
            with safe_open(update_info.path, "pt") as file:
                names = file.keys()
                self.model.load_weights((name, file.get_tensor(name)) for name in names)
            finalize_layerwise_reload(self.model, self.model_config)
            _pack_again(self.model)
            differing = different(self.model, update_info.path)
        except BaseException:
            logger.exception("the weights of %s are in here in part: this engine ends", update_info)
            os._exit(_BROKEN)
        if differing:
            logger.error("not the weights of %s at %s: this engine ends", update_info, differing)
            os._exit(_BROKEN)


class Extension:
    """What vLLM mixes into its worker."""

    def different_weights(self, path: str) -> list[str]:
        """Tensors of a safetensors file that the engine's layers do not compute with; none: it
        serves exactly this file. For `POST /collective_rpc`."""
        worker: Any = self
        with set_current_vllm_config(worker.vllm_config):
            return different(worker.model_runner.get_model(), path)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a checkpoint's tensor lies in vLLM's model: rows of a layer's parameter."""

    layer: nn.Module
    parameter: str
    full_name: str
    first: int
    rows: int
    shape: tuple[int, ...]  # of the parameter as it is loaded, before vLLM packs it

    def fits(self, shape: tuple[int, ...]) -> bool:
        # An embedding may be padded below its last word.
        padded = int(getattr(self.layer, "org_vocab_size", 0))
        rows = padded or self.shape[0]
        return self.first + self.rows <= rows and self.shape[1:] == shape[1:]


def places(model: nn.Module, shapes: dict[str, tuple[int, ...]]) -> dict[str, Place | None]:
    """The place of each tensor of a checkpoint; None where vLLM's model has none for it.

    vLLM stacks some of a checkpoint's matrices (q, k, v; gate, up), in the order that the model's
    own tables say.
    """
    parameters: dict[str, list[str]] = getattr(model, "packed_modules_mapping", {})
    stacked = {part: parts for parts in parameters.values() if len(parts) > 1 for part in parts}
    fused = {part: name for name, parts in parameters.items() for part in parts}
    found: dict[str, Place | None] = {}
    for name, shape in shapes.items():
        pieces = name.split(".")
        first = 0
        inner: str | None = model.hf_to_vllm_mapper.map_name(name)  # type: ignore[operator, union-attr]
        part = next((piece for piece in pieces if piece in stacked), None)
        if part is not None and inner is not None:
            at = pieces.index(part)
            before = stacked[part][: stacked[part].index(part)]
            siblings = [".".join([*pieces[:at], one, *pieces[at + 1 :]]) for one in before]
            first = sum(shapes.get(sibling, (0,))[0] for sibling in siblings)
            inner = inner.replace(f".{part}.", f".{fused[part]}.")
        found[name] = None if inner is None else _place(model, inner, first, shape)
    return found


def misfits(model: nn.Module, file: Any) -> list[str]:
    """Names in an open safetensors file without a place of their shape, and parameters of the model
    that no tensor of the file fills."""
    shapes = _shapes(file)
    where = places(model, shapes)
    odd = [n for n, place in where.items() if place is None or not place.fits(shapes[n])]
    filled: dict[str, int] = {}
    for place in where.values():
        if place is not None:
            filled[place.full_name] = filled.get(place.full_name, 0) + place.rows
    for name, _ in model.named_parameters():
        layer = model.get_submodule(name.rpartition(".")[0])
        shape = _loaded_shape(layer, name.rpartition(".")[2])
        rows = int(getattr(layer, "org_vocab_size", 0)) or (shape[0] if shape else 1)
        if filled.get(name, 0) < rows:
            odd.append(name)
    return odd


@torch.no_grad()
def different(model: nn.Module, path: str) -> list[str]:
    """Names in a safetensors file whose values are not those that the model computes with."""
    with safe_open(path, "pt") as file:
        where = places(model, _shapes(file))
        layers: dict[int, Tensor] = {}
        odd = []
        for name, place in where.items():
            if place is None:
                odd.append(name)
                continue
            if id(place.layer) not in layers:
                layers.clear()  # one layer at a time: a packed one is read back as a whole
            held = _held(place, layers)
            rows = held[place.first : place.first + place.rows] if held.ndim else held
            wanted = file.get_tensor(name).to(rows.dtype).to(rows.device)
            if not torch.equal(rows, wanted):
                odd.append(name)
    # A head tied to the embedding is in no file, and has a packed copy of its own.
    for name, layer in _packed_beside(model):
        packed = torch.cat(list(_columns(layer, layer.weight.shape[1], layer.weight.dtype))).T
        if not torch.equal(packed, layer.weight):
            odd.append(name)
    return odd


def _packed_beside(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Layers with a packed copy of a matrix that they also hold plainly."""
    for name, layer in model.named_modules():
        weight = getattr(layer, "weight", None)
        if hasattr(layer, "cpu_linear") and weight is not None and weight.numel():
            yield name, layer


def _pack_again(model: nn.Module) -> None:
    """vLLM reloads what a file has; a head tied to the embedding would keep its old packed copy."""
    for _, layer in _packed_beside(model):
        layer.quant_method.process_weights_after_loading(layer)


def _shapes(file: Any) -> dict[str, tuple[int, ...]]:
    names = file.keys()
    return {name: tuple(file.get_slice(name).get_shape()) for name in names}


def _held(place: Place, layers: dict[int, Tensor]) -> Tensor:
    """The parameter's values. A layer whose matrix vLLM packed out of sight on a CPU multiplies an
    identity matrix, which gives each value times one."""
    parameter: Tensor = getattr(place.layer, place.parameter)
    if place.parameter != "weight" or parameter.numel() or not all(place.shape):
        return parameter
    if id(place.layer) not in layers:
        columns = _columns(place.layer, place.shape[1], parameter.dtype)
        layers[id(place.layer)] = torch.cat(list(columns)).T
    return layers[id(place.layer)]


def _columns(packed: Any, width: int, dtype: torch.dtype) -> Iterator[Tensor]:
    for start in range(0, width, _ROWS_AT_ONCE):
        ones = torch.eye(width, dtype=dtype)[start : start + _ROWS_AT_ONCE]
        yield packed.cpu_linear(ones.contiguous(), packed.weight, None)


def _place(model: nn.Module, inner: str, first: int, shape: tuple[int, ...]) -> Place | None:
    layer_name, _, parameter = inner.rpartition(".")
    try:
        layer = model.get_submodule(layer_name)
    except AttributeError:
        return None
    if parameter not in layer._parameters:
        return None
    rows = shape[0] if shape else 1
    loaded = _loaded_shape(layer, parameter)
    return Place(layer, parameter, inner, first, rows, loaded)


def _loaded_shape(layer: nn.Module, parameter: str) -> tuple[int, ...]:
    recorded, _ = get_layerwise_info(layer).restore_metadata
    return tuple((recorded.get(parameter, getattr(layer, parameter))).shape)


def _check_digest(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        raise ValueError(
            f"{path} is damaged: its digest is {actual[:16]}…, {expected[:16]}… was asked for"
        )


WeightTransferEngineFactory.register_engine(BACKEND, CheckpointTransfer)
