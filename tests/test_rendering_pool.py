"""The pool of children: lost, cancelled, misbehaving, many at once, closed."""

import asyncio
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hostile_drawings import HOSTILE
from PIL import Image
from rendering_rig import CHART, CONFIG, RECT, SLOW, svg, unseen

from mmzero_async.config import RendererConfig
from mmzero_async.rendering.errors import RenderingError
from mmzero_async.rendering.outcomes import Picture, RenderFailure
from mmzero_async.rendering.pool import RenderPool


async def test_a_child_killed_in_mid_render_costs_that_render_and_is_replaced() -> None:
    async with RenderPool(RendererConfig(size=1024, wall_seconds=30)) as pool:
        (victim,) = pool.pids
        running = asyncio.create_task(pool.render(SLOW))
        await asyncio.sleep(0.1)
        os.kill(victim, signal.SIGKILL)
        outcome = await running
        assert isinstance(outcome, RenderFailure)
        assert outcome.kind == "crashed" and "-9" in outcome.detail
        assert isinstance(await pool.render(CHART), Picture)
        assert len(pool.pids) == 1 and victim not in pool.pids


async def test_a_child_lost_between_renders_costs_none() -> None:
    async with RenderPool(CONFIG) as pool:
        (victim,) = pool.pids
        os.kill(victim, signal.SIGKILL)
        await asyncio.to_thread(wait_for_the_end_of, victim)
        await asyncio.sleep(0.2)  # the event loop hears of it
        assert isinstance(await pool.render(unseen()), Picture)
        assert len(pool.pids) == 1 and victim not in pool.pids


async def test_a_child_does_not_mind_the_signals_that_stop_its_parent() -> None:
    async with RenderPool(CONFIG) as pool:
        before = pool.pids
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(before[0], number)
        assert isinstance(await pool.render(unseen()), Picture)
        assert pool.pids == before


# Children that misbehave: a script in the child's place

FAKE = """
import os, sys, time
from mmzero_async.rendering.frames import LENGTH, Ready, Reply, read_frame, write_frame
pipe = sys.stdout.buffer
def say(data):
    pipe.write(data)
    pipe.flush()
read_frame(sys.stdin.buffer)
write_frame(pipe, Ready(["fake"], "fake"))
read_frame(sys.stdin.buffer)
"""


@pytest.mark.parametrize(
    ("then", "kind"),
    [
        ("time.sleep(60)", "timeout"),
        ("say(LENGTH.pack(5) + b'abc'); time.sleep(60)", "timeout"),
        ("say(LENGTH.pack(5) + b'\\xc1abcd'); time.sleep(60)", "crashed"),
        ("say(LENGTH.pack(2**31)); time.sleep(60)", "crashed"),
        ("write_frame(pipe, Reply(failure='surprise'))", "crashed"),
        ("sys.exit(3)", "crashed"),
        ("os.abort()", "crashed"),
        ("os.close(1); time.sleep(60)", "crashed"),
    ],
)
async def test_a_child_that_babbles_or_falls_silent_costs_one_failure(then: str, kind: str) -> None:
    command = (sys.executable, "-c", FAKE + then)
    config = RendererConfig(size=64, wall_seconds=0.5 if kind == "timeout" else 20)
    async with RenderPool(config, command=command) as pool:
        outcome = await pool.render(CHART)
        assert isinstance(outcome, RenderFailure) and outcome.kind == kind


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("/nonexistent/python",), "cannot be started: /nonexistent/python"),
        ((sys.executable, "-c", "import sys; sys.exit('no engine here')"), "no engine here"),
    ],
)
async def test_a_child_that_cannot_start_is_an_error_that_says_why_and_what_to_do(
    command: tuple[str, ...], said: str
) -> None:
    with pytest.raises(RenderingError, match=said) as caught:
        async with RenderPool(CONFIG, command=command):
            pass
    assert "Check" in str(caught.value)


async def test_a_pool_with_too_little_memory_says_so_at_the_start() -> None:
    with pytest.raises(RenderingError, match=r"renderer\.memory_mib"):
        async with RenderPool(RendererConfig(size=64, memory_mib=8)):
            pass


# Many at once, cancelled, closed


async def test_a_render_that_is_cancelled_leaves_no_answer_for_the_next_caller() -> None:
    config = RendererConfig(size=64, wall_seconds=20)
    async with RenderPool(config, cached_mib=0) as pool:
        expected = await pool.render(CHART)
        assert isinstance(expected, Picture)
        for delay in (0.0, 0.001, 0.003, 0.01, 0.03):
            victim = asyncio.create_task(pool.render(svg(RECT)))
            waiting = asyncio.create_task(pool.render(svg(RECT)))
            await asyncio.sleep(delay)
            victim.cancel()
            waiting.cancel()
            outcome = await pool.render(CHART)
            assert isinstance(outcome, Picture) and outcome.png == expected.png
        assert len(pool.pids) == 1


async def test_a_long_render_that_is_cancelled_frees_its_place_at_once() -> None:
    async with RenderPool(RendererConfig(size=512, wall_seconds=60)) as pool:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await pool.render(SLOW)
        async with asyncio.timeout(15):
            assert isinstance(await pool.render(CHART), Picture)


async def test_many_renders_share_few_children_and_each_gets_its_own_picture() -> None:
    async with RenderPool(RendererConfig(size=64, children=2, wall_seconds=20)) as pool:
        drawings = [
            svg(f'<rect x="{i}" y="10" width="{9 + i}" height="40" fill="rgb({i},0,255)"/>')
            for i in range(40)
        ]
        outcomes = await asyncio.gather(*(pool.render(drawing) for drawing in drawings))
        for i, outcome in enumerate(outcomes):
            assert isinstance(outcome, Picture)
            image = Image.open(io.BytesIO(outcome.png)).convert("RGB")
            assert (i, 0, 255) in {colour for _, colour in image.getcolors() or []}
        assert len(pool.pids) == 2
        again = await asyncio.gather(*(pool.render(drawing) for drawing in drawings))
        assert again == outcomes  # seconds too: answered from the cache


async def test_good_renders_beside_bombs_are_all_drawn() -> None:
    async with RenderPool(RendererConfig(size=64, children=2, wall_seconds=20)) as pool:
        bomb = HOSTILE["memory for a tile that only the engine can size"][0]
        texts = [bomb if i % 4 == 0 else unseen() for i in range(16)]
        outcomes = await asyncio.gather(*(pool.render(text) for text in texts))
        kinds = [o.kind if isinstance(o, RenderFailure) else "" for o in outcomes]
        assert kinds == ["memory" if i % 4 == 0 else "" for i in range(16)]


async def test_closing_ends_the_children_and_wakes_all_who_wait() -> None:
    async with RenderPool(RendererConfig(size=512, wall_seconds=60)) as pool:
        pids = pool.pids
        tasks = [asyncio.create_task(pool.render(SLOW + " " * i)) for i in range(4)]
        await asyncio.sleep(0.1)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, RenderingError) for outcome in outcomes), outcomes
    assert not any(is_alive(pid) for pid in pids)
    with pytest.raises(RenderingError, match="closed"):
        await pool.render(CHART)


def test_children_end_even_when_their_parent_is_killed_while_they_draw() -> None:
    script = (
        "import asyncio, sys\n"
        "from mmzero_async.config import RendererConfig\n"
        "from mmzero_async.rendering.pool import RenderPool\n"
        "async def main():\n"
        "    async with RenderPool(RendererConfig(size=1024, wall_seconds=90)) as pool:\n"
        "        drawing = asyncio.create_task(pool.render(sys.stdin.read()))\n"
        "        await asyncio.sleep(0.1)\n"
        "        print(*pool.pids, flush=True)\n"
        "        await drawing\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        (sys.executable, "-c", script), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        parent.stdin.write(SLOW)
        parent.stdin.close()
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
    wait_for_the_end_of(pid)


def wait_for_the_end_of(pid: int) -> None:
    deadline = time.monotonic() + 20
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} still runs"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process runs, zombies not counted."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
