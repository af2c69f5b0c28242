"""A real Chromium, and a page of the dashboard open in it."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mmzero_async.ops.browser import find

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[dev]'")
from playwright.async_api import Browser, Page, async_playwright, expect

CHROMIUM = find()
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium: bash ops/browser.sh installs one"
)
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
PATIENCE = 60_000  # ms for any one thing, on a busy machine
expect.set_options(timeout=PATIENCE)


@asynccontextmanager
async def opened() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        yield found
        await found.close()


class Visit:
    """A page, and all that went wrong on it or left it."""

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address = page, address
        self.wrong: list[str] = []
        self.elsewhere: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.wrong.append(f"{error} {error.stack}"))
        page.on("console", lambda m: self.wrong.append(m.text) if m.type == "error" else None)
        page.on("dialog", lambda dialog: self.wrong.append(f"dialog {dialog.message}"))
        page.on("request", lambda r: self._asked(r.url))

    def _asked(self, url: str) -> None:
        if not url.startswith(self.address):
            self.elsewhere.append(url)

    def calm(self) -> None:
        assert not self.wrong and not self.elsewhere, (self.wrong, self.elsewhere)


async def visit(browser: Browser, address: str, size: dict[str, int] = WIDE, **more: Any) -> Visit:
    page = await (await browser.new_context(viewport=size, **more)).new_page()
    found = Visit(page, address)
    await page.goto(address)
    return found


async def shown(page: Page, selector: str) -> int:
    """Pictures that have pixels."""
    script = "all => all.filter(i => i.complete && i.naturalWidth > 0).length"
    return int(await page.eval_on_selector_all(selector, script))


async def until_shown(page: Page, selector: str, count: int) -> None:
    async with asyncio.timeout(PATIENCE / 1000):
        while await shown(page, selector) < count:  # noqa: ASYNC110 - the page tells nobody
            await asyncio.sleep(0.05)


async def ids(page: Page) -> list[str]:
    return await page.eval_on_selector_all(".card", "all => all.map(c => c.dataset.id)")
