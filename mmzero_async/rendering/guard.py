"""What a renderer child gives up before it sees its first SVG: memory, files, the network.

Each measure says whether it took hold; the sum stands in `RenderPool.isolation`. Landlock is
asked of the kernel directly, and left out where the kernel has none.
"""

import ctypes
import os
import resource
import struct
import sys
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on x86-64 and arm64
_RULE_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# Rights that each landlock version knows; what is not named in a ruleset stays allowed.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_MIB = 1 << 20


def confine(memory_mib: int, readable: Path) -> list[str]:
    """Limits this process and all threads it starts later; returns what took hold.

    After it only files under `readable` can be opened: import everything first. A child keeps the
    pipes that it has.
    """
    held = ["rlimits"] if _limit(memory_mib) else []
    if _landlock(readable):
        held.append("landlock")
    return held


def _limit(memory_mib: int) -> bool:
    for which, value in (
        (resource.RLIMIT_AS, memory_mib * _MIB),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_FSIZE, _MIB),  # its standard error goes to a file
    ):
        _, hard = resource.getrlimit(which)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(which, (value, value))
    return True


def _landlock(readable: Path) -> bool:
    """Whether the kernel now refuses every path but `readable`, and TCP where it can."""
    if not sys.platform.startswith("linux"):
        return False
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    version = call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < 1:
        return False
    rights = (1 << _FILE_RIGHTS[min(version, 5)]) - 1
    attributes = [rights]
    if version >= 4:
        attributes.append(0b11)  # bind and connect TCP
    if version >= 6:
        attributes.append(0b11)  # abstract sockets, signals
    packed = struct.pack(f"={len(attributes)}Q", *attributes)
    ruleset = call(_CREATE_RULESET, packed, ctypes.c_size_t(len(packed)), ctypes.c_uint32(0))
    if ruleset < 0:
        return False
    folder = os.open(readable, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", _READ_FILE | _READ_DIR, folder)
        added = call(_ADD_RULE, ruleset, ctypes.c_int(_RULE_PATH_BENEATH), rule, ctypes.c_uint32(0))
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        quiet = prctl(_PR_SET_NO_NEW_PRIVS, *(ctypes.c_ulong(n) for n in (1, 0, 0, 0)))
        return (
            int(added) == 0
            and int(quiet) == 0
            and int(call(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0))) == 0
        )
    finally:
        os.close(folder)
        os.close(ruleset)
