"""The engine's key: one word in a file of mode 0600, the same on every host of a cluster."""

import os
import secrets
import stat
from pathlib import Path

from mmzero_async.engines.errors import EngineKeyUnusable

_LEAST = 32  # characters


def new_secret(path: Path) -> None:
    """A new key in a file that nobody else reads. FileExistsError when there is one."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(32) + "\n")


def read_secret(path: Path) -> str:
    """EngineKeyUnusable for a file that is missing, open to others, or holds no key."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise EngineKeyUnusable(f"the engine's key {path} cannot be read: {error}") from None
    if mode & 0o077:
        raise EngineKeyUnusable(f"others may read the engine's key {path}: chmod 600 {path}")
    if len(text) < _LEAST or not text.isprintable() or " " in text:
        raise EngineKeyUnusable(f"{path} holds no engine's key: a word of {_LEAST} characters")
    return text
