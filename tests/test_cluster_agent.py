"""A host's agent over a real SSH line: it starts, keeps and ends processes, outlives the line."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import psutil
import pytest
from msgspec.structs import replace

from mmzero_async.config import Config
from mmzero_async.ops.cluster import about
from mmzero_async.ops.cluster import words as w
from mmzero_async.ops.cluster.inventory import Ssh
from mmzero_async.ops.cluster.link import HostRefused, Line, LinkLost, opened
from mmzero_async.ops.cluster.plan import PlannedHost
from mmzero_async.ports import free_port

PATIENCE = 100.0
SECRET = "a-secret-that-nobody-may-see"
SLEEP = [sys.executable, "-c", "import time; time.sleep(1000)"]


@dataclass
class Shore:
    """A host with an SSH server, as a driver's plan has it."""

    host: PlannedHost


@pytest.fixture
async def shore(tmp_path: Path) -> AsyncIterator[Shore]:
    ours, theirs = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    files = tmp_path / "host_key", tmp_path / "authorized"
    theirs.write_private_key(str(files[0]))
    ours.write_private_key(str(tmp_path / "id"))
    ours.write_public_key(str(files[1]))
    port = free_port("127.0.0.1", 0, key="ssh.port")
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {theirs.export_public_key().decode()}")
    command = [sys.executable, "-m", "mmzero_async.ops.cluster.rehearsal.sshd", "127.0.0.1"]
    server = await asyncio.create_subprocess_exec(*command, str(port), *map(str, files))
    await until(lambda: answers(port))
    run_dir = tmp_path / "h" / "run"
    host = PlannedHost(
        name="alpha",
        address="127.0.0.1",
        ssh=Ssh(port=port, identity=str(tmp_path / "id"), known_hosts=str(known)),
        python=sys.executable,
        run_dir=str(run_dir),
        base_model="",
        gpus=(),
        secrets=(),
        needs_base=False,
    )
    yield Shore(host)
    server.kill()
    await server.wait()
    for agent in agents_of(run_dir):
        agent.kill()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def agents_of(run_dir: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = process.cmdline()
            if "mmzero_async.ops.cluster.agent" in line and str(run_dir) in line:
                found.append(process)
    return found


def written_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def hello(driver: str = "") -> w.Hello:
    return w.Hello(driver=driver or uuid.uuid4().hex, who="a test")


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - other processes cannot be awaited
            await asyncio.sleep(0.05)


async def child_of(line: Line, name: str, wanted: Callable[[w.ChildState], Any]) -> w.ChildState:
    async with asyncio.timeout(PATIENCE):
        while True:
            for child in (await line.ask(w.Look())).children:
                if child.name == name and wanted(child):
                    return child
            await asyncio.sleep(0.05)


@pytest.mark.timeout(300)
async def test_a_host_does_what_it_is_told_and_leaves_nothing_behind(shore):
    run_dir = Path(shore.host.run_dir)
    async with opened(shore.host, hello(), 60.0) as (line, theirs):
        assert about.difference(about.about(), theirs) == ""
        secrets = {"alpha.key_secret": SECRET, "authorized/a.key": "public"}
        reply = await line.ask(
            w.Prepare(config=Config().to_json(), base_model="", needs_base=True, secrets=secrets)
        )
        assert len(reply.base_digest) == 16 and reply.free_bytes > 0
        assert (run_dir / "config.json").read_text() == Config().to_json()
        modes = {p.name: p.stat().st_mode & 0o777 for p in (run_dir / "keys").rglob("*")}
        assert modes == {"alpha.key_secret": 0o600, "authorized": 0o700, "a.key": 0o644}
        assert (run_dir / "agent.sock").stat().st_mode & 0o777 == 0o600

        await line.ask(w.Start(name="a", command=SLEEP, env={"COLOUR": "green"}))
        first = await child_of(line, "a", lambda c: c.pid)
        assert psutil.Process(first.pid).environ()["COLOUR"] == "green"
        await line.ask(w.Start(name="a", command=SLEEP, env={"COLOUR": "green"}))
        assert (await child_of(line, "a", lambda c: c.pid)).pid == first.pid

        os.kill(first.pid, signal.SIGKILL)
        second = await child_of(line, "a", lambda c: c.pid and c.pid != first.pid)
        assert second.restarts == 1
        await line.ask(w.Restart(name="a"))
        third = await child_of(line, "a", lambda c: c.pid and c.pid != second.pid)
        assert third.restarts == 2 and not psutil.pid_exists(second.pid)

        hopeless = [sys.executable, "-c", "import sys; print('no key'); sys.exit(78)"]
        await line.ask(w.Start(name="b", command=hopeless))
        assert "no key" in (await child_of(line, "b", lambda c: c.given_up)).given_up
        await line.ask(w.Start(name="c", command=[sys.executable, "-c", ""]))
        await child_of(line, "c", lambda c: c.ended)

        for bad in ("../config.json", "/etc/x", "authorized/../../x", "other/x"):
            with pytest.raises(HostRefused, match="no file of the folder of keys"):
                await line.ask(
                    w.Prepare(
                        config=Config().to_json(),
                        base_model="",
                        needs_base=False,
                        secrets={bad: ""},
                    )
                )
        with pytest.raises(HostRefused, match="keeps no nobody"):
            await line.ask(w.Restart(name="nobody"))
        await line.ask(w.Stop(name="a"))
        assert not psutil.pid_exists(third.pid)

        await line.ask(w.Start(name="d", command=SLEEP))
        last = await child_of(line, "d", lambda c: c.pid)
        [agent] = agents_of(run_dir)
        await line.ask(w.End())
    await until(lambda: not agent.is_running())
    assert not psutil.pid_exists(last.pid) and not (run_dir / "keys").exists()
    assert b"agent ready" in written_in(run_dir) and SECRET.encode() not in written_in(run_dir)


@pytest.mark.timeout(300)
async def test_processes_live_on_while_the_line_is_down_and_the_same_driver_finds_them(shore):
    me = hello()
    async with opened(shore.host, me, 60.0) as (line, _):
        await line.ask(w.Start(name="a", command=SLEEP))
        before = await child_of(line, "a", lambda c: c.pid)
        # A driver of another run, or of this one started twice, is told whose it is.
        with pytest.raises(HostRefused, match="is driven by a test already"):
            async with opened(shore.host, hello(), 60.0):
                pass
    # The line is gone without a word; the same driver comes back, over another.
    async with opened(shore.host, me, 60.0) as (line, _):
        after = await child_of(line, "a", lambda c: c.pid)
        assert after == before
        async with opened(shore.host, me, 60.0) as (newer, _):
            with pytest.raises(LinkLost):
                await line.ask(w.Look())
            assert await child_of(newer, "a", lambda c: c.pid) == before
            await newer.ask(w.End())


@pytest.mark.timeout(300)
async def test_a_host_without_a_driver_for_too_long_stops_and_forgets_its_secrets(shore):
    run_dir = Path(shore.host.run_dir)
    prepare = w.Prepare(
        config=Config().to_json(),
        base_model="",
        needs_base=False,
        secrets={"alpha.key_secret": SECRET},
    )
    async with opened(shore.host, hello(), 1.5) as (line, _):
        await line.ask(prepare)
        await line.ask(w.Start(name="a", command=SLEEP))
        child = await child_of(line, "a", lambda c: c.pid)
        [agent] = agents_of(run_dir)
    await until(lambda: not agent.is_running())
    assert not psutil.pid_exists(child.pid) and not (run_dir / "keys").exists()


@pytest.mark.timeout(300)
async def test_a_killed_agent_takes_its_processes_along_and_another_takes_its_place(shore):
    me = hello()
    async with opened(shore.host, me, 60.0) as (line, _):
        await line.ask(w.Start(name="a", command=SLEEP))
        child = await child_of(line, "a", lambda c: c.pid)
        [agent] = agents_of(Path(shore.host.run_dir))
        agent.kill()
        with pytest.raises(LinkLost):
            await line.ask(w.Look())
    await until(lambda: not psutil.pid_exists(child.pid))
    async with opened(shore.host, me, 60.0) as (line, _):
        assert (await line.ask(w.Look())).children == []
        await line.ask(w.End())


async def refused(host: PlannedHost) -> str:
    with pytest.raises((HostRefused, LinkLost)) as error:
        async with opened(host, hello(), 60.0):
            pass
    return f"{type(error.value).__name__}: {error.value}"


@pytest.mark.timeout(300)
async def test_a_host_that_cannot_be_used_says_why_and_what_to_do(shore, tmp_path):
    host, ssh = shore.host, shore.host.ssh
    bare = tmp_path / "python"  # one that has nothing installed
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -IS "$@"\n')
    bare.chmod(0o755)
    said = await refused(replace(host, python=str(bare)))
    assert said.startswith("HostRefused") and "./launch setup" in said and "No module named" in said
    said = await refused(replace(host, python="/nowhere/python"))
    assert said.startswith("HostRefused") and "./launch setup" in said

    port = free_port("127.0.0.1", 0, key="ssh.port")
    said = await refused(replace(host, ssh=replace(ssh, port=port)))
    assert said.startswith("LinkLost") and f"alpha (127.0.0.1:{port})" in said
    said = await refused(replace(host, address="nowhere.invalid"))
    assert said.startswith("HostRefused") and "alpha (nowhere.invalid" in said
    said = await refused(replace(host, ssh=replace(ssh, known_hosts=str(tmp_path / "absent"))))
    assert said.startswith("HostRefused") and "is no file" in said
    (tmp_path / "nobody").write_text("")
    said = await refused(replace(host, ssh=replace(ssh, known_hosts=str(tmp_path / "nobody"))))
    assert said.startswith("HostRefused") and "ssh-keyscan" in said
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(tmp_path / "strange"))
    said = await refused(replace(host, ssh=replace(ssh, identity=str(tmp_path / "strange"))))
    assert said.startswith("HostRefused") and "authorized_keys" in said


def test_two_machines_with_other_code_are_told_apart_and_both_are_named():
    ours = about.about()
    assert about.difference(ours, ours) == ""
    for other in (
        replace(ours, version="0.0.9"),
        replace(ours, schema=99),
        replace(ours, code="0" * 16, commit="f" * 40),
    ):
        said = about.difference(ours, other)
        for word in (ours.code, other.version, str(other.schema), other.code):
            assert word in said
    assert about.difference(ours, replace(ours, python="3.12.1", commit="")) == ""
