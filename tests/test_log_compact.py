"""Compaction keeps every event and every needed picture, says of the others where they are, and
makes the file smaller."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from log_contents import KEPT, a_log, compacted, databases, digest, picture, records, rendering

from mmzero_async.log.archive import archive
from mmzero_async.log.compact import CompactionRefused, compact, compacting, plan
from mmzero_async.log.environment import FORMAT, OFFSET
from mmzero_async.log.errors import BlobDropped, BlobMissing, ForeignLog, LogFull, LogLocked
from mmzero_async.log.pages import Pages
from mmzero_async.log.reader import LogReader
from mmzero_async.log.restore import restore_pictures
from mmzero_async.log.takeover import LogInUse, renumber
from mmzero_async.log.verify import verify
from mmzero_async.log.writer import Ack, LogWriter
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.record import RecordDamaged


def commits(log: Path) -> int:
    pages = Pages(log / "data.mdb")
    try:
        return pages.newest().transaction
    finally:
        pages.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return a_log(tmp_path / "log")


def test_events_stay_pictures_go_and_the_file_gets_smaller(tmp_path: Path) -> None:
    log = a_log(tmp_path / "log", size=20_000)
    events, before, commit = records(log), (log / "data.mdb").stat().st_size, commits(log)
    needed = {blob_digest(picture(i, 20_000)) for i in range(50, 60)}
    compacted(log, needed, tmp_path / "kept")
    assert records(log) == events
    assert (log / "data.mdb").stat().st_size < before / 3
    found = verify(log)
    assert found.clean and (found.blobs, found.dropped, found.pictures) == (10, 50, 60)
    assert sorted(path.name for path in log.iterdir()) == ["data.mdb", "lock.mdb", "writer.lock"]
    assert commits(log) > commit, "a process with the old file open would lead a writer astray"
    reader = LogReader.open(log)
    assert reader.blob(blob_digest(picture(50, 20_000))) == picture(50, 20_000)
    gone = blob_digest(picture(49, 20_000))
    with pytest.raises(BlobDropped) as caught:
        reader.blob(gone)
    for told in (gone, f"archive {tmp_path / 'kept'}", "dropped by compaction at 20", KEPT):
        assert told in str(caught.value)
    tombstone = reader.tombstone(gone)
    assert tombstone is not None and tombstone.size == len(picture(49, 20_000))
    assert reader.tombstone(next(iter(needed))) is None
    with pytest.raises(BlobMissing):
        reader.blob("ab" * 32)
    reader.close()


def test_what_an_archive_holds_comes_back_and_only_into_its_own_run(tmp_path: Path) -> None:
    log = a_log(tmp_path / "log")
    whole = databases(log)
    compacted(log, {digest(1)}, tmp_path / "kept")
    other = LogWriter(tmp_path / "other", run="another", map_gib=1)
    with pytest.raises(ForeignLog, match="'r', not of 'another'"):
        restore_pictures(tmp_path / "kept", other)
    other.close()
    writer = LogWriter(log, run="r", map_gib=1)
    assert restore_pictures(tmp_path / "kept", writer) == 59
    assert restore_pictures(tmp_path / "kept", writer) == 0
    writer.close()
    again = databases(log)
    assert {**again, "meta": whole["meta"]} == whole
    assert verify(log).clean


def test_a_picture_that_is_drawn_again_is_there_again(log: Path) -> None:
    compacted(log, set())
    writer = LogWriter(log, run="r", map_gib=1)
    assert writer.append([[rendering(60, 7)]]) == [[Ack(60)]]
    assert writer.reader().blob(digest(7)) == picture(7)
    writer.close()
    found = verify(log)
    assert found.clean and (found.blobs, found.dropped) == (1, 59)


def test_pictures_that_no_archive_holds_are_not_dropped(log: Path, tmp_path: Path) -> None:
    reader = LogReader.open(log)
    archive(reader, tmp_path / "old")
    reader.close()
    writer = LogWriter(log, run="r", map_gib=1)
    writer.append([[rendering(60, 1000)], [rendering(61, 1001)]])
    writer.close()
    whole = databases(log)
    with pytest.raises(CompactionRefused, match=r"^1 of 61 pictures.*--drop"):
        compacted(log, {digest(1001)}, tmp_path / "old")
    assert databases(log) == whole
    compacted(log, {digest(1001), digest(1000)}, tmp_path / "old")
    assert verify(log).dropped == 60


def test_a_run_being_written_or_read_or_damaged_is_refused_and_left_alone(log: Path) -> None:
    writer = LogWriter(log, run="r", map_gib=1)
    with pytest.raises(LogLocked, match=str(os.getpid())), compacting(log):
        pass
    writer.close()
    child = ReadingProcess(log)
    with child, pytest.raises(LogInUse, match=f"process {child.pid}"), compacting(log):
        pass
    data = (log / "data.mdb").read_bytes()
    assert picture(5) in data
    (log / "data.mdb").write_bytes(data.replace(picture(5), picture(5)[:-1] + b"!"))
    with pytest.raises(CompactionRefused, match="mmzero log verify"), compacting(log):
        pass
    assert verify(log).counts.total() == 2


HOLDER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from mmzero_async.log.reader import LogReader
    reader = LogReader.open(Path(sys.argv[1]))
    print("open", flush=True)
    sys.stdin.readline()
    print(len(list(reader.scan())), flush=True)
""")


class ReadingProcess:
    """A child that has the log open until the block ends; `seen`: events it could read then."""

    def __init__(self, log: Path) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.child.pid

    def __enter__(self) -> None:
        assert self.child.stdout is not None and self.child.stdout.readline() == "open\n"

    def __exit__(self, *_: object) -> None:
        out, _ = self.child.communicate("\n")
        self.seen = int(out)


def test_a_reader_that_comes_while_the_copy_is_made_keeps_the_old_file_in_place(log: Path) -> None:
    """What was dropped stays dropped, the log is whole, and the next compaction shrinks it."""
    events = records(log)
    before = (log / "data.mdb").stat()
    with compacting(log) as writer:
        planned = plan(writer.reader(), {digest(3)})
        child = ReadingProcess(log)
        with child, pytest.raises(LogInUse, match=f"process {child.pid}"):
            compact(writer, planned, kept=KEPT, archived=None)
    assert (log / "data.mdb").stat().st_ino == before.st_ino
    found = verify(log)
    assert found.clean and (found.blobs, found.dropped) == (1, 59)
    compacted(log, {digest(3)})
    assert (log / "data.mdb").stat().st_ino != before.st_ino
    assert (log / "data.mdb").stat().st_size < before.st_size
    assert records(log) == events and verify(log).clean


def test_a_process_that_kept_the_old_file_open_leads_no_writer_astray(
    log: Path, tmp_path: Path
) -> None:
    """It keeps LMDB's lock file alive, by whose commit number the next writer finds its page."""
    for extra in (0, 1):  # either meta page may be the newest
        folder = a_log(tmp_path / f"log{extra}")
        writer = LogWriter(folder, run="r", map_gib=1)
        if extra:
            writer.append([[rendering(60, 60)]])
        last = extra or 10  # events of the last commit: the old file's reader may not see them
        child = ReadingProcess(folder)
        with child:
            (tmp_path / f"copy{extra}").mkdir()
            writer.reader().environment.lmdb.copy(str(tmp_path / f"copy{extra}"), compact=True)
            copy = tmp_path / f"copy{extra}" / "data.mdb"
            renumber(copy, writer.reader().environment.lmdb.info()["last_txnid"])
            count = writer.next_offset
            copy.rename(folder / "data.mdb")
            writer.close()
            for i in range(3):
                writer = LogWriter(folder, run="r", map_gib=1)
                assert writer.append([[rendering(count + i, 80 + i)]]) == [[Ack(count + i)]]
                writer.close()
        assert child.seen in (count, count - last)
        assert len(records(folder)) == count + 3 and verify(folder).clean


def test_a_copy_goes_on_with_its_logs_commit_number_in_both_meta_pages(
    log: Path, tmp_path: Path
) -> None:
    writer = LogWriter(log, run="r", map_gib=1)
    for commit in (2, 3, 1000, 1001):
        folder = tmp_path / str(commit)
        folder.mkdir()
        writer.reader().environment.lmdb.copy(str(folder), compact=True)
        renumber(folder / "data.mdb", commit)
        pages = Pages(folder / "data.mdb")
        assert pages.newest().transaction == commit and pages.meta_problems() == []
        newest, before = pages.newest(), pages.of_transaction(commit - 1)
        assert before is not None and before.main == newest.main
        pages.close()
        assert verify(folder).clean
    writer.close()


def test_a_compacted_log_has_a_format_of_its_own(log: Path) -> None:
    def stored() -> int:
        return int(OFFSET.unpack(dict(databases(log)["meta"])[b"format"])[0])

    assert stored() == FORMAT
    compacted(log, set())
    assert stored() == FORMAT + 1


def test_a_damaged_tombstone_is_named(log: Path) -> None:
    compacted(log, {digest(i) for i in range(59)})
    data = (log / "data.mdb").read_bytes()
    assert data.count(KEPT.encode()) == 1
    (log / "data.mdb").write_bytes(data.replace(KEPT.encode(), KEPT.upper().encode()))
    assert verify(log).counts == {"dropped": 1, "pictures": 1}
    reader = LogReader.open(log)
    with pytest.raises(RecordDamaged, match="tombstone"):
        reader.blob(digest(59))
    reader.close()


def test_a_tombstone_beside_its_picture_is_named(log: Path) -> None:
    compacted(log, {digest(i) for i in range(59)})
    writer = LogWriter(log, run="r", map_gib=1)
    env = writer.reader().environment
    with env.lmdb.begin(write=True) as transaction:
        transaction.put(bytes.fromhex(digest(59)), picture(59), db=env.blobs)
    writer.close()
    found = verify(log)
    assert found.counts == {"dropped": 1} and digest(59) in found.problems[0]


def test_a_disk_without_room_for_the_copy_keeps_the_log_whole(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=800k", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        log = a_log(disk / "log", size=8_000)
        events = records(log)
        with pytest.raises(LogFull, match="nothing was changed"):
            compacted(log, {blob_digest(picture(i, 8_000)) for i in range(58)})
        assert records(log) == events
        found = verify(log)
        assert (found.clean, found.blobs, found.dropped) == (True, 60, 0)
        assert sorted(path.name for path in log.iterdir()) == [
            "data.mdb",
            "lock.mdb",
            "writer.lock",
        ]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
