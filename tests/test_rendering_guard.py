"""What confines a renderer's child: each measure that it names holds."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_corpus import FORBIDDEN_COLOUR
from msgspec.structs import replace
from PIL import Image
from rendering_rig import CHART, CONFIG, ENGINES, RECT, Engine, Rig, drawn, opened, svg

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


# Without landlock: a user namespace in its place. Seccomp is left out too, so that it alone holds.
WITHOUT = (
    "from mmzero_async.rendering import guard\n"
    "guard._landlock = lambda folder: False\n"
    "guard.filter_system_calls = lambda scope: False\n"
)
PROBES_WITHOUT = {
    "read": "open('/etc/hosts').close()",
    "another process": "os.listdir(f'/proc/{os.getppid()}/root')",
    "write to a font": "os.open(next(folder.glob('*.ttf')), os.O_WRONLY)",
    "write": "open('x', 'w').close()",
    "leave": "os.chroot('/proc'); os.chdir('../../../..')",
    "connect": "socket.socket().connect(('127.0.0.1', port))",
    "mount": "ctypes.CDLL(None).mount(b'x', b'/proc', b'tmpfs', 0, None) and os.chroot('/proc')",
}


@pytest.mark.parametrize("probe", PROBES_WITHOUT)
def test_a_user_namespace_holds_where_there_is_no_landlock(probe: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        script = (
            "import ctypes, os, socket, sys, threading\nfrom pathlib import Path\n"
            f"port, folder = {server.getsockname()[1]}, Path({str(font_folder())!r})\n"
            f"{WITHOUT}"
            "held = guard.confine(256, folder)\n"
            "if 'user-namespace' not in held: sys.exit(5)\n"
            "assert 'landlock' not in held and 'seccomp' not in held\n"
            "assert len(next(folder.glob('*.ttf')).read_bytes()) > 9999\n"
            "thread = threading.Thread(target=print, args=('ready',), kwargs={'flush': True})\n"
            "thread.start(); thread.join()\n"
            f"try:\n    {PROBES_WITHOUT[probe]}\n"
            "except OSError: sys.exit(7)\n"
        )
        command = (sys.executable, "-c", script)
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    if done.returncode == 5:
        pytest.skip("this kernel gives this user no namespace")
    assert (done.returncode, done.stdout) == (7, "ready\n"), done.stderr


@pytest.mark.parametrize("engine", ENGINES)
def test_a_child_in_a_user_namespace_draws_the_same_and_reads_no_picture_outside(
    engine: Engine, tmp_path: Path
) -> None:
    """The pre-flight is left out too: what a drawing names is not there."""
    script = WITHOUT + (
        "import mmzero_async.rendering.child as child\n"
        "from mmzero_async.rendering.preflight import Checked\n"
        "child.preflight = lambda text, limit: Checked(text)\n"
        "child.main()\n"
    )
    Image.new("RGB", (9, 9), FORBIDDEN_COLOUR).save(tmp_path / "secret.png")
    secret = svg(RECT + f'<image href="{tmp_path}/secret.png" width="96" height="96"/>')
    config = replace(CONFIG, engine=engine)
    usual, alone = opened(config), opened(config, command=(sys.executable, "-c", script))
    free, shut = next(usual), next(alone)
    if "user-namespace" not in shut[1].isolation:
        pytest.skip("this kernel gives this user no namespace")
    assert "landlock" not in shut[1].isolation
    assert drawn(shut, CHART).tobytes() == drawn(free, CHART).tobytes()
    assert drawn(shut, secret).tobytes() == drawn(shut, svg(RECT)).tobytes()
    for rest in (usual, alone):
        next(rest, None)


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
