"""How a host's files are written: keys, configuration, addresses."""

import os
from pathlib import Path


def replace(path: Path, text: str, mode: int) -> None:
    """Whole or not at all, and never readable by others who may not."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    draft.replace(path)
