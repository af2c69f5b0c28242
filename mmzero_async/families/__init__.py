"""Families of models: one file for all in which a family differs from the others.

Engine and learner ask here by the `model_type` of a folder's config.json. A new family is one file
that keeps `protocol.Family`, and its line in FAMILIES: docs/FAMILIES.md.
"""

import json
from pathlib import Path

from mmzero_async.families import qwen2_5_vl, qwen3_vl, smolvlm
from mmzero_async.families.protocol import Dtype, Family, Pictures, Reader, Views

__all__ = [
    "FAMILIES",
    "Dtype",
    "Family",
    "Pictures",
    "Reader",
    "UnknownFamily",
    "Views",
    "of_folder",
    "of_type",
]

FAMILIES: tuple[Family, ...] = (qwen3_vl.FAMILY, qwen2_5_vl.FAMILY, smolvlm.FAMILY)


class UnknownFamily(LookupError):
    """No family here has this `model_type`."""


def of_type(model_type: str) -> Family:
    """The family of a config.json's `model_type`. UnknownFamily, with those there are."""
    for one in FAMILIES:
        if model_type in one.model_types:
            return one
    known = ", ".join(f"{kind} ({one.name})" for one in FAMILIES for kind in one.model_types)
    raise UnknownFamily(
        f"config.json has model_type {model_type!r}; known are {known}. Set run.base_model to a "
        "model of one of these, or add its family (docs/FAMILIES.md)"
    )


def of_folder(folder: Path) -> Family:
    """The family of a model's folder. UnknownFamily; OSError or ValueError without config.json."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return of_type(str(config.get("model_type", "")))
