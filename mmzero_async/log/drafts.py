"""A folder that appears whole and on disk under its name, or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmzero_async.log.errors import LogFull, TargetTaken

COMPACTING = ".compacting"  # a smaller data.mdb in the making, in the log's own folder


@contextmanager
def draft_of(target: Path) -> Iterator[Path]:
    """A new folder to fill; it takes the name `target` when the block ends well.

    TargetTaken when something bears that name. Whatever goes wrong, nothing is left behind.
    """
    if target.exists() or target.is_symlink():
        raise TargetTaken(f"{target} exists already: name a folder that does not, or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.draft.{os.getpid()}")
    try:
        draft.mkdir()
        yield draft
        for folder, _, files in os.walk(draft):
            for path in (*(Path(folder, name) for name in files), Path(folder)):
                sync(path)
        draft.rename(target)
        sync(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def check_room(
    needed: int, folder: Path, what: str, do: str = "name a folder on another disk"
) -> None:
    """LogFull when the disk under a folder has less than so many bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise LogFull(
            f"{what} may need {needed / 1e6:.0f} MB, {folder} has {free / 1e6:.0f} MB free: {do}"
        )


def clear_compacting(log: Path) -> None:
    """Removes what a killed compaction left. Only for who holds the writer's lock."""
    shutil.rmtree(log / COMPACTING, ignore_errors=True)


def sync(path: Path) -> None:
    """A file's bytes, or a folder's names, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
