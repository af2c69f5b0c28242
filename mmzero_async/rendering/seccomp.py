"""System calls that a renderer child never makes, refused by the kernel: network, programs,
processes, signals and memory of others, mounts, and kernel interfaces with a history of holes.

A classic BPF program for x86-64 and arm64, installed by prctl; needs "no new privileges" first.
Refused calls return EPERM: the child goes on. A list of what is denied, not of what is allowed,
so that another libc or Python cannot break on it; files are landlock's business.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from typing import Literal

# "threads": may start threads. "processes": also processes, and signal them. "alone": neither.
Scope = Literal["threads", "processes", "alone"]

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in seccomp_data; low halves
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_CLONE_THREAD = 0x00010000
_X32 = 0x40000000  # a second table of calls on x86-64

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column below, AUDIT_ARCH
# name: (x86-64, arm64)
_DENIED: dict[str, tuple[int, int]] = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_by_handle_at": (304, 265),
    "fchmodat": (268, 53),
    "fchownat": (260, 54),
    "memfd_create": (319, 279),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
}
_OLD = {"fork": 57, "vfork": 58, "chmod": 90, "chown": 92, "lchown": 94}  # x86-64 only
_SIGNALS = frozenset(["kill", "tkill", "fork", "vfork"])  # what scope "processes" needs
# What "alone" denies besides: marks on files that landlock does not see, objects that outlive a
# process, limits and priorities, the clock and the machine.
_ALONE: dict[str, tuple[int, int]] = {
    "truncate": (76, 45),
    "ftruncate": (77, 46),
    "fchmod": (91, 52),
    "fchown": (93, 55),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "inotify_init1": (294, 26),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "semget": (64, 190),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "setrlimit": (160, 164),
    "prlimit64": (302, 261),
    "setpriority": (141, 140),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "personality": (135, 92),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "syslog": (103, 116),
    "acct": (163, 89),
    "reboot": (169, 142),
}
_ALONE_OLD = {"utime": 132, "utimes": 235, "futimesat": 261, "inotify_init": 253}  # x86-64 only
_CLONE, _CLONE3, _TGKILL = (56, 220), 435, (234, 131)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def filter_system_calls(scope: Scope = "threads") -> bool:
    """Whether the filter holds, for this thread and those that it starts.

    A second one can only take away more: the kernel asks all of them.
    """
    known = _MACHINES.get(platform.machine())
    if known is None or not sys.platform.startswith("linux") or sys.maxsize < 1 << 32:
        return False
    instructions = _program(*known, scope)
    program = _Program(len(instructions) // 8, instructions)
    prctl = ctypes.CDLL(None).prctl
    rest = (ctypes.c_ulong(0), ctypes.c_ulong(0))
    return (
        int(prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), ctypes.byref(program), *rest)) == 0
    )


def _program(column: int, architecture: int, scope: Scope) -> bytes:
    refuse, absent = _REFUSE | errno.EPERM, _REFUSE | errno.ENOSYS
    names = _DENIED | (_ALONE if scope == "alone" else {})
    old = _OLD | (_ALONE_OLD if scope == "alone" else {})
    denied = {name: numbers[column] for name, numbers in names.items()}
    steps = [
        _step(_LOAD, _ARCHITECTURE),
        *_unless(_EQUAL, architecture, _KILL),
        _step(_LOAD, _NUMBER),
    ]
    if column == 0:
        steps += _when(_AT_LEAST, _X32, refuse)
        denied |= old
    for name, number in denied.items():
        if scope != "processes" or name not in _SIGNALS:
            steps += _when(_EQUAL, number, refuse)
    # libc falls back from clone3, whose flags cannot be seen, to clone.
    steps += _when(_EQUAL, _CLONE3, absent)
    if scope != "processes":
        steps += [*_clone(_CLONE[column], scope, refuse), *_own_signals(_TGKILL[column], refuse)]
    steps.append(_step(_RETURN, _ALLOW))
    return b"".join(steps)


def _clone(number: int, scope: Scope, refuse: int) -> list[bytes]:
    if scope == "alone":
        return _when(_EQUAL, number, refuse)
    return [
        _step(_EQUAL, number, 0, 4),
        _step(_LOAD, _FIRST_ARGUMENT),
        *_when(_ANY_BIT, _CLONE_THREAD, _ALLOW),
        _step(_RETURN, refuse),
    ]


def _own_signals(number: int, refuse: int) -> list[bytes]:
    """abort() signals its own process, and only that."""
    return [
        _step(_EQUAL, number, 0, 4),
        _step(_LOAD, _FIRST_ARGUMENT),
        *_when(_EQUAL, os.getpid(), _ALLOW),
        _step(_RETURN, refuse),
    ]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _when(test: int, value: int, verdict: int) -> list[bytes]:
    return [_step(test, value, 0, 1), _step(_RETURN, verdict)]


def _unless(test: int, value: int, verdict: int) -> list[bytes]:
    return [_step(test, value, 1, 0), _step(_RETURN, verdict)]
