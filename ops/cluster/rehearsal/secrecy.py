"""Whether anybody who may look at processes or logs could read a secret of the run."""

import contextlib
import re
from pathlib import Path
from typing import Any

import psutil

_SECRET = re.compile(r'secret-key = "(\S{40})"')


def told_secrets(folder: Path) -> dict[str, Any]:
    """Looks at the arguments and the environment of every process, and at every file of the run on
    every host and on the driver's but the folders of keys."""
    secrets = [_secret(path) for path in (folder / "keys").glob("*.key_secret")]
    found, processes, files = [], 0, 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            told = "\n".join([*process.cmdline(), *process.environ().values()])
            processes += 1
            found += [f"process {process.pid}" for secret in secrets if secret in told]
    for path in folder.rglob("*"):
        if path.is_file() and path.parent.name not in ("keys", "authorized", "net"):
            data = path.read_bytes()
            files += 1
            found += [str(path) for secret in secrets if secret.encode() in data]
    return {"secrets": len(secrets), "processes": processes, "files": files, "told_by": found}


def _secret(path: Path) -> str:
    text = path.read_text(encoding="ascii")
    match = _SECRET.search(text)
    return match[1] if match else text.strip()
