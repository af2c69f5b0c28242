"""What an SSH session runs: starts the host's agent if there is none, and passes lines through.

`python -m mmzero_async.ops.cluster.attach --run-dir DIR --link-seconds S`. It may end at any moment
without harm: the agent stays.
"""

import argparse
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

from mmzero_async.ops.cluster.words import SOCKET

START_SECONDS = 60.0
_CHUNK = 1 << 16


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--link-seconds", type=float, required=True)
    args = parser.parse_args()
    try:
        line = _connected(args.run_dir, args.link_seconds)
    except OSError as error:
        print(f"the host's agent cannot be reached: {error}", file=sys.stderr)
        return 1
    with line:
        _pass_through(line)
    return 0


def _connected(run_dir: Path, link_seconds: float) -> socket.socket:
    """OSError when no agent answers in time."""
    deadline = time.monotonic() + START_SECONDS
    agent: subprocess.Popen[bytes] | None = None
    while True:
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(str(run_dir / SOCKET))
            return line
        except OSError as error:
            line.close()
            if time.monotonic() > deadline:
                raise OSError(f"{error} (see {run_dir}/logs/host-agent.err)") from None
        if agent is None or agent.poll() is not None:
            agent = _started(run_dir, link_seconds)
        time.sleep(0.1)


def _started(run_dir: Path, link_seconds: float) -> subprocess.Popen[bytes]:
    """In a session of its own, so that the end of ours does not reach it."""
    logs = run_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mmzero_async.ops.cluster.agent"]
    command += ["--run-dir", str(run_dir), "--link-seconds", str(link_seconds)]
    with (logs / "host-agent.err").open("ab") as errors:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
            cwd="/",
        )


def _pass_through(line: socket.socket) -> None:
    """Until one of both ends closes."""
    source, sink = sys.stdin.fileno(), sys.stdout.fileno()
    while True:
        ready, _, _ = select.select([source, line], [], [])
        if source in ready:
            data = os.read(source, _CHUNK)
            if not data:
                return
            line.sendall(data)
        if line in ready:
            data = line.recv(_CHUNK)
            if not data:
                return
            view = memoryview(data)
            try:
                while view:
                    view = view[os.write(sink, view) :]
            except BrokenPipeError:
                return


if __name__ == "__main__":
    sys.exit(main())
