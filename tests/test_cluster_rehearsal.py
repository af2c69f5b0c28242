"""A real cluster on one machine: hosts as network namespaces, `mmzero run-cluster`, and faults.

All is real but the engine (pipeline_children.py) and the model, which is tiny. With vLLM, the
seedling and every fault in full: `just cluster-demo`. Where namespaces cannot be made the hosts
are loopback addresses, which is said, and the faults of links are left out.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from terminal import Screen, on_terminal
from test_trackers import assert_shown_once

from mmzero_async.config import differences, load
from mmzero_async.ops.cluster.rehearsal.demo import Engine, late, rehearse
from mmzero_async.ops.cluster.rehearsal.hosts import Hosts, rehearsal_hosts, until_open
from mmzero_async.ops.cluster.rehearsal.scene import PORTS, Roles, audit, playing, write_inventory
from mmzero_async.schemas.events import AnyEvent, StepCommitted

ENGINE_PORT = 8702


def as_override(key: str, value: Any) -> str:
    return f"{key}={json.dumps(msgspec.to_builtins(value))}"


def fake_engine(tiny_folder: Path) -> Engine:
    """On beta, with the tiny model's settings."""
    from torture_pipeline import settings

    @contextlib.asynccontextmanager
    async def engine(hosts: Hosts) -> AsyncIterator[Sequence[str]]:
        beta = hosts.hosts["beta"]
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
        code += "import pipeline_children; pipeline_children.engine()"
        command = beta.command(sys.executable, "-c", code, str(ENGINE_PORT), beta.address)
        child = await asyncio.create_subprocess_exec(*command)
        try:
            await until_open(beta.address, ENGINE_PORT)
            changed = differences(load("seedling"), settings(tiny_folder, 1))
            overrides = {key: new for key, (_, new) in changed.items() if key[:4] != "log."}
            overrides |= {"engine.url": f"http://{beta.address}:{ENGINE_PORT}", "log.map_gib": 1}
            overrides |= {"run.max_minutes": 0}
            yield [as_override(key, value) for key, value in overrides.items()]
        finally:
            child.kill()
            await child.wait()

    return engine


@pytest.mark.slow
@pytest.mark.timeout(1500)
async def test_a_cluster_survives_its_faults_and_every_promise_is_kept(
    tmp_path: Path, tiny_folder: Path
) -> None:
    engine = fake_engine(tiny_folder)
    found = await rehearse(tmp_path / "c", engine, short=True)
    [hosts] = [f for f in found if "hosts" in f]
    if not hosts["namespaces"]:
        [left_out] = [f for f in found if "left_out" in f]
        warnings.warn(f"no network namespaces: {left_out}", stacklevel=1)
    assert len(hosts["hosts"]) == 5 and len(set(hosts["hosts"].values())) == 5
    faults = [f["fault"] for f in found if "fault" in f]
    assert len(faults) == (9 if hosts["namespaces"] else 7), faults
    assert late(found) == []
    for fault in found:
        assert fault.get("processes_lived_on", True) and not fault.get("missed"), fault
    [drained] = [f for f in found if f.get("fault") == "drain gamma"]
    assert drained["left"] == ["goodbye"]
    [secrets] = [f for f in found if f.get("event") == "secrets"]
    # The server's, the driver's and the engine's, and one of each host; many processes were seen.
    assert secrets["secrets"] == 3 + 5 and secrets["processes"] > 20 and secrets["files"] > 20
    assert secrets["told_by"] == []
    [stopped] = [f for f in found if f.get("event") == "stopped"]
    assert stopped["status"] == 0
    assert found[-1]["clean"] and found[-1]["secrets_left"] == [], found[-1]
    assert found[-1]["audit"]["events"] > 0, found[-1]


TWO_LEARNERS: Roles = {
    "alpha": {"log": 1, "learner": 1, "proposer": 1, "solver": 1},
    "beta": {"learner": 1, "coder": 1, "renderer": 1},
}


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_learner_on_two_hosts_is_one_and_the_logs_host_has_the_lines_of_both(
    tmp_path: Path, tiny_folder: Path
) -> None:
    """Its ranks make every step together, and a rank that is killed costs no promise."""
    folder, steps = tmp_path / "c", list[StepCommitted]()
    async with (
        rehearsal_hosts(folder / "net", list(TWO_LEARNERS)) as hosts,
        fake_engine(tiny_folder)(hosts) as overrides,
    ):
        inventory = write_inventory(hosts, folder, TWO_LEARNERS, overrides, PORTS)
        async with playing(hosts, folder, inventory, "alpha", 400.0) as scene:

            def step(event: AnyEvent) -> bool:
                return isinstance(event, StepCommitted)

            await scene.event(0.0, step, "a first step")
            moment = time.monotonic()
            os.kill(await scene.pid("beta.learner-0"), signal.SIGKILL)

            def back(process: str) -> float:
                return scene.first_told(moment, "process started again", process=process)

            await scene.until(lambda: back("beta.learner-0"), "a launcher comes back")
            ended = await scene.until(lambda: back("alpha.learner-0"), "the other ended with it")
            await scene.event(ended, step, "a step after it")
            await scene.stop()
            steps += [event for _, event in scene.seen if isinstance(event, StepCommitted)]
    assert {event.metrics["ranks"] for event in steps} == {2.0}
    told = await audit(folder)
    assert told["clean"] and told["secrets_left"] == [], told
    lines = folder / "alpha" / "r" / "logs" / "hosts" / "beta.jsonl"
    collected = [json.loads(line) for line in lines.read_text().splitlines()]
    assert {line["host"] for line in collected} == {"beta"}
    processes = {line["process"] for line in collected}
    assert {"beta.coder-0", "beta.renderer-0", "beta.learner-0.1", "host-agent"} <= processes


TWO_HOSTS: Roles = {
    "alpha": {"log": 1, "learner": 1, "proposer": 1, "solver": 1},
    "beta": {"coder": 1, "renderer": 1},
}


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_on_a_terminal_a_cluster_has_its_table_and_its_tracker_every_figure_once(
    tmp_path: Path, tiny_folder: Path
) -> None:
    """Stopped by Ctrl-C after a step, and gone on with by the same command."""
    pytest.importorskip("tensorboard")
    folder = tmp_path / "c"
    async with (
        rehearsal_hosts(folder / "net", list(TWO_HOSTS)) as hosts,
        fake_engine(tiny_folder)(hosts) as overrides,
    ):
        overrides = [*overrides, as_override("tracker.kind", "tensorboard")]
        inventory = write_inventory(hosts, folder, TWO_HOSTS, overrides, PORTS)
        first = await asyncio.to_thread(until_shown, inventory, folder, "v1")
        second = await asyncio.to_thread(until_shown, inventory, folder, "train/solver")
    for screen in first, second:
        hidden, shown = screen.text.rfind("\x1b[?25l"), screen.text.rfind("\x1b[?25h")
        assert -1 < hidden < shown, "the cursor is back"
        for words in ("per min", "render success", "stopped; the same command goes on"):
            assert words in screen.plain, screen.plain[-2000:]
    assert_shown_once(folder / "alpha" / "r")
    told = await audit(folder)
    assert told["clean"] and told["secrets_left"] == [], told


def until_shown(inventory: Path, folder: Path, words: str) -> Screen:
    """`mmzero run-cluster` on a terminal until its table shows the words; then Ctrl-C."""
    at = folder / "driver"
    with on_terminal("run-cluster", inventory, "--run", at) as screen:
        screen.read_until("train/solver", 300)
        seen = subprocess.run(
            [sys.executable, "-m", "mmzero_async.ops.cli", "cluster", "status", "--run", str(at)],
            capture_output=True,
            text=True,
        )
        assert re.search(r"^ +tracker  pid \d+$", seen.stdout, re.MULTILINE), seen
        screen.read_until(words, 300)
        screen.process.send_signal(signal.SIGINT)
        assert screen.end(300) == 0, screen.plain[-2000:]
    return screen
