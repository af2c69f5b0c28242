"""`mmzero log verify | stat | backup` from outside: what they print, write, refuse and return."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from builders import whole_tree
from click.testing import Result
from test_cli import mmzero, write_run
from typer.testing import CliRunner

from mmzero_async.log.reader import LogReader
from mmzero_async.log.verify import verify
from mmzero_async.ops.cli import app
from mmzero_async.schemas.record import Record


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "demo", whole_tree("g0"))


def log(*arguments: str | Path) -> Result:
    """`mmzero log ...` in this process, which spares seconds of imports; errors are `exception`."""
    return CliRunner().invoke(app, ["log", *map(str, arguments)])


def damage(run: Path, offset: int) -> None:
    """Flips a bit of the record at an offset, also where pages of older commits hold it."""
    reader = LogReader.open(run / "log")
    body = reader.get(offset).envelope.body
    reader.close()
    data = (run / "log" / "data.mdb").read_bytes()
    assert body in data
    (run / "log" / "data.mdb").write_bytes(data.replace(body, body[:-1] + bytes([body[-1] ^ 1])))


def test_verify_tells_that_all_is_well_and_how_much_it_read(run: Path) -> None:
    verified = mmzero("log", "verify", "demo", cwd=run.parent.parent)
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.splitlines()[-1].startswith("verify: clean")
    found = json.loads(log("verify", run / "log", "--json").stdout)
    events = 1 + 1 + 2 + 4 * 3  # start, proposed, coded, and each picture rendered, answered twice
    assert (found["clean"], found["events"], found["blobs"]) == (True, events, 1)
    assert (found["pictures_named"], found["first_bad_offset"]) == (4, None)


def test_verify_names_the_first_bad_offset_goes_on_counting_and_exits_1(run: Path) -> None:
    damage(run, 5)
    damage(run, 11)
    verified = mmzero("log", "verify", run)
    assert verified.returncode == 1
    assert "16 events" in verified.stdout
    assert re.search(r"offset 5: checksum.*\n.*offset 11: checksum", verified.stdout)
    assert verified.stdout.strip().endswith("first bad offset: offset 5")
    found = log("verify", run, "--json")
    figures = json.loads(found.stdout)
    assert (found.exit_code, figures["clean"], figures["first_bad_offset"]) == (1, False, 5)
    assert figures["counts"] == {"records": 2}


def test_a_torn_log_no_log_and_a_foreign_file_are_told_in_words(run: Path, tmp_path: Path) -> None:
    os.truncate(run / "log" / "data.mdb", 3 * 4096)
    verified = log("verify", run)
    assert verified.exit_code == 1 and "cut off" in verified.stdout
    assert "is torn" in str(log("stat", run).exception)
    (tmp_path / "data.mdb").write_bytes(b"not a log" * 1000)
    for command in ("verify", "stat"):
        assert str(tmp_path) in str(log(command, tmp_path).exception)
    refused = mmzero("log", "backup", tmp_path / "nothing", tmp_path / "out")
    assert refused.returncode == 1 and "name a run's folder" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_stat_counts_events_and_bytes_by_kind_producers_and_pages(run: Path) -> None:
    found = json.loads(log("stat", run, "--json").stdout)
    assert {kind: of["events"] for kind, of in found["kinds"].items()} == {
        "run_started": 1,
        "proposed": 1,
        "coded": 2,
        "rendered": 4,
        "answered": 8,
    }
    assert all(of["bytes"] > 0 for of in found["kinds"].values())
    assert found["events"] == 16 and found["blobs"] == 1 and found["blob_bytes"] > 0
    assert found["producers"] == {"test": {"epoch": 1, "next_sequence": 16}}
    size = (run / "log" / "data.mdb").stat().st_size
    assert (found["used_pages"] + found["free_pages"]) * found["page_size"] == size
    shown = log("stat", run).stdout
    assert re.search(r"answered +8 ", shown) and "producer test: epoch 1" in shown


def test_a_backup_is_a_runs_folder_that_verifies_and_holds_the_same(
    run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "kept" / "demo"
    made = log("backup", run, out)
    assert made.exit_code == 0 and "16 events and 1 blobs copied" in made.stdout
    assert verify(out / "log").clean
    assert (
        json.loads(CliRunner().invoke(app, ["status", str(out), "--json"]).stdout)["events"] == 16
    )
    assert everything(out) == everything(run)
    assert "exists already" in str(log("backup", run, out).exception)
    assert sorted(path.name for path in out.parent.iterdir()) == ["demo"]


def everything(run: Path) -> list[Record]:
    reader = LogReader.open(run / "log")
    try:
        return list(reader.scan())
    finally:
        reader.close()


def test_a_damaged_log_is_not_kept_as_a_backup(run: Path, tmp_path: Path) -> None:
    damage(run, 5)
    assert "has damage" in str(log("backup", run, tmp_path / "out" / "x").exception)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_backup_that_finds_no_room_leaves_nothing_behind(run: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        assert "on another disk" in str(log("backup", run, disk / "out").exception)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


WRITER = textwrap.dedent("""
    import sys, os
    from pathlib import Path
    from mmzero_async.log.writer import LogWriter, Submission
    from mmzero_async.schemas.blobs import blob_digest
    from mmzero_async.schemas.events import Rendered, encode_event
    log = LogWriter(Path(sys.argv[1]), run="demo", map_gib=1)
    for i in range(10**9):
        blob = b"%d" % i * 500
        event = Rendered(drawing="g%d.s0.d0" % i, renderer="x", picture=blob_digest(blob))
        name = "p%d" % (i % 50)
        body = encode_event(event)
        message = [Submission(name, 1, i // 50, "rendered", body, {blob_digest(blob): blob})]
        (acks,) = log.append([message])
        print(acks[-1].offset, flush=True)
""")


def test_backup_and_verify_of_a_log_that_is_being_written_are_clean_and_whole(
    run: Path, tmp_path: Path
) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(run / "log")], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    try:
        while int(writer.stdout.readline()) < 400:
            pass
        for attempt in range(2):
            acknowledged = last_line(writer)
            out = tmp_path / f"copy{attempt}"
            assert log("backup", run, out).exit_code == 0
            assert len(everything(out)) > acknowledged
            live = json.loads(log("verify", run, "--json").stdout)
            assert live["clean"], live["problems"]
            assert live["events"] > acknowledged
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert verify(run / "log").clean


def last_line(writer: subprocess.Popen[str]) -> int:
    """An offset that was acknowledged before now."""
    assert writer.stdout is not None
    return int(writer.stdout.readline())
