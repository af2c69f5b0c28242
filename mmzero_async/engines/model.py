"""Whether a folder holds a model that the engine can serve, found out before anything starts.

Reads JSON files only, no weights and no torch: an engine takes half a minute to fail.
"""

import json
from pathlib import Path
from typing import Any

from mmzero_async.engines.errors import ModelUnusable

IMAGE_TOKENS = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")


def check_model(path: str | Path) -> Path:
    """The absolute path of a usable Qwen3-VL-shaped model folder.

    Raises ModelUnusable when the folder, its config.json, its weights, its tokenizer or one of
    the three image tokens is missing.
    """
    folder = Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise ModelUnusable(
            f"model {folder}: no such folder. Set run.base_model to the folder of a "
            "Qwen3-VL-shaped model, or to 'seedling'"
        )
    config = _read(folder, "config.json")
    if "vision_config" not in config:
        raise ModelUnusable(
            f"model {folder}: config.json has no vision_config, so it sees no images. "
            "Set run.base_model to a vision-language model"
        )
    if not any(folder.glob("*.safetensors")):
        raise ModelUnusable(f"model {folder}: no *.safetensors. Is the download complete?")
    missing = [token for token in IMAGE_TOKENS if token not in _tokens(folder)]
    if missing:
        raise ModelUnusable(
            f"model {folder}: the tokenizer lacks {', '.join(missing)}, so images have no place "
            "in its prompts. Use the tokenizer of the same Qwen3-VL-shaped model"
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
