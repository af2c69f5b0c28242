"""What confines a renderer's child: each measure that it names holds."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from rendering_rig import CONFIG, Rig, opened

from mmzero_async.rendering.fonts import font_folder


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    yield from opened(CONFIG)


PROBES = {
    "landlock": "open('/etc/hosts').close()",
    "seccomp": "import socket; socket.socket()",
    "seccomp fork": "os.fork() or os._exit(0)",
    "seccomp exec": "os.execv('/bin/true', ['true'])",
    "seccomp kill": "os.kill(os.getppid(), 0)",
    "rlimits": "open('/dev/null').close(); bytearray(1 << 29)",
}


@pytest.mark.parametrize("probe", PROBES)
def test_each_measure_that_is_named_holds(rig: Rig, probe: str) -> None:
    if probe.split()[0] not in rig[1].isolation:
        pytest.skip(f"this kernel has no {probe.split()[0]}")
    script = (
        "import os, sys, socket, threading\nfrom pathlib import Path\n"
        "from mmzero_async.rendering.guard import confine\n"
        f"confine(256, Path({str(font_folder())!r}))\n"
        f"next(Path({str(font_folder())!r}).glob('*.ttf')).read_bytes()\n"
        "thread = threading.Thread(target=print, args=('ready',), kwargs={'flush': True})\n"
        "thread.start(); thread.join()\n"
        f"try:\n    {PROBES[probe]}\n"
        "except (OSError, MemoryError): sys.exit(7)\n"
    )
    done = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (7, "ready\n"), done.stderr


def test_a_measure_that_does_not_take_hold_is_not_named_and_nothing_fails() -> None:
    script = (
        "from pathlib import Path\nfrom mmzero_async.rendering.guard import confine\n"
        "print(*confine(256, Path('/no/such/folder')))\n"
    )
    done = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "rlimits" in done.stdout and "landlock" not in done.stdout


def test_a_child_says_what_confines_it(rig: Rig) -> None:
    assert rig[1].isolation[:2] == ("process", "rlimits")


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("child", {"torch", "transformers", "numpy", "asyncio"}),
        ("pool", {"torch", "transformers", "numpy", "resvg_py", "PIL"}),
    ],
)
def test_neither_side_imports_what_it_does_not_need(module: str, unwanted: set[str]) -> None:
    script = f"import sys, mmzero_async.rendering.{module}; print(*sys.modules)"
    done = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True)
    assert unwanted.isdisjoint(done.stdout.split())
