"""A disk that can be made full and roomy again: a tmpfs of its own, where mounting is allowed."""

import os
import subprocess
from pathlib import Path

ROOM = 256 << 20  # bytes; tmpfs takes memory only as it is used


class SmallDisk:
    """Mounted at `folder`. `mounted` is False where that needs rights that we do not have."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.mounted = _mount("-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder))

    def fill(self) -> None:
        """Not a page more can be written."""
        for _ in range(100):  # somebody may write between the look and the call
            use = os.statvfs(self.folder)
            if self._resize((use.f_blocks - use.f_bfree) * use.f_frsize):
                return
        raise AssertionError("cannot make the tmpfs small")

    def make_room(self) -> None:
        assert self._resize(ROOM), "cannot make the tmpfs large again"

    def _resize(self, size: int) -> bool:
        return _mount("-o", f"remount,size={size}", str(self.folder))

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)
            self.mounted = False


def _mount(*arguments: str) -> bool:
    try:
        return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
