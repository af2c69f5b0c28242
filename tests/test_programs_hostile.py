"""Hostile programs cost one failure each, checked or not; nothing outside is read or changed."""

import ast
import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from honest_programs import HONEST
from hostile_programs import ATTEMPTS, BOTH, ESCAPED, LOOPS, PLT, REFUSED, RUN, VIOLENT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rendering_rig import Rig, draw, opened
from test_rendering_hostile import Outside, status_of

from mmzero_async.config import RendererConfig
from mmzero_async.rendering.outcomes import KINDS, Picture, RenderFailure
from mmzero_async.rendering.pool import RenderPool
from mmzero_async.rendering.programs.check import checked
from mmzero_async.rendering.programs.vocabulary import ATTRIBUTES, BUILTINS, MODULES

T = TypeVar("T")
CONFIG = RendererConfig(size=64, wall_seconds=12.0)
SHORT = RendererConfig(size=64, wall_seconds=1.5)

# The child as it is, but no program is checked and each has all of Python.
UNCHECKED = """
import ast, builtins
from mmzero_async.rendering.programs import server, studio
from mmzero_async.rendering.programs.check import Checked
import ctypes, multiprocessing.shared_memory, os, resource, signal, socket, subprocess, threading
import urllib.request
server.checked = lambda text: Checked(ast.parse(text))
studio.BUILTINS = [name for name in dir(builtins) if name != '__import__']
studio._import = __import__
server.main()
"""
TOOLS = (
    BOTH
    + """
import ctypes, os, resource, signal, socket, subprocess, sys, threading, time, matplotlib
from multiprocessing import shared_memory
libc = ctypes.CDLL(None)
"""
)


@dataclass
class World:
    """What lies outside, and how it was."""

    outside: Outside
    contents: bytes

    @property
    def folder(self) -> Path:
        return self.outside.file.parent

    def replaced(self, text: str) -> str:
        text = text.replace("{folder}", str(self.folder))
        text = text.replace("{address}", repr(self.outside.server.getsockname()))
        return self.outside.replaced(text)

    def changed(self) -> str | None:
        if sorted(path.name for path in self.folder.iterdir()) != ["fifo", "secret"]:
            return "the folder"
        status = self.outside.file.stat()
        if self.outside.file.read_bytes() != self.contents or status.st_mode & 0o777 != 0o600:
            return "the file"
        if status.st_mtime < 1e9 or os.listxattr(self.outside.file):
            return "the marks of the file"
        return self.outside.touched()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("outside")
    contents = b"secret" * 99
    (folder / "secret").write_bytes(contents)
    (folder / "secret").chmod(0o600)
    os.mkfifo(folder / "fifo")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield World(Outside(folder / "secret", folder / "fifo", server), contents)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """One warm pool for all that is checked."""
    yield from opened(CONFIG, "matplotlib")


@pytest.fixture(scope="module")
def unchecked() -> Iterator[Rig]:
    """One for programs that are not, where only the process holds them."""
    yield from opened(
        RendererConfig(size=64, wall_seconds=4.0),
        "matplotlib",
        command=(sys.executable, "-c", UNCHECKED),
    )


@pytest.fixture(scope="module")
def impatient() -> Iterator[Rig]:
    """One for those of them that only the clock ends."""
    yield from opened(SHORT, "matplotlib", command=(sys.executable, "-c", UNCHECKED))


def children_of(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def assert_sound(rig: Rig, before: tuple[int, ...]) -> None:
    """The same child is there, has no children and draws."""
    assert rig[1].pids == before
    assert children_of(before[0]) == []
    unseen = PLT + f"plt.plot([1, 2])  # {os.urandom(8).hex()}"
    assert isinstance(draw(rig, unseen), Picture)


def test_the_corpus_is_large() -> None:
    assert len(REFUSED) + len(RUN) + len(LOOPS) >= 60
    assert len(ATTEMPTS) + len(VIOLENT) >= 40


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_check_refuses_never_runs(rig: Rig, world: World, name: str) -> None:
    text, kind = REFUSED[name]
    outcome = draw(rig, world.replaced(text))
    assert isinstance(outcome, RenderFailure) and outcome.detail
    assert outcome.kind == kind, outcome.detail
    assert world.changed() is None


@pytest.mark.parametrize("name", RUN)
def test_what_passes_the_check_is_stopped_by_the_limits(rig: Rig, world: World, name: str) -> None:
    text, kinds = RUN[name]
    before = rig[1].pids
    outcome = draw(rig, world.replaced(text))
    assert isinstance(outcome, RenderFailure), "it was drawn"
    assert outcome.kind in kinds and outcome.kind in KINDS, outcome
    assert world.changed() is None
    assert_sound(rig, before)
    peak = re.search(r"VmPeak:\s+(\d+) kB", status_of(before[0]))
    assert peak is not None and int(peak[1]) <= CONFIG.memory_mib << 10


async def test_what_does_not_end_is_ended_and_the_child_goes_on() -> None:
    async with RenderPool(SHORT, drawing="matplotlib") as pool:
        before = pool.pids
        for name, (text, kinds) in LOOPS.items():
            outcome = await pool.render(text)
            assert isinstance(outcome, RenderFailure) and outcome.kind in kinds, (name, outcome)
            assert pool.pids == before and children_of(before[0]) == []


@pytest.mark.parametrize("name", ATTEMPTS)
def test_without_any_check_the_process_still_holds(unchecked: Rig, world: World, name: str) -> None:
    before = unchecked[1].pids
    outcome = draw(unchecked, TOOLS + world.replaced(ATTEMPTS[name]) + "\n" + ESCAPED)
    assert isinstance(outcome, RenderFailure), "it was drawn"
    assert outcome.kind in ("program:error", "memory"), outcome
    assert "escaped" not in outcome.detail, outcome
    assert not re.search(r"(Name|Attribute|Type|Syntax)Error", outcome.detail), "a slip of the test"
    assert world.changed() is None
    assert_sound(unchecked, before)


def test_an_attempt_that_succeeds_would_be_seen(unchecked: Rig) -> None:
    outcome = draw(unchecked, TOOLS + "os.getcwd()\n" + ESCAPED)
    assert isinstance(outcome, RenderFailure) and "escaped" in outcome.detail


@pytest.mark.parametrize("name", VIOLENT)
def test_however_a_program_ends_its_process_it_costs_one_failure(
    request: pytest.FixtureRequest, world: World, name: str
) -> None:
    text, kinds = VIOLENT[name]
    rig: Rig = request.getfixturevalue("impatient" if "timeout" in kinds else "unchecked")
    before = rig[1].pids
    outcome = draw(rig, TOOLS + text)
    assert isinstance(outcome, RenderFailure) and outcome.kind in kinds, outcome
    assert world.changed() is None
    assert_sound(rig, before)


def test_what_a_program_does_to_its_process_never_reaches_the_next(unchecked: Rig) -> None:
    innocent = HONEST["lines and a legend"]
    before = draw(unchecked, innocent)
    vandal = TOOLS + (
        "plt.rcParams['axes.facecolor'] = 'red'; np.sin = np.cos; plt.plot = print\n"
        "matplotlib.axes.Axes.legend = print; np.random.seed(9); sys.modules.clear()\n"
        "__builtins__['len'] = None; os.environ['X'] = '1'\n"
    )
    assert isinstance(draw(unchecked, vandal), RenderFailure)
    after = draw(unchecked, innocent + "# another text, so that no cache knows it")
    assert isinstance(before, Picture) and isinstance(after, Picture)
    assert before.png == after.png


async def test_a_process_that_stands_still_is_ended_by_its_parent() -> None:
    async with RenderPool(
        SHORT, drawing="matplotlib", command=(sys.executable, "-c", UNCHECKED)
    ) as pool:
        before = pool.pids
        text = TOOLS + "signal.pause()"
        outcome = await pool.render(text)
        assert isinstance(outcome, RenderFailure) and outcome.kind == "timeout"
        assert pool.pids == before and children_of(before[0]) == []


async def test_when_the_child_is_killed_its_program_dies_with_it() -> None:
    async with RenderPool(
        CONFIG, drawing="matplotlib", command=(sys.executable, "-c", UNCHECKED)
    ) as pool:
        (child,) = pool.pids
        running = asyncio.create_task(pool.render(TOOLS + "signal.pause()"))
        programs = await asyncio.to_thread(awaited, lambda: children_of(child))
        os.kill(child, signal.SIGKILL)
        outcome = await running
        assert isinstance(outcome, RenderFailure) and outcome.kind == "crashed"
        await asyncio.to_thread(
            awaited, lambda: all(state_of(pid) in ("", "Z") for pid in programs)
        )
        assert isinstance(await pool.render(PLT + "plt.plot([1, 2])"), Picture)


def awaited(found: Callable[[], T]) -> T:
    """What is found in the end; the test's own time limit ends it otherwise."""
    while not (it := found()):
        time.sleep(0.05)
    return it


def state_of(pid: int) -> str:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


# Whatever comes


WORDS = [*sorted(ATTRIBUTES)[::9], *sorted(MODULES["matplotlib.pyplot"])[::7], "__class__", "os"]
NAMES = ["plt", "np", "x", "y", "open", "getattr", *sorted(BUILTINS)[::5]]


def programs() -> st.SearchStrategy[str]:
    """Honest programs with stretches cut, doubled or replaced, and expressions of known words."""
    edits = st.tuples(
        st.integers(0, 600),
        st.integers(0, 30),
        st.sampled_from(
            ["", "(", ")", "[", ":", "\n", "  ", ".", "__", "lambda: ", "1e9", "*", "'"]
        )
        | st.sampled_from(WORDS)
        | st.text(max_size=6),
    )

    def apply(text: str, changes: list[tuple[int, int, str]]) -> str:
        for at, length, inserted in changes:
            text = text[:at] + inserted + text[at + length :]
        return text

    mutated = st.builds(apply, st.sampled_from([*HONEST.values()]), st.lists(edits, max_size=4))
    expression = st.recursive(
        st.sampled_from(NAMES) | st.integers(-9, 9).map(str) | st.sampled_from(["'a'", "[1, 2]"]),
        lambda inner: (
            st.builds("{}.{}".format, inner, st.sampled_from(WORDS))
            | st.builds("{}({})".format, inner, inner)
            | st.builds("{}({}, {})".format, inner, inner, inner)
            | st.builds("({} + {})".format, inner, inner)
            | st.builds("[{} for x in {}]".format, inner, inner)
        ),
        max_leaves=8,
    )
    lines = st.lists(expression.map("x = {}".format) | expression, min_size=1, max_size=5)
    made = lines.map(lambda some: BOTH + "x = y = 1\nplt.plot([1, 2])\n" + "\n".join(some))
    return mutated | made


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@settings(max_examples=200, deadline=None)
@given(programs() | st.text(max_size=60))
def test_the_check_never_raises_and_lets_nothing_through_that_it_does_not_know(text: str) -> None:
    verdict = checked(text)
    if isinstance(verdict, RenderFailure):
        assert verdict.kind in KINDS and verdict.detail.startswith("line ")
        return
    known = ATTRIBUTES | frozenset().union(*MODULES.values())
    for node in ast.walk(verdict.tree):
        assert not isinstance(node, ast.ClassDef | ast.Try | ast.With | ast.Global | ast.Delete)
        if isinstance(node, ast.Attribute):
            assert node.attr in known or node.attr.startswith(("get_", "set_"))
            assert isinstance(node.ctx, ast.Load)
        if isinstance(node, ast.Name):
            assert node.id not in ("open", "getattr", "os") and not node.id.startswith("__c")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=programs())
def test_whatever_comes_has_an_outcome(rig: Rig, text: str) -> None:
    before = rig[1].pids
    outcome = draw(rig, text)
    assert isinstance(outcome, Picture) or outcome.kind in KINDS
    assert rig[1].pids == before


def test_a_child_says_what_confines_its_programs(rig: Rig) -> None:
    assert {"rlimits", "landlock", "seccomp", "fork"} <= set(rig[1].isolation)
