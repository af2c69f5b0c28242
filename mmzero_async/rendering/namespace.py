"""A world of its own for a renderer child where the kernel has no landlock: a user namespace whose
files are the fonts, and whose network has no interface.

The folder keeps its path, read-only, on an empty file system that becomes the root; beside it lie
the process's own open files, under the path that anonymous fonts are opened by. What the process
may do in its namespace it gives up again. Needs a kernel that lets this user make namespaces, and a
process with one thread; else the files stay as they were.
"""

import contextlib
import ctypes
import os
import struct
import sys
from pathlib import Path

_NEWNS, _NEWUSER, _NEWNET = 0x00020000, 0x10000000, 0x40000000
_RDONLY, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 32, 4096, 16384, 1 << 18
_NOSUID_NODEV_NOEXEC = 2 | 4 | 8  # the same numbers in statvfs and mount
# Flags that a mount of the outer namespace keeps: statvfs to mount.
_KEPT = {2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}
_DETACH = 2
_CAPABILITIES_3 = 0x20080522


def shut_in(folder: Path) -> bool:
    """Whether this process now sees no other files than those in `folder`, an absolute path, and
    no network."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if not folder.is_dir() or libc.unshare(_NEWUSER | _NEWNS | _NEWNET) != 0:
        return False
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        _mount(libc, "none", "/", "", _REC | _PRIVATE)
        _enter(libc, str(folder))
        return True
    except OSError:
        return False
    finally:
        _without_capabilities(libc)


def _enter(libc: ctypes.CDLL, folder: str) -> None:
    """The empty root is mounted over the folder, the one place that is there for certain."""
    fonts = os.open(folder, os.O_PATH | os.O_CLOEXEC)  # of this namespace, so it can be bound
    try:
        _mount(libc, "tmpfs", folder, "tmpfs", _NOSUID_NODEV_NOEXEC, b"size=64k,mode=755")
        try:
            _bind(libc, f"/proc/self/fd/{fonts}", folder + folder)
            _bind(libc, f"/proc/{os.getpid()}/fd", f"{folder}/proc/self/fd")
            _mount(libc, "none", folder, "", _REMOUNT | _BIND | _RDONLY | _NOSUID_NODEV_NOEXEC)
            os.chroot(folder)
        except OSError:
            libc.umount2(folder.encode(), _DETACH)
            raise
    finally:
        os.close(fonts)
    os.chdir("/")


def _bind(libc: ctypes.CDLL, source: str, target: str) -> None:
    """A folder elsewhere too, read-only there."""
    Path(target).mkdir(parents=True)
    _mount(libc, source, target, "", _BIND)
    held = os.statvfs(target).f_flag
    kept = sum(flag for seen, flag in _KEPT.items() if held & seen)
    _mount(libc, "none", target, "", _REMOUNT | _BIND | _RDONLY | kept)


def _mount(
    libc: ctypes.CDLL, source: str, target: str, kind: str, flags: int, data: bytes | None = None
) -> None:
    done = libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data)
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def _without_capabilities(libc: ctypes.CDLL) -> None:
    with contextlib.suppress(AttributeError):
        libc.capset(struct.pack("=Ii", _CAPABILITIES_3, 0), bytes(24))
