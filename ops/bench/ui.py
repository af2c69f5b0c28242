"""`just bench ui`: how soon the dashboard shows a picture, what it costs, and whom.

    python -m mmzero_async.ops.bench.ui              a log of 1,000,000 events: some four minutes
    python -m mmzero_async.ops.bench.ui --quick      100,000 events: a minute

One JSON line a figure. The page is asked for over HTTP as a browser asks for it, and by a Chromium
where there is one. Works in a folder of its own under --folder and removes it.
"""

import argparse
import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from mmzero_async.config import Config, LogConfig
from mmzero_async.ops.bench.figures import Figure
from mmzero_async.ops.bench.ingest import CLIENTS, ingest, serving
from mmzero_async.ops.bench.long_log import write_long_log
from mmzero_async.ops.browser import find

EVENTS, QUICK_EVENTS = 1_000_000, 100_000
FIRST_PICTURE_SECONDS = 2.0  # what is promised of a log of 1,000,000 events
RED_SECONDS = 5.0  # what is promised of a worker that stops
PATIENCE = 60.0
TURNS = 3


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="benchmark of the dashboard")
    parser.add_argument("--quick", action="store_true", help="100,000 events, shorter turns")
    parser.add_argument("--folder", type=Path, default=Path(), help="whose disk is used")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix=".bench-ui-", dir=options.folder) as name:
        for figure in figures(Path(name), quick=options.quick):
            print(figure.line(), flush=True)


def figures(folder: Path, *, quick: bool) -> Iterator[Figure]:
    run = folder / "long"
    events = write_long_log(run, QUICK_EVENTS if quick else EVENTS)
    yield from asyncio.run(_long(run, events))
    yield _red(folder / "red")
    yield _cost(folder, seconds=1.5 if quick else 5.0)


@contextlib.contextmanager
def dashboard(run: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`mmzero ui` in a process of its own, and its address."""
    command = [sys.executable, "-m", "mmzero_async.ops.cli", "ui", str(run), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.search(r"http://\S+/", said)
        if found is None:
            raise RuntimeError(f"mmzero ui did not start: {said!r}")
        yield process, found[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


# --- a long log -----------------------------------------------------------------------------------


async def _long(run: Path, events: int) -> list[Figure]:
    found: list[Figure] = []
    began = time.perf_counter()
    with dashboard(run) as (process, url):
        listening = time.perf_counter() - began
        async with aiohttp.ClientSession(url) as session:
            first = await _first_picture(session)
            note = f"{events} events; the server began to listen {listening:.2f} s after its start"
            limit = "the promise"
            found.append(Figure("ui_first_picture", first, "s", limit, FIRST_PICTURE_SECONDS, note))
            if (browser := find()) is not None:
                seen = await _first_seen(browser, url)
                note = (
                    f"{events} events; Chromium, from its navigation to the first picture decoded"
                )
                found.append(Figure("ui_first_seen", seen, "s", limit, FIRST_PICTURE_SECONDS, note))
            found += await _whole_history(session, process.pid, events)
    return found


async def _first_picture(session: aiohttp.ClientSession) -> float:
    """Page, script, the newest drawings, the first one's picture: one after the other."""
    began = time.perf_counter()
    for path in ("/", "/static/app.js"):
        await (await session.get(path)).read()
    page = await (await session.get("/api/drawings")).json()
    picture = await session.get(f"/api/pictures/{page['cards'][0]['picture']}.png")
    if not (await picture.read()).startswith(b"\x89PNG"):
        raise RuntimeError("the first card's picture is no PNG")
    return time.perf_counter() - began


async def _first_seen(browser: str, url: str) -> float:
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = await opened.new_page()
        began = time.perf_counter()
        await page.goto(url, wait_until="commit")
        seen = "all => all.some(i => i.complete && i.naturalWidth > 0)"
        while not await page.eval_on_selector_all(".card img", seen):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        passed = time.perf_counter() - began
        await opened.close()
    return passed


async def _whole_history(session: aiohttp.ClientSession, pid: int, events: int) -> list[Figure]:
    """What reading everything takes, and what memory it leaves taken."""
    began, early = time.perf_counter(), 0
    read = -1
    while read < events:
        state = await (await session.get("/api/state")).json()
        if state["error"]:
            raise RuntimeError(state["error"])
        read = int(state["read"])
        if not early and read >= events // 10:
            early = _anonymous(pid)
        await asyncio.sleep(0.1)
    rate = events / (time.perf_counter() - began)
    late = _anonymous(pid)
    note = "anonymous pages of the server's process, when all is read and when a tenth was"
    half = "in the background, at half of a processor's time and low priority"
    return [
        Figure("ui_memory", late / 1e6, "MB", "at a tenth of the log", early / 1e6, note),
        Figure("ui_history", rate, "events/s", "none", None, half),
    ]


def _anonymous(pid: int) -> int:
    """Bytes of a process that are no file's pages: the log's map is not in it."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+)", text)
    return int(found[1]) * 1024 if found else 0


# --- a worker that stops --------------------------------------------------------------------------


def _red(run: Path) -> Figure:
    """A renderer that is stopped (SIGSTOP), until an open page is told."""
    run.mkdir()
    (run / "config.json").write_text(Config(log=LogConfig(port=0)).to_json())
    with (
        serving(run) as (_, log_url),
        dashboard(run) as (_, url),
        _renderer(run, log_url) as worker,
    ):
        times = asyncio.run(_stopped(worker, url))
    note = f"the longest of {TURNS}; log.heartbeat_seconds = 1, log.dead_seconds = 4"
    return Figure("ui_stopped_worker", max(times), "s", "the promise", RED_SECONDS, note)


@contextlib.contextmanager
def _renderer(run: Path, log_url: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "mmzero_async.workers.renderer", "--run-dir", str(run)]
    command += ["--worker", "renderer-0", "--log-url", log_url, "--engine-url", "http://x:9"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


async def _stopped(worker: subprocess.Popen[bytes], url: str) -> list[float]:
    """Seconds from each stop to the state that tells it."""
    times: list[float] = []
    async with (
        asyncio.timeout(PATIENCE * TURNS),
        aiohttp.ClientSession(url) as session,
        session.get("/api/events") as line,
    ):
        states = _states(line)
        for _ in range(TURNS):
            await _until(states, "here")
            worker.send_signal(signal.SIGSTOP)
            began = time.perf_counter()
            await _until(states, "silent", "lost")
            times.append(time.perf_counter() - began)
            worker.send_signal(signal.SIGCONT)
    return times


async def _states(line: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for said in line.content:
        if said.startswith(b"data: "):
            yield json.loads(said[6:])


async def _until(states: AsyncIterator[dict[str, Any]], *wanted: str) -> None:
    async for state in states:
        if any(w["worker"] == "renderer-0" and w["state"] in wanted for w in state["workers"]):
            return
    raise RuntimeError("the dashboard's line ended")


# --- a run that is looked at ----------------------------------------------------------------------


def _cost(folder: Path, seconds: float) -> Figure:
    """Ingestion at full tilt with the page open beside ingestion without, by turns."""
    rates: dict[bool, float] = {False: 0.0, True: 0.0}
    for looked_at in (False, True, True, False):
        done = ingest(
            folder,
            traffic="mixed",
            clients=CLIENTS,
            window=6,
            seconds=seconds,
            beside=_looking if looked_at else None,
        )
        rates[looked_at] += done.events / done.seconds / 2
    note = f"acknowledged, {CLIENTS} client processes as fast as they can; mean of two turns"
    return Figure("ui_cost", rates[True], "events/s", "no page open", rates[False], note)


@contextlib.contextmanager
def _looking(run: Path) -> Iterator[None]:
    """A dashboard with one page open: its line, and the newest drawings every second."""
    with dashboard(run) as (_, url):
        viewer = subprocess.Popen([sys.executable, "-m", "mmzero_async.ops.bench.viewer", url])
        try:
            yield
        finally:
            viewer.kill()
            viewer.wait()


if __name__ == "__main__":
    main()
