"""Runs one command and answers for its whole family: when it ends, nobody of it is left.

Started by VllmServer as a process of its own, because vLLM's engine process outlives a killed
API server and a killed owner. The guard ends the family when the command ends, when it is told
to (SIGTERM), and when the process that started it is gone. It knows nothing of vLLM, and imports
the standard library only, so that it starts in milliseconds and holds a few MB.

    python -IS guard.py OWNER_PID GRACE_SECONDS COMMAND...
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_GONE_AFTER = 0.5  # seconds between looks at whether the owner still lives


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _before_command() -> None:
    # Should the guard itself be killed, the command still hears of it.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def _children() -> list[int]:
    """Direct children. Orphaned descendants are among them: the guard is their subreaper."""
    try:
        text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    except OSError:
        return []
    return [int(pid) for pid in text.split()]


def _reap() -> dict[int, int]:
    """Collects all children that have ended: pid -> exit code, negative for a signal."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def _kill_rest() -> None:
    """Kills children until none is left; killing one may hand its own children to the guard."""
    while children := _children():
        for pid in children:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.01)
        _reap()


def run(owner: int, grace: float, command: list[str]) -> int:
    """Runs the command to its end; returns its exit code, 128 + signal when it was killed."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    watched = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    child = subprocess.Popen(command, preexec_fn=_before_command)
    deadline: float | None = None
    while True:
        heard = signal.sigtimedwait(watched, _GONE_AFTER)
        code = _reap().get(child.pid)
        if code is not None:
            _kill_rest()
            return code if code >= 0 else 128 - code
        asked = heard is not None and heard.si_signo != signal.SIGCHLD
        if deadline is None and (asked or os.getppid() != owner):
            deadline = time.monotonic() + grace
            os.kill(child.pid, signal.SIGTERM)
        if deadline is not None and time.monotonic() > deadline:
            _kill_rest()
            return 128 + signal.SIGKILL


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
