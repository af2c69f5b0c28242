"""Which file system a folder lies on, and whether a log may be written there.

LMDB needs a memory map that all processes share and locks that the kernel keeps: a network file
system promises neither, and the damage shows only later. Knows nothing of LMDB's files.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mmzero_async.log.errors import NetworkFileSystem

MOUNTINFO = Path("/proc/self/mountinfo")
_WORDS = """
    9p afs beegfs ceph cifs fuse.ceph fuse.gcsfuse fuse.glusterfs fuse.juicefs fuse.rclone fuse.s3fs
    fuse.sshfs gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs smb3 smbfs virtiofs wekafs
"""
NETWORK = frozenset(_WORDS.split())


@dataclass(frozen=True, slots=True)
class Mount:
    point: Path
    kind: str
    source: str


def mount_of(path: Path, mountinfo: str) -> Mount | None:
    """The mount that a path lies on, whether it exists yet or not; None when nothing fits."""
    target = path.resolve()
    found: Mount | None = None
    for line in mountinfo.splitlines():
        mount = _mount(line)
        # A later line of the same depth was mounted over the earlier one.
        if (
            mount
            and target.is_relative_to(mount.point)
            and (found is None or len(mount.point.parts) >= len(found.point.parts))
        ):
            found = mount
    return found


def refuse_network(path: Path, mountinfo: Path = MOUNTINFO) -> None:
    """NetworkFileSystem when a log at this path would lie on one. Says nothing when unknown."""
    try:
        mount = mount_of(path, os.fsdecode(mountinfo.read_bytes()))
    except OSError:  # no /proc: another system, or a closed container
        return
    if mount is not None and mount.kind in NETWORK:
        raise NetworkFileSystem(
            f"the log at {path} would lie on a network file system ({mount.kind} from "
            f"{mount.source}, mounted at {mount.point}), where LMDB's memory map and locks cannot "
            "be trusted: put the run's folder on a disk of this host (--run /local/disk/...), and "
            "copy it elsewhere with `mmzero log backup`"
        )


def _mount(line: str) -> Mount | None:
    """`36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/root rw`: see proc(5)."""
    fields, separator, rest = line.partition(" - ")
    words, after = fields.split(), rest.split()
    if not separator or len(words) < 5 or len(after) < 2:
        return None
    return Mount(Path(_plain(words[4])), after[0], _plain(after[1]))


def _plain(word: str) -> str:
    r"""Spaces and the like stand as octal: `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), word)
