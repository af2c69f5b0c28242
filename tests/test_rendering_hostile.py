"""Hostile drawings cost one failure each, and neither the pool nor anything outside notices."""

import contextlib
import errno
import io
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hostile_corpus import CORPUS, FORBIDDEN_COLOUR
from hostile_drawings import HOSTILE, LATE
from msgspec.structs import replace
from PIL import Image
from rendering_rig import CONFIG, ENGINES, SLOW, Engine, Rig, assert_alive, draw, opened, unseen

from mmzero_async.config import RendererConfig
from mmzero_async.rendering.outcomes import KINDS, Picture, RenderFailure
from mmzero_async.rendering.pool import RenderPool


@pytest.fixture(scope="module", params=ENGINES)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """One warm pool an engine for the whole file."""
    yield from opened(replace(CONFIG, engine=request.param))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_drawing_costs_one_failure_and_the_pool_goes_on(
    rig: Rig, name: str, tmp_path: Path
) -> None:
    text, kind = HOSTILE[name]
    os.mkfifo(tmp_path / "fifo")
    outcome = draw(rig, text.replace("{fifo}", str(tmp_path / "fifo")))
    assert isinstance(outcome, RenderFailure)
    assert outcome.kind == kind
    assert outcome.kind in KINDS and outcome.detail
    assert_alive(rig)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", LATE)
async def test_a_bomb_that_passes_the_pre_flight_costs_one_failure_too(
    name: str, engine: Engine
) -> None:
    async with RenderPool(RendererConfig(engine=engine, size=64, wall_seconds=1.2)) as pool:
        outcome = await pool.render(LATE[name])
        assert isinstance(outcome, RenderFailure)
        assert outcome.kind in ("timeout", "memory", "crashed")
        assert isinstance(await pool.render(unseen()), Picture)


async def test_a_child_that_computes_too_long_ends_by_its_cpu_time() -> None:
    async with RenderPool(RendererConfig(size=512, wall_seconds=3.0)) as pool:
        outcome = await pool.render(SLOW)
        assert isinstance(outcome, RenderFailure) and outcome.kind == "timeout"
        assert outcome.detail == "its CPU time ran out"  # a third of the wall limit


@dataclass
class Outside:
    """What lies outside and must not be touched."""

    file: Path
    fifo: Path
    server: socket.socket

    def replaced(self, text: str) -> str:
        host, port = self.server.getsockname()
        for name, value in {
            "{file}": str(self.file),
            "{fifo}": str(self.fifo),
            "{url}": f"http://{host}:{port}/x",
        }.items():
            text = text.replace(name, value)
        return text

    def touched(self) -> str | None:
        """By whom it was, since it was made."""
        with contextlib.suppress(BlockingIOError):
            self.server.accept()[0].close()
            return "the server had a visitor"
        try:
            os.close(os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK))
        except OSError as error:
            assert error.errno == errno.ENXIO  # nobody reads
            return None
        return "somebody waits at the pipe"


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    folder = tmp_path_factory.mktemp("outside")
    Image.new("RGB", (96, 96), FORBIDDEN_COLOUR).save(folder / "secret.png")
    os.mkfifo(folder / "fifo")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield Outside(folder / "secret.png", folder / "fifo", server)


def status_of(pid: int) -> str:
    """Of a child; "" for one that has just been replaced."""
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) + len(HOSTILE) + len(LATE) >= 150


@pytest.mark.parametrize("name", CORPUS)
def test_whatever_a_drawing_tries_nothing_outside_is_touched_and_the_pool_goes_on(
    rig: Rig, outside: Outside, name: str
) -> None:
    outcome = draw(rig, outside.replaced(CORPUS[name]))
    if isinstance(outcome, Picture):
        image = Image.open(io.BytesIO(outcome.png)).convert("RGB")
        assert image.size == (64, 64)
        colours = {colour for _, colour in image.getcolors(64 * 64) or []}
        assert FORBIDDEN_COLOUR not in colours, "the file was drawn"
    else:
        assert outcome.kind in KINDS and outcome.detail
    assert outside.touched() is None
    for pid in rig[1].pids:  # a child that is still there never had more than it may
        peak = re.search(r"VmPeak:\s+(\d+) kB", status_of(pid))
        assert peak is None or int(peak[1]) <= CONFIG.memory_mib << 10


def test_the_pool_is_alive_after_the_whole_corpus(rig: Rig) -> None:
    assert_alive(rig)
    assert len(rig[1].pids) == CONFIG.children
