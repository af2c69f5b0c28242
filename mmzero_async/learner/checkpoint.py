"""Policy versions on disk: `<run>/checkpoints/<role>/<version>/`, complete or absent.

Knows tensors by name, neither model nor optimiser. A folder appears by one rename after everything
in it is on disk, and is read back only if every file still has the digest that was written.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load
from safetensors.torch import save as packed
from torch import Tensor

from mmzero_async.learner.errors import CheckpointError
from mmzero_async.schemas.events import Role

CHECKPOINTS = "checkpoints"
MANIFEST = "checkpoint.json"


@dataclass(frozen=True, slots=True)
class Layout:
    """Names of a version's files. The manifest has a digest of each."""

    weights: str
    config: str
    optimizer: str

    @property
    def content(self) -> tuple[str, str, str]:
        return self.weights, self.config, self.optimizer


# peft's names, and transformers'. Engines load every *.safetensors of a whole model's folder, so
# the optimiser's state is called otherwise there.
ADAPTER = Layout("adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors")
WHOLE = Layout("model.safetensors", "config.json", "optimizer.state")


@dataclass(frozen=True, slots=True)
class Saved:
    """Where a version lies, relative to the run, and the digest of its tensors."""

    checkpoint: str
    digest: str  # sha-256 of the weights' file, 64 hex digits


@dataclass(frozen=True, slots=True)
class Loaded:
    adapter: dict[str, Tensor]  # or all weights, as the layout says
    optimizer: dict[str, Tensor]
    digest: str


def relative_folder(role: Role, version: int) -> str:
    return f"{CHECKPOINTS}/{role}/{version:06d}"


def version_of(saved: Saved) -> int:
    """The policy version that a folder of `relative_folder` holds."""
    name = Path(saved.checkpoint).name
    if not name.isdecimal():
        raise CheckpointError(f"{saved.checkpoint} is no version's folder: it has no number")
    return int(name)


def save(
    run: Path,
    role: Role,
    version: int,
    *,
    adapter: Mapping[str, Tensor],
    adapter_config: Mapping[str, Any],
    optimizer: Mapping[str, Tensor],
    layout: Layout = ADAPTER,
    beside: Iterable[Path] = (),
) -> Saved:
    """Writes a version durably, with copies of the files `beside` it. A folder of that version,
    left by a step that was never committed, is replaced."""
    relative = relative_folder(role, version)
    target = run / relative
    parent = target.parent
    parent.mkdir(parents=True, exist_ok=True)
    for litter in parent.glob(f".*-{target.name}-*"):  # of a learner that died right here
        shutil.rmtree(litter)
    making = parent / f".making-{target.name}-{os.getpid()}"
    making.mkdir()
    # Written by us, not by safetensors: a full disk must be an OSError like any other.
    (making / layout.weights).write_bytes(packed(dict(adapter), metadata={"format": "pt"}))
    (making / layout.optimizer).write_bytes(packed(dict(optimizer), metadata={"format": "pt"}))
    (making / layout.config).write_text(
        json.dumps(dict(adapter_config), indent=1, sort_keys=True) + "\n"
    )
    for file in beside:
        shutil.copyfile(file, making / file.name)
    digests = {name: _digest(making / name) for name in layout.content}
    manifest = {"role": role, "version": version, "sha256": digests}
    (making / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    for file in making.iterdir():
        _sync(file)
    _sync(making)
    old = parent / f".old-{target.name}-{os.getpid()}"
    if target.exists():
        target.rename(old)
    making.rename(target)
    for folder in (parent, parent.parent, run):
        _sync(folder)
    shutil.rmtree(old, ignore_errors=True)
    return Saved(relative, digests[layout.weights])


def read(run: Path, checkpoint: str, digest: str = "") -> Loaded:
    """The tensors of `run / checkpoint`; `digest` is the one that the log has, if it has one.

    Raises CheckpointError for a missing or incomplete folder and for any byte that changed.
    """
    folder = run / checkpoint
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        layout = WHOLE if WHOLE.weights in manifest["sha256"] else ADAPTER
        expected: dict[str, str] = {name: manifest["sha256"][name] for name in layout.content}
        is_named = relative_folder(manifest["role"], int(manifest["version"]))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"checkpoint {folder}: no {MANIFEST} there. Was the folder moved or pruned? "
            "The log's last StepCommitted names the version that is needed"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"checkpoint {folder}: {MANIFEST} is damaged: {error!r}") from error
    if is_named != checkpoint:
        raise CheckpointError(
            f"checkpoint {folder}: {MANIFEST} calls it {is_named}: a folder was renamed or copied "
            "over another"
        )
    content: dict[str, bytes] = {}
    for name in layout.content:
        try:
            content[name] = (folder / name).read_bytes()
        except OSError as error:
            raise CheckpointError(f"checkpoint {folder}: {name} is missing: {error}") from error
        actual = hashlib.sha256(content[name]).hexdigest()
        if actual != expected[name]:
            raise CheckpointError(
                f"checkpoint {folder}: {name} is damaged: its digest is {actual[:16]}…, "
                f"{str(expected[name])[:16]}… was written. Restore it from a copy, or go back "
                "to an older version"
            )
    found = expected[layout.weights]
    if digest and found != digest:
        raise CheckpointError(
            f"checkpoint {folder}: it holds weights {found[:16]}…, the log committed "
            f"{digest[:16]}…: this folder belongs to another run or was overwritten"
        )
    return Loaded(load(content[layout.weights]), load(content[layout.optimizer]), found)


def prune(run: Path, role: Role, keep: int, protected: Collection[int] = ()) -> list[int]:
    """Removes all but the newest `keep` versions (0: removes none), never a protected one, and
    what a crash left half-made. Returns the removed versions."""
    parent = run / CHECKPOINTS / role
    if not parent.is_dir():
        return []
    for litter in parent.glob(".*-*"):
        shutil.rmtree(litter, ignore_errors=True)
    folders = {int(p.name): p for p in parent.iterdir() if p.name.isdecimal()}
    versions = sorted(folders)
    removed = [v for v in versions[:-keep] if v not in protected] if keep > 0 else []
    for version in removed:
        old = parent / f".old-{version:06d}-{os.getpid()}"
        folders[version].rename(old)  # first out of sight: half a version is never seen
        shutil.rmtree(old)
    return removed


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
