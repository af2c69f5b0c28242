"""`mmzero run engine.count=2` on real vLLM: both engines serve the run, one is killed on the way.

The other goes on; the killed one is started again, published to, and takes part.
"""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from mmzero_async.engines.launch import installed
from mmzero_async.engines.pool import urls_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

PATIENCE = 420.0  # seconds for any one thing to happen, on a busy machine
MARK = "MMZERO_TEST_RUN"  # children inherit it


def drawn(url: str) -> float:
    """Tokens that an engine has drawn since its start; 0 while it is away."""
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return 0.0
    found = re.findall(r"^vllm:generation_tokens_total\{.*\} (\S+)$", text, re.M)
    return sum(map(float, found))


def marked(run: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(run):
                found.append(process)
        except psutil.Error:
            continue
    return found


def server_of(run: Path, url: str) -> psutil.Process:
    """vLLM's API server at an address."""
    port = url.rpartition(":")[2]
    [server] = [
        process
        for process in marked(run)
        if "api_server" in (words := " ".join(process.cmdline()))
        and f"--port {port} " in f"{words} "
        and "guard.py" not in words
    ]
    return server


def test_two_engines_serve_a_run_and_one_is_killed_in_the_middle(tmp_path: Path) -> None:
    installed()
    run, output = tmp_path / "run", tmp_path / "output.txt"
    overrides = ["engine.count=2", "max_minutes=0", "evaluate=false", "learner.solver.groups=8"]
    with output.open("w") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", "mmzero_async.ops.cli", "run", "--run", run, *overrides],
            stdout=printed,
            stderr=printed,
            env={**os.environ, MARK: str(run), "COLUMNS": "200"},
        )

    def until(what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert process.poll() is None, f"the run ended: {output.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"waited in vain: {what}"
            time.sleep(0.3)

    try:
        until("both engines", (run / "engine.url").exists)
        stays, dies = urls_of((run / "engine.url").read_text())
        until("both draw tokens", lambda: drawn(stays) > 500 and drawn(dies) > 500)

        server_of(run, dies).send_signal(signal.SIGKILL)
        before = drawn(stays)
        until("the other goes on", lambda: drawn(stays) > before + 500)
        # A publish draws one token a role; what is more came from the workers.
        until("the killed one is back at work", lambda: drawn(dies) > 500)

        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
        said = output.read_text()
        assert "the engine died" in said
        audit = [sys.executable, "-m", "mmzero_async.ops.cli", "replay", run, "--audit", "--json"]
        audited = subprocess.run(audit, capture_output=True, text=True, timeout=300)
        assert audited.returncode == 0, audited.stdout[-2000:] + audited.stderr[-2000:]
        scan = [sys.executable, "-m", "mmzero_async.ops.cli", "log", "scan", run, "--json"]
        events = subprocess.run(scan, capture_output=True, text=True, timeout=300).stdout
        assert "worker_failed" not in events and "work_abandoned" not in events
    finally:
        process.kill()
        process.wait()
        for left in marked(run):
            left.kill()
