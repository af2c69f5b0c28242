"""Whether a folder holds a model that the engine can serve, found out before anything starts.

Reads JSON files only, no weights and no torch: an engine takes half a minute to fail.
"""

import json
from pathlib import Path
from typing import Any

from mmzero_async import families
from mmzero_async.engines.errors import ModelUnusable


def check_model(path: str | Path) -> Path:
    """The absolute path of a usable model folder.

    Raises ModelUnusable when the folder, its config.json, its weights, its tokenizer or one of
    the family's image tokens is missing, or when it is of no known family.
    """
    folder = Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise ModelUnusable(
            f"model {folder}: no such folder. Set run.base_model to the folder of a "
            "vision-language model, or to 'seedling'"
        )
    config = _read(folder, "config.json")
    if "vision_config" not in config:
        raise ModelUnusable(
            f"model {folder}: config.json has no vision_config, so it sees no images. "
            "Set run.base_model to a vision-language model"
        )
    if not any(folder.glob("*.safetensors")):
        raise ModelUnusable(f"model {folder}: no *.safetensors. Is the download complete?")
    try:
        family = families.of_type(str(config.get("model_type", "")))
    except families.UnknownFamily as error:
        raise ModelUnusable(f"model {folder}: {error}") from error
    tokens = _tokens(folder)
    missing = [token for token in family.image_tokens if token not in tokens]
    if missing:
        raise ModelUnusable(
            f"model {folder}: the tokenizer lacks {', '.join(missing)}, so images have no place "
            f"in its prompts. Use the tokenizer of the same {family.name} model"
        )
    return folder


def _read(folder: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelUnusable(
            f"model {folder}: {name} is missing; this is no complete Hugging Face model folder"
        ) from None
    except ValueError as error:
        raise ModelUnusable(f"model {folder}: {name} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelUnusable(f"model {folder}: {name} holds no JSON object")
    return value


def _tokens(folder: Path) -> set[str]:
    """All added tokens and the vocabulary of a tokenizer.json."""
    tokenizer = _read(folder, "tokenizer.json")
    added = {entry.get("content", "") for entry in tokenizer.get("added_tokens", [])}
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    return added | set(vocabulary if isinstance(vocabulary, dict) else ())
