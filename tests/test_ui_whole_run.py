"""The page in a real Chromium over a whole run: real vLLM draws and answers, the learner learns."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from test_ui import started
from whole_run import WholeRun, until

from mmzero_async.engines.launch import installed
from mmzero_async.schemas.events import Proposed, StepCommitted

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[dev]'")
from playwright.async_api import expect
from ui_visit import ids, needs_chromium, opened, until_shown, visit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500), needs_chromium]


@asynccontextmanager
async def page_of(run: Path) -> AsyncIterator[str]:
    process, said = await asyncio.to_thread(started, run, "--port", "0")
    try:
        assert said.startswith("demo: http://"), process.communicate()
        yield said.removeprefix("demo: ").split()[0]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


async def test_what_three_policies_make_is_seen_while_they_make_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installed()
    told = WholeRun(tmp_path / "demo")
    process = told.start(
        *("max_steps=2", "max_minutes=0", "eval.scenes=10", "eval.sampled=false"),
        *("learner.proposer.groups=2", "learner.coder.groups=3", "learner.solver.groups=4"),
    )
    try:
        await asyncio.to_thread(until, "a proposal", lambda: told.count(Proposed) > 0)
        async with page_of(told.run) as address, opened() as browser:
            there = await visit(browser, address)
            page = there.page
            await expect(page.locator("#status")).to_contain_text("going on")
            # Pictures that the coder drew appear by themselves, and their lineage opens.
            await until_shown(page, ".card img", 2)
            name = (await ids(page))[-1]
            await page.locator(f'[data-id="{name}"] .open').click()
            await expect(page.locator("#detail-title")).to_have_text(name)
            await expect(page.locator("#detail .caption").first).not_to_be_empty()
            await expect(page.locator("#detail .answers li").first).to_be_visible()
            await page.keyboard.press("Escape")

            # A worker that stops, and is there again.
            row = page.locator('[data-worker="solver-0"]')
            await expect(row).to_have_attribute("data-state", "here")
            [solver] = told.family("workers.solver")
            solver.suspend()
            began = time.monotonic()
            await expect(row).to_have_class("bad")
            red = time.monotonic() - began
            solver.resume()
            await expect(row).to_have_attribute("data-state", "here")

            # What was trained on says in which step.
            await asyncio.to_thread(
                until, "a solver's step", lambda: told.count(StepCommitted, role="solver") > 0
            )
            async with page.expect_response(lambda answer: "state=trained" in answer.url):
                await page.select_option("[name=state]", "trained")
            await expect(page.locator(".card .fates").first).to_contain_text("step")
            await page.locator(".card .open").first.click()
            await expect(page.locator("#detail .fates")).to_contain_text("step")
            await page.keyboard.press("Escape")
            await expect(page.locator("#charts canvas").first).to_be_visible()

            assert await asyncio.to_thread(process.wait, 900) == 0, told.evidence()
            await expect(page.locator("#status")).to_contain_text("finished")
            await page.click("#start-audit")
            await expect(page.locator("#audit-state")).to_contain_text("every promise kept")
            there.calm()
        with capsys.disabled():
            print(f"\na stopped solver was red on the page after {red:.1f} s")
    finally:
        told.end(process)
