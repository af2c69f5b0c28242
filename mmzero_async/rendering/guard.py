"""What a renderer child gives up before it sees its first SVG: memory, files, network, processes.

Each measure is independent and is named only when it took hold; what the kernel lacks is left
out, and nothing here fails. The sum stands in `RenderPool.isolation`.
"""

import contextlib
import ctypes
import math
import os
import resource
import signal
import struct
import sys
from pathlib import Path

from mmzero_async.rendering.namespace import shut_in
from mmzero_async.rendering.seccomp import Scope, filter_system_calls

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_RULE_PATH_BENEATH = 1
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# How many file rights each landlock version knows; what a ruleset does not name stays allowed.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_BIND_AND_CONNECT_TCP = 0b11  # since version 4
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11  # since version 6
_MIB = 1 << 20
OPEN_FILES = 32


def confine(
    memory_mib: int,
    font_folder: Path,
    *,
    open_files: int = OPEN_FILES,
    scope: Scope = "threads",
) -> list[str]:
    """Limits this process and all threads it starts later; returns the names of what took hold.

    After it only files under `font_folder` can be opened: import everything first. The pipes that
    the process has stay open. What it forks, where `scope` lets it, is limited as it is.
    """
    measures = {
        "rlimits": _limit(memory_mib, open_files),
        "no-new-privileges": _prctl(_PR_SET_NO_NEW_PRIVS, 1),
        "landlock": (locked := _landlock(font_folder)),  # needs the one before
        "user-namespace": not locked and shut_in(font_folder),
        "seccomp": filter_system_calls(scope),  # last: it refuses what the one before does
    }
    return [name for name, held in measures.items() if held]


def confine_further(cpu_seconds: float) -> bool:
    """Takes from a process that a confined one forked what that needed itself: processes,
    threads, and every file that it might write. Whether the system calls are filtered.

    Beyond `cpu_seconds` a timer ends it, which no program can put off: SIGPROF is not handled, and
    a limit in whole seconds stands behind it.
    """
    for which, value in {
        resource.RLIMIT_CPU: math.ceil(cpu_seconds) + 1,
        resource.RLIMIT_FSIZE: 0,
    }.items():
        resource.setrlimit(which, (value, value))
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    return filter_system_calls("alone")


def belong_to_parent() -> None:
    """Ends with its parent, and leaves Ctrl-C and a stop of the whole group to it: it may still
    want its pictures."""
    die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def die_with_parent() -> bool:
    """The kernel ends this process when the thread that started it ends, however that ends."""
    return _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit(memory_mib: int, open_files: int) -> bool:
    limits = {
        resource.RLIMIT_AS: memory_mib * _MIB,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: open_files,
        resource.RLIMIT_FSIZE: _MIB,  # its standard error goes to a file
    }
    held = True
    for which, value in limits.items():
        _, hard = resource.getrlimit(which)
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(which, (allowed, allowed))
        except (OSError, ValueError):
            held = False
    return held


def _prctl(option: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    prctl = ctypes.CDLL(None).prctl
    return int(prctl(option, *(ctypes.c_ulong(number) for number in (value, 0, 0, 0)))) == 0


def _landlock(readable: Path) -> bool:
    """Whether the kernel now refuses every path but `readable`, and TCP where it can."""
    if not sys.platform.startswith("linux"):
        return False
    call = ctypes.CDLL(None).syscall
    call.restype = ctypes.c_long
    version = int(call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))
    if version < 1:
        return False
    attributes = [(1 << _FILE_RIGHTS[min(version, 5)]) - 1]
    if version >= 4:
        attributes.append(_BIND_AND_CONNECT_TCP)
    if version >= 6:
        attributes.append(_ABSTRACT_SOCKETS_AND_SIGNALS)
    packed = struct.pack(f"={len(attributes)}Q", *attributes)
    ruleset = int(call(_CREATE_RULESET, packed, ctypes.c_size_t(len(packed)), ctypes.c_uint32(0)))
    if ruleset < 0:
        return False
    with contextlib.ExitStack() as opened:
        opened.callback(os.close, ruleset)
        try:
            folder = os.open(readable, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return False
        opened.callback(os.close, folder)
        rule = struct.pack("=Qi", _READ_FILE | _READ_DIR, folder)
        added = call(_ADD_RULE, ruleset, ctypes.c_int(_RULE_PATH_BENEATH), rule, ctypes.c_uint32(0))
        return int(added) == 0 and int(call(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0))) == 0
