"""Rows that several processes make: the bytes of one alone, whoever is killed; nobody stays."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import get_native_id
from typing import Any

import pytest
from dataset_runs import everything, lineage, story, write_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from typer.testing import CliRunner

from mmzero_async.ops.cli import app
from mmzero_async.ops.datasets import shards, tasks
from mmzero_async.ops.datasets.export import export
from mmzero_async.ops.datasets.manifest import MANIFEST
from mmzero_async.ops.datasets.options import FORMATS, KINDS, DatasetError, options
from mmzero_async.schemas.events import Proposed


def twice_told(name: str, source: str) -> list[Any]:
    """A lineage whose proposals say what those of another say."""
    said = next(it for it in lineage(source) if isinstance(it, Proposed))
    return [
        replace(it, topic=said.topic, outcomes=said.outcomes, generation=said.generation)
        if isinstance(it, Proposed)
        else it
        for it in lineage(name)
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repeated = [it for n in range(30, 36) for it in twice_told(f"g{n}", f"g{n - 25}")]
    return write_run(tmp_path_factory.mktemp("runs") / "demo", [*story(30), *repeated])


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(shards, "GROUP_ROWS", 5)
    monkeypatch.setattr(tasks, "GROUPS", 2)
    yield
    assert not children(), "a process stayed"


def children() -> list[int]:
    path = Path(f"/proc/self/task/{get_native_id()}/children")
    return [int(pid) for pid in path.read_text().split()]


class Stopped(Exception):
    pass


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    kind=st.sampled_from(KINDS),
    form=st.sampled_from(FORMATS),
    split=st.sampled_from(["", "0.5/0.5", "0.8/0.1/0.1"]),
    deduplicate=st.booleans(),
    where=st.sampled_from(["", "version=1", "reward=0.5.."]),
    groups=st.integers(1, 40),
    processes=st.integers(2, 3),
    at=st.integers(1, 60),
)
def test_any_number_of_processes_gives_the_bytes_of_one_stopped_or_not(
    run: Path,
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    form: str,
    split: str,
    deduplicate: bool,
    where: str,
    groups: int,
    processes: int,
    at: int,
) -> None:
    folder = tmp_path_factory.mktemp("made")
    wanted = options(kind, form, where, split, deduplicate=deduplicate, shard_mb=0.003)
    try:
        export(run, folder / "one", wanted, processes=1)
    except DatasetError as error:
        with pytest.raises(DatasetError, match="nothing to write"):
            export(run, folder / "several", wanted, processes=processes)
        assert "nothing to write" in str(error)
        return
    seen = 0

    def stop(done: int, of: int) -> None:
        nonlocal seen
        seen += 1
        if seen == at:
            raise Stopped

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tasks, "GROUPS", groups)
        with suppress(Stopped):
            export(run, folder / "several", wanted, processes=processes, told=stop)
        assert not children()
        assert (folder / "several" / MANIFEST).exists() == (seen < at)
        export(run, folder / "several", wanted, processes=processes, resume=True)
    assert everything(folder / "several") == everything(folder / "one")


def test_what_is_said_twice_is_left_out_once_whichever_process_had_it(
    run: Path, tmp_path: Path
) -> None:
    manifest, _ = export(run, tmp_path / "d", options("proposer"), processes=3)
    assert manifest.counts.left_out == {"duplicate": 6}


KILLED = """
import os, signal, sys, threading
from pathlib import Path
from mmzero_async.ops.datasets import shards, tasks
from mmzero_async.ops.datasets.export import export
from mmzero_async.ops.datasets.options import options
shards.GROUP_ROWS, tasks.GROUPS = 5, 2
seen = 0
def told(done, of):
    global seen
    seen += 1
    if seen == 25:
        main = threading.get_native_id()
        print(Path(f"/proc/self/task/{main}/children").read_text(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
wanted = options("solver", split="0.6/0.4", shard_mb=0.003)
export(Path(sys.argv[1]), Path(sys.argv[2]), wanted, processes=2, told=told)
"""


def test_killed_it_leaves_no_process_and_goes_on(run: Path, tmp_path: Path) -> None:
    child = [sys.executable, "-c", KILLED, str(run), str(tmp_path / "d")]
    ended = subprocess.run(child, stdout=subprocess.PIPE, text=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    makers = ended.stdout.split()
    assert len(makers) == 2
    for pid in makers:
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(int(pid))
            assert select.select([descriptor], [], [], 60)[0], "it outlives who asked it"
            os.close(descriptor)
    wanted = options("solver", split="0.6/0.4", shard_mb=0.003)
    export(run, tmp_path / "d", wanted, processes=2, resume=True)
    export(run, tmp_path / "whole", wanted, processes=1)
    assert everything(tmp_path / "d") == everything(tmp_path / "whole")


def test_a_process_that_is_killed_is_told_and_the_export_goes_on_afterwards(
    run: Path, tmp_path: Path
) -> None:
    killed = False

    def told(done: int, of: int) -> None:
        nonlocal killed
        if not killed:
            killed = True
            os.kill(children()[0], signal.SIGKILL)

    with pytest.raises(DatasetError, match=r"status -9 .*--resume"):
        export(run, tmp_path / "d", options(), processes=2, told=told)
    export(run, tmp_path / "d", options(), processes=2, resume=True)
    export(run, tmp_path / "whole", options(), processes=1)
    assert everything(tmp_path / "d") == everything(tmp_path / "whole")


def test_ctrl_c_ends_all_of_them(run: Path, tmp_path: Path) -> None:
    def told(done: int, of: int) -> None:
        assert len(children()) == 2
        signal.raise_signal(signal.SIGINT)

    # Who starts the tests in the background has SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            export(run, tmp_path / "d", options(), processes=2, told=told)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not children()


def test_a_number_of_processes_below_one_is_refused(run: Path, tmp_path: Path) -> None:
    words = ["dataset", str(run), "--out", str(tmp_path / "d"), "--processes", "0"]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 1 and "--processes 0" in str(refused.exception)
