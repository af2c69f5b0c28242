"""The page in a real Chromium: over a finished log, over a live one, and under attack.

`just test-slow` installs a browser where it may (ops/browser.sh); without one these are skipped.
"""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from builders import SCORED, coded, proposed, rendered, run_started
from test_curve_processes import processes, until
from test_flow import publish_all
from test_worker_provenance import settings as worker_settings
from ui_rig import dashboard, fed, hostile_tree, ordinary

from mmzero_async.log.reader import LogReader
from mmzero_async.transport.client import LogClient

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[dev]'")
from playwright.async_api import Browser, expect
from ui_visit import NARROW, WIDE, ids, needs_chromium, opened, until_shown, visit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), needs_chromium]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with opened() as found:
        yield found


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
async def test_a_finished_log_is_shown_searched_and_read_by_keyboard(
    tmp_path: Path, browser: Browser, size: dict[str, int]
) -> None:
    failed = [proposed("g90", [True]), coded("g90.s0", [True]), rendered("g90.s0.d0", ok=False)]
    with fed(tmp_path / "demo", [SCORED, *ordinary(12), *failed]) as feeder:
        async with dashboard(feeder.folder, feeder.writer.reader()) as client:
            there = await visit(browser, str(client.make_url("/")), size)
            page = there.page
            await until_shown(page, ".card img", 4)  # the others are below the fold
            assert (await ids(page))[:2] == ["g11.s0.d1", "g11.s0.d0"]
            await expect(page.locator("#run")).to_have_text("demo")
            await expect(page.locator('[data-stage="render"] dd').nth(1)).to_have_text("25")
            await expect(page.locator("#charts canvas").first).to_be_visible()
            drawn = page.get_by_label("Easy accuracy, hard consistency")
            words = "Easy accuracy, hard consistency: hard consistency 0.50, held-out hard 0.40"
            await expect(drawn).to_have_attribute("aria-label", words)
            wide = await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert wide, "the page scrolls sideways"

            # Filters, from the keyboard.
            await page.keyboard.press("/")
            await page.keyboard.type("number 3 ")
            await expect(page.locator("#found")).to_have_text("2 shown, that is all")
            assert await ids(page) == ["g3.s0.d1", "g3.s0.d0"]
            await page.fill("[name=text]", "")
            await page.select_option("[name=state]", "rejected")
            await page.select_option("[name=type]", "geometry")
            await expect(page.locator("#found")).to_have_text("12 shown, that is all")
            assert all(int(name.split(".")[0][1:]) % 2 for name in await ids(page))
            await page.select_option("[name=state]", "failed")
            await page.select_option("[name=type]", "")
            await expect(page.locator("#found")).to_have_text("1 shown, that is all")
            await expect(page.locator(".card .none")).to_have_text("no picture: invalid")
            await page.click("button[type=reset]")
            await expect(page.locator("#found")).to_contain_text("24 shown")

            # One drawing, all of it, and the next.
            await page.locator(".card .open").nth(2).focus()
            await page.keyboard.press("Enter")
            title = page.locator("#detail-title")
            await expect(title).to_have_text("g10.s0.d1")
            await expect(page.locator("#detail .answers li.agrees")).to_have_count(5)
            await expect(page.locator("#detail .fates")).to_contain_text("solver: step 6")
            await page.keyboard.press("ArrowRight")
            await expect(title).to_have_text("g10.s0.d0")
            await page.keyboard.press("Escape")
            await expect(page.locator("#detail")).to_be_hidden()
            await expect(page.locator('[data-id="g10.s0.d0"] .open')).to_be_focused()

            # Side by side, and the audit.
            await until_shown(page, "#sides > div:nth-child(1) img", 1)
            early = await page.locator("#sides > div:nth-child(1) .open").first.get_attribute(
                "aria-label"
            )
            assert early is not None and early.startswith("g0.s0")
            await page.click("#start-audit")
            await expect(page.locator("#audit-state")).to_contain_text("every promise kept")
            there.calm()


async def test_what_a_model_wrote_is_text_and_does_nothing(
    tmp_path: Path, browser: Browser
) -> None:
    with fed(tmp_path / "demo", [*ordinary(1), *hostile_tree("g7")]) as feeder:
        svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>window.hacked=1</script></svg>'
        feeder.write(
            [proposed("g8", [True]), coded("g8.s0", [True]), rendered("g8.s0.d0")], blob=svg
        )
        async with dashboard(feeder.folder, feeder.writer.reader()) as client:
            there = await visit(browser, str(client.make_url("/")))
            page = there.page
            await until_shown(page, ".card img", 2)
            await expect(page.locator('[data-id="g7.s0.d0"] .caption')).to_contain_text("<script>")
            await expect(page.locator('[data-id="g8.s0.d0"] .gone')).to_be_visible()
            await page.locator('[data-id="g7.s0.d0"] .open').click()
            await expect(page.locator("#detail .caption")).to_contain_text("onerror=")
            for summary in await page.locator("#detail summary").all():
                await summary.click()
            await expect(page.locator("#detail pre").first).to_contain_text("<iframe srcdoc")
            made = "iframe, main script, dialog script, animate, img[src=x]"
            assert await page.locator(made).count() == 0
            assert await page.evaluate("typeof window.hacked") == "undefined"
            # The blob that is no picture was asked for and refused; the browser says so.
            there.wrong = [said for said in there.wrong if "415" not in said]
            there.calm()


async def test_of_a_run_that_goes_on_pictures_appear_and_a_stopped_worker_turns_red(
    tmp_path: Path, browser: Browser
) -> None:
    config = worker_settings("seedling")
    run = tmp_path / "demo"
    run.mkdir()
    (run / "config.json").write_text(config.to_json())
    url = f"tcp://127.0.0.1:{config.log.port}"
    with processes(run) as children:
        children.start("server", "workers.log_server", "--run-dir", run)
        children.start(
            "renderer",
            *("workers.renderer", "--run-dir", run, "--worker", "renderer-0"),
            *("--log-url", url, "--engine-url", "http://127.0.0.1:9"),
        )
        async with LogClient.connect(
            url, worker="feeder", role="test", config_digest=config.digest(), patience=120.0
        ) as feeder:
            await feeder.append([run_started(config, run.name)])
            await feeder.append(publish_all())
            await until(lambda: (run / "log" / "data.mdb").exists())
            reader = LogReader.open(run / "log")
            async with dashboard(run, reader) as client:
                there = await visit(browser, str(client.make_url("/")))
                page = there.page
                await expect(page.locator("#status")).to_contain_text("going on")
                row = page.locator('[data-worker="renderer-0"]')
                await expect(row).to_have_attribute("data-state", "here")
                # The renderer draws what the feeder proposes, and the picture appears.
                await feeder.append([proposed("g0", [True])])
                await feeder.append([coded("g0.s0", [True, True])])
                await until_shown(page, ".card img", 2)
                # Stopped, not killed: its sockets stay open, and only its heartbeats are missing.
                children.running["renderer"].send_signal(signal.SIGSTOP)
                await expect(row).to_have_class("bad")
                assert await row.get_attribute("data-state") in ("silent", "lost")
                children.running["renderer"].send_signal(signal.SIGCONT)
                await expect(row).to_have_attribute("data-state", "here")
                # And killed: the log server's missing is in the log.
                children.kill("renderer")
                await expect(row).to_have_attribute("data-state", "lost")
                children.kill("server")
                await expect(page.locator("#alert")).to_be_visible()
                await expect(page.locator("#status")).to_contain_text("not running")
                there.calm()
            reader.close()


async def test_a_token_opens_the_page_once_and_leaves_the_address(
    tmp_path: Path, browser: Browser
) -> None:
    with fed(tmp_path / "demo", ordinary(2)) as feeder:
        reader = feeder.writer.reader()
        async with dashboard(feeder.folder, reader, token="se-cret") as client:
            page = await (await browser.new_context()).new_page()
            await page.goto(str(client.make_url("/?token=se-cret")))
            assert "se-cret" not in page.url
            await until_shown(page, ".card img", 2)
            assert await page.evaluate("document.cookie") == ""


async def test_dark_and_still_where_people_ask_for_it(tmp_path: Path, browser: Browser) -> None:
    with fed(tmp_path / "demo", ordinary(4)) as feeder:
        async with dashboard(feeder.folder, feeder.writer.reader()) as client:
            there = await visit(
                browser, str(client.make_url("/")), color_scheme="dark", reduced_motion="reduce"
            )
            ground = "getComputedStyle(document.body).backgroundColor"
            assert await there.page.evaluate(ground) == "rgb(21, 23, 26)"
            moves = "getComputedStyle(document.documentElement).scrollBehavior"
            assert await there.page.evaluate(moves) == "auto"
            there.calm()
