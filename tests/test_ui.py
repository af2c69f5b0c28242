"""The dashboard over HTTP: what it tells of a log, whom it lets in, what it does with what is
hostile. Real logs, the real server; `test_ui_browser.py` looks at the page itself."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient
from builders import SCORED, coded, proposed, rendered, whole_tree
from hypothesis import given, settings
from hypothesis import strategies as st
from log_builders import EVENT, rewarded, step, write
from ui_rig import HOSTILE, dashboard, fed, hostile_tree, ordinary

from mmzero_async.ops import ui as ui_package
from mmzero_async.ops.ui import gallery as galleries
from mmzero_async.ops.ui.gallery import Gallery
from mmzero_async.ops.ui.wanted import Wanted
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import Rendered, WorkerJoined

STATIC = Path(ui_package.__file__).parent / "static"


async def get(client: TestClient, path: str, **query: str) -> dict[str, Any]:
    async with client.get(path, params=query) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def names(client: TestClient, **query: str) -> list[str]:
    """Of all drawings that a search finds, in order."""
    found, before = [], ""
    while True:
        page = await get(client, "/api/drawings", **query, **({"before": before} if before else {}))
        found += [card["id"] for card in page["cards"]]
        if page["next"] is None:
            return found
        before = str(page["next"])


async def caught_up(client: TestClient) -> dict[str, Any]:
    """The state once every event is read."""
    async with asyncio.timeout(60):
        while True:
            state = await get(client, "/api/state")
            if state["read"] >= state["end"] or state["error"]:
                return state
            await asyncio.sleep(0.05)


# --- what it tells --------------------------------------------------------------------------------


async def test_a_drawing_is_told_from_its_proposal_to_the_step_that_trained_on_it(
    tmp_path: Path,
) -> None:
    with fed(tmp_path / "demo", ordinary(2)) as feeder:
        async with dashboard(feeder.folder, feeder.writer.reader()) as client:
            found = await get(client, "/api/drawings/g0.s0.d0")
            assert found["caption"] == "Bar chart number 0 with red bars."
            assert found["groups"]["solver"]["step"] == 1 and found["versions"]["solver"] == [0, 0]
            assert found["groups"]["coder"] == {"group": "g0.s0", "state": "waiting"}
            hard = found["questions"]["hard"]
            assert (hard["silver"], hard["agreement"], hard["same"]) == ("3", 0.5, True)
            assert hard["votes"] == [["3", 2], ["11", 1], ["4", 1]] and hard["asked"] == 4
            answers = found["answers"]["hard"]
            assert [a["answer"] for a in answers] == ["3", "3", "11", "4"]
            assert [a["agrees"] for a in answers] == [True, True, False, False]
            assert [a["reward"] for a in answers] == [1.0, 1.0, 0.1, 0.1]
            assert all(a["text"] == found["caption"] for a in answers)  # the reasoning
            assert found["siblings"] == ["g0.s0.d1"]
            picture = await client.get(f"/api/pictures/{found['picture']}.png")
            assert picture.content_type == "image/png"
            assert await picture.read() == feeder.pictures[found["picture"]]
            other = await get(client, "/api/drawings/g1.s0.d0")
            assert other["groups"]["solver"]["reason"] == "stale"


async def test_drawings_are_asked_for_by_name_to_see_how_they_get_on(tmp_path: Path) -> None:
    with fed(tmp_path / "demo", whole_tree("g0", proposals=1, drawings=2)) as feeder:
        async with dashboard(feeder.folder, feeder.writer.reader()) as client:
            named = {"ids": "g0.s0.d1,g9.s0.d0,nonsense"}
            [card] = (await get(client, "/api/drawings", **named))["cards"]
            assert (card["id"], card["groups"]["solver"]["state"]) == ("g0.s0.d1", "waiting")
            feeder.write([step("solver", 1, ["g0.s0.d1"])])
            [card] = (await get(client, "/api/drawings", **named))["cards"]
            assert card["groups"]["solver"]["state"] == "trained"


async def test_pages_of_the_gallery_make_the_whole_newest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(galleries, "WINDOW", 7)
    monkeypatch.setattr(galleries, "WINDOWS", 3)
    with fed(tmp_path / "demo", ordinary(9)) as feeder:
        reader = feeder.writer.reader()
        every = [r.event().drawing for r in reader.scan() if isinstance(r.event(), Rendered)]
        async with dashboard(feeder.folder, reader) as client:
            for limit in ("1", "3", "48"):
                assert await names(client, limit=limit) == every[::-1]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"text": "NUMBER 3 "}, ["g3.s0.d1", "g3.s0.d0"]),
        ({"text": "g2"}, ["g2.s0.d0", "g2.s0.d1"]),
        ({"text": "g2.s0.d1"}, ["g2.s0.d1"]),
        ({"type": "geometry", "state": "rejected", "text": "number 1"}, ["g1.s0.d1", "g1.s0.d0"]),
        ({"state": "trained", "text": "number 2"}, ["g2.s0.d1", "g2.s0.d0"]),
        ({"state": "waiting"}, []),
        ({"state": "failed"}, ["g9.s0.d1", "g9.s0.d0"]),
        ({"version": "1..", "text": "number 2"}, []),
        ({"version": "..0", "role": "coder", "text": "number 2"}, ["g2.s0.d1", "g2.s0.d0"]),
        ({"agreement": "0.9..1"}, []),
        ({"agreement": "0.3..0.7", "text": "number 3"}, ["g3.s0.d1", "g3.s0.d0"]),
        ({"finding": "copy"}, []),
        ({"text": "nowhere to be found"}, []),
    ],
)
async def test_filters_find_what_they_name(
    tmp_path: Path, query: dict[str, str], wanted: list[str]
) -> None:
    failed = [proposed("g9", [True]), coded("g9.s0", [False, True]), rendered("g9.s0.d1", ok=False)]
    with fed(tmp_path / "demo", [*ordinary(4), *failed]) as feeder:
        async with dashboard(feeder.folder, feeder.writer.reader()) as client:
            assert sorted(await names(client, **query)) == sorted(wanted)


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ({"state": "odd"}, "trained"),
        ({"version": "a..b"}, "3..9"),
        ({"version": "9..3"}, "empty"),
        ({"role": "renderer"}, "proposer"),
        ({"lineage": "g01"}, "g12.s0"),
        ({"before": "-1"}, "whole number"),
        ({"limit": "1e9"}, "whole number"),
    ],
)
async def test_a_query_that_means_nothing_is_refused_with_what_it_may_be(
    tmp_path: Path, query: dict[str, str], word: str
) -> None:
    with fed(tmp_path / "demo") as feeder:
        async with dashboard(feeder.folder, feeder.writer.reader()) as client:
            answer = await client.get("/api/drawings", params=query)
            assert answer.status == 400 and word in await answer.text()


@settings(max_examples=40)
@given(events=st.lists(EVENT, max_size=60), limit=st.integers(1, 5))
def test_whatever_a_log_holds_the_gallery_tells_all_that_it_can_and_never_fails(
    tmp_path_factory: pytest.TempPathFactory, events: list[Any], limit: int
) -> None:
    writer = write(tmp_path_factory.mktemp("log") / "log", events)
    gallery, before, found = Gallery(writer.reader()), None, []
    while True:
        page = gallery.newest(before, 0, limit, Wanted())
        found += page.cards
        assert page.next is None or before is None or page.next < before or page.cards
        before = page.next
        if before is None:
            break
    writer.close()
    offsets = [card["offset"] for card in found]
    pictures = {e.drawing for e in events if isinstance(e, Rendered) and e.picture}
    assert {card["id"] for card in found} <= pictures
    assert len(offsets) <= sum(isinstance(e, Rendered) for e in events)


async def test_the_most_informative_are_those_whose_answers_were_rewarded_most_unlike(
    tmp_path: Path,
) -> None:
    events = [e for i in range(3) for e in whole_tree(f"g{i}", proposals=1, drawings=1)]
    groups = ["g0.s0.d0", "g1.s0.d0", "g2.s0.d0"]
    rewards = [[1.0, 1.0, 1.0], [1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.5]]
    events += [rewarded(group, reward) for group, reward in zip(groups, rewards, strict=True)]
    with fed(tmp_path / "demo", [*events, step("solver", 1, groups)]) as feeder:
        async with dashboard(feeder.folder, feeder.writer.reader()) as client:
            await caught_up(client)
            page = await get(client, "/api/informative")
            assert [card["id"] for card in page["cards"]] == [groups[1], groups[2], groups[0]]
            part = await get(client, "/api/informative", limit="1", first="1")
            assert [card["id"] for card in part["cards"]] == [groups[2]] and part["next"] == 2
            assert (await get(client, "/api/informative", first="2"))["next"] is None


async def test_curves_and_stages_tell_what_the_log_holds(tmp_path: Path) -> None:
    with fed(tmp_path / "demo", [SCORED, *ordinary(4)]) as feeder:
        async with dashboard(feeder.folder, feeder.writer.reader()) as client:
            state = await caught_up(client)
            totals = {stage["stage"]: stage["total"] for stage in state["stages"]}
            assert totals == {
                **{"propose": 4, "code": 4, "render": 8, "answer": 16},
                **{"train/proposer": 0, "train/coder": 0, "train/solver": 2},
            }
            assert state["roles"]["solver"]["version"] == 2 and not state["error"]
            assert state["server"] is None  # nobody has a page open, so nobody was asked
            curves = await get(client, "/api/curves")
            solver = curves["roles"]["solver"]["columns"]
            assert solver["step"] == [1, 2]
            assert solver["reward"] == pytest.approx([0.55, 0.55])
            assert solver["hard_consistency"] == [0.5, 0.5]  # 3 and 3 of 3, 3, 11, 4
            [score] = curves["heldout"]
            assert (score["version"], score["hard"]["share"]) == (0, 0.4)


async def test_a_page_that_is_open_is_told_of_what_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmzero_async.ops.ui.server.ALIVE_SECONDS", 0.1)
    with fed(tmp_path / "demo") as feeder:
        async with dashboard(feeder.folder, feeder.writer.reader()) as client:
            line = await client.get("/api/events")
            assert line.content_type == "text/event-stream"
            feeder.write([WorkerJoined(worker="coder-0", role="coder", host="h", pid=1)])
            feeder.write(ordinary(1))
            async with asyncio.timeout(60):
                while True:
                    said = (await line.content.readuntil(b"\n\n")).decode()
                    data = re.match(r"event: state\ndata: (.*)\n\n\Z", said)
                    if data is None:
                        continue  # a sign of life
                    state = json.loads(data[1])
                    if state["read"] == feeder.writer.next_offset and state["server"]:
                        break
            assert state["newest_picture"] > 0
            assert [(w["worker"], w["state"]) for w in state["workers"]] == [("coder-0", "unknown")]
            assert "not running" in state["server"]
            line.close()
            async with asyncio.timeout(60):  # what nobody asks for any more is not told
                while (await get(client, "/api/state"))["server"] is not None:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)


async def test_the_audit_finds_every_promise_kept_or_says_which_is_not(tmp_path: Path) -> None:
    async def audited(client: TestClient) -> dict[str, Any]:
        assert (await client.post("/api/audit")).status == 202
        async with asyncio.timeout(60):
            while True:
                told = (await get(client, "/api/state"))["audit"]
                if told["state"] == "done":
                    return told
                await asyncio.sleep(0.05)

    with fed(tmp_path / "demo", ordinary(4)) as feeder:
        async with dashboard(feeder.folder, feeder.writer.reader()) as client:
            told = await audited(client)
            assert told["problems"] == [] and told["read"] == feeder.writer.next_offset
            assert told["roles"]["solver"]["trained"] == 4
            feeder.write([step("solver", 9, ["g0.s0.d0"])])  # out of order, and trained before
            assert "g0.s0.d0" in " ".join((await audited(client))["problems"])


async def test_moments_lie_in_order_within_the_run(tmp_path: Path) -> None:
    with fed(tmp_path / "demo", ordinary(6)) as feeder:
        async with dashboard(feeder.folder, feeder.writer.reader()) as client:
            end = (await caught_up(client))["end"]
            found = await get(client, "/api/moments")
            assert [one["key"] for one in found[:3]] == ["start", "middle", "end"]
            assert all(0 <= one["after"] <= one["before"] <= end for one in found)
            last = found[2]
            picked = await names(client, after=str(last["after"]), before=str(last["before"]))
            assert picked and set(picked) <= {"g5.s0.d0", "g5.s0.d1", "g4.s0.d1"}


# --- what is hostile ------------------------------------------------------------------------------


async def test_hostile_words_come_as_the_text_that_they_are(tmp_path: Path) -> None:
    with fed(tmp_path / "demo", [*ordinary(1), *hostile_tree("g7")]) as feeder:
        async with dashboard(feeder.folder, feeder.writer.reader()) as client:
            answer = await client.get("/api/drawings/g7.s0.d0")
            assert answer.content_type == "application/json"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            told = await answer.json()
            assert all(text in told["caption"] for text in HOSTILE)
            assert told["code"] == HOSTILE[2]
            state = await client.get("/api/state")
            assert json.loads(await state.text())["run"] == "demo"


@pytest.mark.parametrize(
    "blob", [HOSTILE[2].encode(), b"<!doctype html><script>1</script>", b"GIF89a", b""]
)
async def test_a_blob_that_is_no_png_is_never_sent(tmp_path: Path, blob: bytes) -> None:
    with fed(tmp_path / "demo") as feeder:
        feeder.write(whole_tree("g0", proposals=1, drawings=1), blob=blob)
        async with dashboard(feeder.folder, feeder.writer.reader()) as client:
            answer = await client.get(f"/api/pictures/{blob_digest(blob)}.png")
            assert answer.status == 415
            assert not blob or blob not in await answer.read()


@pytest.mark.parametrize(
    "path",
    [
        "pictures/zz.png",
        f"pictures/{'0' * 64}.png",
        "drawings/g0",
        "drawings/%2e%2e",
        "drawings/g0.s0.d0",
    ],
)
async def test_what_is_not_there_is_said_to_be_not_there(tmp_path: Path, path: str) -> None:
    with fed(tmp_path / "demo") as feeder:
        async with dashboard(feeder.folder, feeder.writer.reader()) as client:
            assert (await client.get(f"/api/{path}")).status == 404


async def test_every_answer_forbids_what_the_page_does_not_need(tmp_path: Path) -> None:
    with fed(tmp_path / "demo", ordinary(1)) as feeder:
        async with dashboard(feeder.folder, feeder.writer.reader()) as client:
            answers = [
                await client.get(path)
                for path in (
                    "/",
                    "/static/app.js",
                    "/api/state",
                    "/nowhere",
                    "/api/drawings?limit=x",
                )
            ]
            answers += [await client.post("/"), await client.get("/api/events")]
            assert {answer.status for answer in answers} == {200, 400, 404, 405}
            for answer in answers:
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy and "unsafe" not in policy
                assert "require-trusted-types-for 'script'" in policy
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                answer.close()


def test_the_page_has_no_script_style_or_address_but_its_own() -> None:
    files = [file for file in STATIC.rglob("*") if file.suffix in (".html", ".js", ".css")]
    assert len(files) > 8
    for file in files:
        text = file.read_text()
        elsewhere = re.findall(r"(?:src|href|import|url)\W{1,3}https?:[^\s\"')]+", text)
        assert not elsewhere, f"{file}: {elsewhere}"
        if file.parent.name == "vendor":
            continue
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
        if file.suffix == ".html":
            assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", text)


# --- who may look ---------------------------------------------------------------------------------


async def test_with_a_token_nobody_looks_without_it(tmp_path: Path) -> None:
    with fed(tmp_path / "demo", ordinary(1)) as feeder:
        async with dashboard(feeder.folder, feeder.writer.reader(), token="se-cret") as client:
            for path in ("/", "/static/app.js", "/api/state", "/api/events", "/api/drawings"):
                for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "mmzero_ui=é"}):
                    answer = await client.get(path, headers=headers)
                    assert answer.status == 401, path
                    assert "se-cret" not in await answer.text()
            assert (await client.get("/?token=wrong")).status == 401
            assert (await client.get("/api/state?token=se-cret")).status == 401
            odd = b"GET /api/state HTTP/1.1\r\nHost: x\r\nCookie: mmzero_ui=\xff\xfe\r\n\r\n"
            reader, writer = await asyncio.open_connection(client.host, client.port)
            writer.write(odd)
            assert b" 401 " in await reader.readline()
            writer.close()
            bearer = {"Authorization": "Bearer se-cret"}
            assert (await client.get("/api/state", headers=bearer)).status == 200
            assert (await client.post("/api/audit")).status == 401
            entered = await client.get("/?token=se-cret", allow_redirects=False)
            assert (entered.status, entered.headers["Location"]) == (303, "/")
            cookie = entered.headers["Set-Cookie"]
            assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
            sent = {"Cookie": cookie.partition(";")[0]}
            assert (await client.get("/api/state", headers=sent)).status == 200


async def test_another_site_can_neither_look_nor_change_anything(tmp_path: Path) -> None:
    with fed(tmp_path / "demo", ordinary(1)) as feeder:
        async with dashboard(feeder.folder, feeder.writer.reader()) as client:
            for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:8600"):
                assert (await client.get("/api/state", headers={"Host": host})).status == 403
            for host in ("localhost:8600", "127.0.0.1", "[::1]:8600"):
                assert (await client.get("/api/state", headers={"Host": host})).status == 200
            elsewhere = {"Origin": "http://evil.example"}
            assert (await client.post("/api/audit", headers=elsewhere)).status == 403
            assert (await get(client, "/api/state"))["audit"]["state"] == "none"


async def test_pages_that_are_open_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmzero_async.ops.ui.server.WATCHERS", 2)
    with fed(tmp_path / "demo") as feeder:
        async with dashboard(feeder.folder, feeder.writer.reader()) as client:
            lines = [await client.get("/api/events") for _ in range(3)]
            assert [line.status for line in lines] == [200, 200, 503]
            for line in lines:
                line.close()


# --- the command ----------------------------------------------------------------------------------


def started(run: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """`mmzero ui`, and the address that it prints."""
    command = [sys.executable, "-m", "mmzero_async.ops.cli", "ui", str(run), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline()


@pytest.mark.parametrize(("host", "token"), [("127.0.0.1", False), ("0.0.0.0", True)])
async def test_the_command_says_where_and_asks_for_a_token_beyond_this_machine(
    tmp_path: Path, host: str, token: bool
) -> None:
    with fed(tmp_path / "demo", ordinary(1)):
        pass
    process, said = await asyncio.to_thread(
        started, tmp_path / "demo", "--host", host, "--port", "0"
    )
    try:
        assert said.startswith("demo: http://"), process.communicate()
        assert ("?token=" in said) is token
        port = int(re.search(r":(\d+)/", said)[1])
        shown = said.strip().partition("?token=")[2]
        sent = {"Authorization": f"Bearer {shown}"}
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/", headers=sent) as page:
                assert page.status == 200
            async with session.get(f"http://127.0.0.1:{port}/") as page:
                assert page.status == (401 if token else 200)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, process.stderr.read() if process.stderr else ""


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with fed(tmp_path / "demo"):
        pass
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process, _ = started(tmp_path / "demo", "--port", str(port))
        _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert str(port) in error and "--port" in error and "Traceback" not in error


def test_a_reader_that_is_remembered_reads_on_and_forgets(tmp_path: Path) -> None:
    with fed(tmp_path / "demo", whole_tree("g0", proposals=1, drawings=1)) as feeder:
        gallery = Gallery(feeder.writer.reader())
        assert gallery.whole("g0.s0.d0")["groups"]["solver"]["state"] == "waiting"
        feeder.write([step("solver", 4, ["g0.s0.d0"])])
        assert gallery.whole("g0.s0.d0")["groups"]["solver"]["step"] == 4
        feeder.write(ordinary(galleries.TREES + 5, first=1))
        assert len(gallery.newest(None, 0, 10_000, Wanted()).cards) == 2 * (galleries.TREES + 5) + 1
        assert len(gallery._trees) == galleries.TREES
