"""A cluster that refuses, as its commands tell it: in words, with exit status 1."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import asyncssh
import pytest
from test_cli import write_run
from test_cluster_agent import Shore, shore  # noqa: F401 - a fixture
from test_cluster_plan import two_hosts

import mmzero_async
from mmzero_async.config import load
from mmzero_async.ops import cli
from mmzero_async.ops.cluster.commands import read
from mmzero_async.ops.cluster.control import SOCKET, taking_orders
from mmzero_async.ops.cluster.driver import Driver
from mmzero_async.ports import free_port
from mmzero_async.transport.keys import new_keys

OVERRIDES = ["engine.url=http://127.0.0.1:9", "log.map_gib=1"]
ROLES = "{ log = 1, learner = 1, proposer = 1, coder = 1, renderer = 1, solver = 1 }"


def refused(*arguments: str | Path, path: Path | None = None) -> str:
    """What `mmzero` says to people. `path`: where its package is looked for first."""
    env = {**os.environ, "COLUMNS": "400"} | ({"PYTHONPATH": str(path)} if path else {})
    command = [sys.executable, "-m", "mmzero_async.ops.cli", *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, env=env, cwd=path)
    assert ran.returncode == 1 and ran.stderr.startswith("mmzero: "), ran
    return ran.stderr


def another_version(folder: Path) -> Path:
    """A folder with this package in it, but for its version."""
    assert mmzero_async.__file__ is not None and cli.__file__ is not None
    package = folder / "mmzero_async"
    package.mkdir(parents=True)
    rooms = Path(cli.__file__).parent.parent
    for entry in (*Path(mmzero_async.__file__).parent.iterdir(), rooms / "ops"):
        if entry.name != "__init__.py" and entry.name != "__pycache__":
            (package / entry.name).symlink_to(entry)
    for room in ("schemas", "workers"):
        (package / room).symlink_to(rooms / room)
    (package / "__init__.py").write_text('__version__ = "0.0.9"\n')
    return folder


# --- hosts ----------------------------------------------------------------------------------------


def inventory(at: Shore, folder: Path, *, python: str = sys.executable, **ssh: object) -> Path:
    """Of one host, with everything on it but the engine."""
    host, ports = at.host, [free_port("127.0.0.1", 0, key="port") for _ in range(2)]
    given = {"identity": host.ssh.identity, "known_hosts": host.ssh.known_hosts} | ssh
    words = [f'{key} = "{value}"' for key, value in given.items()]
    path = folder / "cluster.toml"
    path.write_text(
        f'run = "run"\nkeys = "{folder / "keys"}"\npython = "{python}"\n'
        f'path = "{Path(host.run_dir).parent}"\nlink_seconds = 60\noverrides = {OVERRIDES}\n'
        f"ssh = {{ port = {host.ssh.port}, {', '.join(words)} }}\n"
        f"ports = {{ log = {ports[0]}, read = {ports[1]} }}\n"
        f'[hosts.alpha]\naddress = "127.0.0.1"\nroles = {ROLES}\n'
    )
    return path


async def start_refused(path: Path) -> str:
    return await asyncio.to_thread(refused, "run-cluster", path, "--run", path.parent / "d")


@pytest.mark.timeout(300)
async def test_a_host_whose_keys_or_version_do_not_fit_is_named_and_nothing_is_started(
    shore: Shore,  # noqa: F811
    tmp_path: Path,
) -> None:
    (tmp_path / "nobody").write_text("")
    said = await start_refused(inventory(shore, tmp_path, known_hosts=tmp_path / "nobody"))
    assert "the hosts are not ready" in said and "alpha" in said and "ssh-keyscan" in said
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(tmp_path / "strange"))
    said = await start_refused(inventory(shore, tmp_path, identity=tmp_path / "strange"))
    assert "SSH does not let us in" in said and "authorized_keys" in said
    other = another_version(tmp_path / "other")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={other} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    said = await start_refused(inventory(shore, tmp_path, python=str(python)))
    assert "alpha: it has mmzero-async 0.0.9 " in said and "bring both to the same commit" in said
    assert f"this machine has mmzero-async {mmzero_async.__version__} " in said
    assert not (Path(shore.host.run_dir) / "log").exists()


@pytest.mark.timeout(300)
async def test_a_log_of_another_configuration_is_not_gone_on_with(
    shore: Shore,  # noqa: F811
    tmp_path: Path,
) -> None:
    run = Path(shore.host.run_dir)
    before = load("seedling", [*OVERRIDES, "learner.solver.groups=2"])
    write_run(run, [], before)
    path = inventory(shore, tmp_path)
    _, plan = read(path)
    both = f"started with configuration {before.digest()}, this is {plan.config.digest()}"
    said = await start_refused(path)
    assert f"alpha: {run} was {both}: give the run another name" in said
    assert (run / "config.json").read_text() == before.to_json()
    # Who took the configuration away still has the log's own word against them.
    (run / "config.json").unlink()
    assert f"the log of run was {both}" in await start_refused(path)


@pytest.mark.timeout(300)
async def test_a_driver_whose_key_the_log_server_does_not_know_is_told_which(
    shore: Shore,  # noqa: F811
    tmp_path: Path,
) -> None:
    new_keys(tmp_path / "keys", ["alpha"])
    new_keys(tmp_path / "others", ["alpha"])
    theirs = (tmp_path / "others" / "authorized" / "local.key").read_text()
    (tmp_path / "keys" / "authorized" / "local.key").write_text(theirs)
    said = await start_refused(inventory(shore, tmp_path))
    assert f"does not know the key in {tmp_path / 'keys' / 'local.key_secret'}" in said
    assert "put its public key file into the folder `authorized`" in said


# --- orders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["scale", "learner=2"], "'learner' does not scale: choose one of proposer"),
        (["scale", "solver"], "write STAGE=NUMBER"),
        (["scale", "solver=9999"], "no host"),
        (["drain", "a"], "a holds the run's log-server"),
        (["drain", "nobody"], "no host 'nobody'; there are: a, b"),
        (["join", "nobody"], "the inventory has no host 'nobody'"),
        (["join", "b"], "b takes part already"),
        (["restart", "nobody"], "the run has no process 'nobody'; there are: log-server"),
    ],
)
async def test_an_order_that_cannot_be_carried_out_is_refused_in_words(
    tmp_path: Path, words: list[str], told: str
) -> None:
    given, plan = read(two_hosts(tmp_path))
    folder = tmp_path / "d"
    driver = Driver(folder, given, plan, lambda: given, lambda _: None, lambda *_: None)
    async with taking_orders(folder, driver.carry_out):
        said = await asyncio.to_thread(refused, "cluster", *words, "--run", folder)
    driver.lock.release()
    assert told in said and len(said.splitlines()) == 1


async def test_an_order_of_another_version_is_refused_naming_both(tmp_path: Path) -> None:
    given, plan = read(two_hosts(tmp_path))
    folder, other = tmp_path / "d", another_version(tmp_path / "other")
    driver = Driver(folder, given, plan, lambda: given, lambda _: None, lambda *_: None)
    async with taking_orders(folder, driver.carry_out):
        order = "cluster", "stop", "--run", folder
        said = await asyncio.to_thread(lambda: refused(*order, path=other))
    driver.lock.release()
    assert f"this is mmzero-async 0.0.9, the driver is {mmzero_async.__version__}" in said
    assert not driver.helm.stopping.is_set()


@contextmanager
def stranger(folder: Path, answer: bytes) -> Iterator[None]:
    """Takes one order, answers so and hangs up."""
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(folder / SOCKET))
        door.listen()

        def serve() -> None:
            line, _ = door.accept()
            with line:
                line.recv(1 << 16)
                line.sendall(answer)

        thread = Thread(target=serve)
        thread.start()
        yield
        thread.join(60)


def test_an_order_that_nobody_of_ours_takes_is_refused(tmp_path: Path) -> None:
    said = refused("cluster", "status", "--run", tmp_path / "absent")
    assert "nobody drives" in said and "mmzero run-cluster" in said
    for i, (answer, told) in enumerate([(b"", "went away"), (b"?\n", "is no driver of ours")]):
        with stranger(tmp_path / str(i), answer):
            assert told in refused("cluster", "status", "--json", "--run", tmp_path / str(i))
