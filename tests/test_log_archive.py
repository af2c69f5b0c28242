"""An archive gives the log back to the bit, is plain Parquet, and is refused when it is damaged."""

import random
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_contents import databases, picture, write, writings

from mmzero_async.log.archive import ArchiveRefused, archive
from mmzero_async.log.environment import OFFSET
from mmzero_async.log.errors import LogFull, TargetTaken
from mmzero_async.log.manifest import MANIFEST, ArchiveDamaged, open_archive
from mmzero_async.log.reader import LogReader
from mmzero_async.log.restore import restore
from mmzero_async.log.verify import verify
from mmzero_async.log.writer import LogWriter, Submission
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import RunFinished, encode_event
from mmzero_async.schemas.record import encode_record


def a_log(path: Path, events: int = 40) -> Path:
    writer = LogWriter(path, run="r", map_gib=1, sync="nosync")
    body = encode_event(RunFinished(reason="x" * 200))
    mix = [
        ("a", 0, i % 7 == 3, "run_finished", body, i if i % 4 == 0 else None) for i in range(events)
    ]
    write(writer, mix)
    writer.close()
    return path


def archived(log: Path, out: Path, **sizes: int) -> Path:
    reader = LogReader.open(log)
    try:
        archive(reader, out, **sizes)
    finally:
        reader.close()
    return out


@settings(max_examples=30)
@given(mix=writings(), dropped=st.lists(st.integers(0, 5), max_size=3), small=st.booleans())
def test_what_an_archive_gives_back_is_the_log_to_the_bit(mix, dropped, small) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer = LogWriter(folder / "log", run="r", map_gib=1, sync="nosync")
        write(writer, mix)
        keys = [bytes.fromhex(blob_digest(picture(number))) for number in dropped]
        if keys:
            writer.drop_blobs(keys, "no reason", "nowhere")
        writer.close()
        out = folder / "archive"
        archived(folder / "log", out, **({"part_bytes": 200, "group_bytes": 50} if small else {}))
        restore(out, folder / "run")
        assert databases(folder / "run" / "log") == databases(folder / "log")
        made = open_archive(out)
        assert not small or made.event_bytes < 1000 or len(made.names("events")) > 1


def test_an_archive_is_parquet_with_every_record_and_picture_in_it(tmp_path: Path) -> None:
    log = a_log(tmp_path / "log")
    out = archived(log, tmp_path / "out")
    reader = LogReader.open(log)
    records = list(reader.scan())
    reader.close()
    rows = pq.read_table(out / "events-00000.parquet").to_pylist()
    assert [
        (r["offset"], r["producer"], r["epoch"], r["sequence"], r["time_ns"], r["kind"], r["body"])
        for r in rows
    ] == [
        (r.offset, e.producer, e.epoch, e.sequence, e.time_ns, e.kind, e.body)
        for r in records
        for e in [r.envelope]
    ]
    pictures = pq.read_table(out / "pictures-00000.parquet").to_pylist()
    assert all(row["digest"].hex() == blob_digest(row["data"]) for row in pictures)
    assert {row["data"] for row in pictures} >= {picture(0), picture(4)}


def test_an_envelope_that_holds_more_than_this_version_knows_comes_back_whole(
    tmp_path: Path,
) -> None:
    log = a_log(tmp_path / "log")
    writer = LogWriter(log, run="r", map_gib=1)
    env = writer.reader().environment
    import crc32c

    fields = msgspec.msgpack.decode(encode_record(writer.reader().get(3).envelope)[4:])
    payload = msgspec.msgpack.encode([*fields, "of a newer version"])
    newer = crc32c.crc32c(payload).to_bytes(4, "little") + payload
    with env.lmdb.begin(write=True) as transaction:
        transaction.put(OFFSET.pack(3), newer, db=env.events)
    writer.close()
    restore(archived(log, tmp_path / "out"), tmp_path / "run")
    assert databases(tmp_path / "run" / "log") == databases(log)


def test_a_log_that_is_written_meanwhile_is_archived_as_it_was_when_that_began(
    tmp_path: Path,
) -> None:
    log = a_log(tmp_path / "log")
    writer = LogWriter(log, run="r", map_gib=1, sync="nosync")
    before, stop = writer.next_offset, threading.Event()

    def go_on() -> None:
        i = 0
        while not stop.is_set():
            epoch, following = writer.position("b")
            blob = picture(1000 + i)
            submission = Submission(
                "b", epoch or 1, following, "of_another", b"", {blob_digest(blob): blob}
            )
            writer.append([[submission]])
            i += 1

    writing = threading.Thread(target=go_on)
    writing.start()
    try:
        manifest = archive(writer.reader(), tmp_path / "out")
    finally:
        stop.set()
        writing.join()
    after = writer.next_offset
    writer.close()
    assert before <= manifest.events < after
    restore(tmp_path / "out", tmp_path / "run")
    assert verify(tmp_path / "run" / "log").clean
    restored, whole = databases(tmp_path / "run" / "log")["events"], databases(log)["events"]
    assert restored == whole[: manifest.events]


def test_no_flipped_byte_of_an_archive_is_restored(tmp_path: Path) -> None:
    out = archived(a_log(tmp_path / "log"), tmp_path / "out")
    rng = random.Random(3)
    files = sorted(path for path in out.iterdir() if path.name != MANIFEST)
    for i in range(30):
        path = files[i % len(files)]
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        untouched = path.read_bytes()
        path.write_bytes(data)
        with pytest.raises(ArchiveDamaged, match=path.name):
            restore(out, tmp_path / "run")
        path.write_bytes(untouched)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "out"]


def test_files_and_manifests_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    out = archived(a_log(tmp_path / "log"), tmp_path / "out")
    other = archived(a_log(tmp_path / "other", events=41), tmp_path / "other_out")
    text = (out / MANIFEST).read_text()
    theirs = open_archive(other).contents["events"]
    (out / MANIFEST).write_text(text.replace(open_archive(out).contents["events"], theirs))
    with pytest.raises(ArchiveDamaged, match="events differ"):
        restore(out, tmp_path / "run")
    (out / MANIFEST).write_text(text.replace("events-00000.parquet", "../out/events-00000.parquet"))
    with pytest.raises(ArchiveDamaged, match="no file of its folder"):
        restore(out, tmp_path / "run")
    (out / MANIFEST).write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(ArchiveDamaged, match="upgrade"):
        restore(out, tmp_path / "run")
    (out / MANIFEST).write_text(text[:-20])
    with pytest.raises(ArchiveDamaged, match="damaged"):
        restore(out, tmp_path / "run")
    with pytest.raises(ArchiveDamaged, match="no archive"):
        restore(tmp_path / "log", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_name_that_is_taken_is_refused_and_left_alone(tmp_path: Path) -> None:
    log = a_log(tmp_path / "log")
    out = archived(log, tmp_path / "out")
    with pytest.raises(TargetTaken, match="exists already"):
        archived(log, out)
    with pytest.raises(TargetTaken, match="exists already"):
        restore(out, log)
    assert verify(log).clean and open_archive(out)


@pytest.mark.parametrize("what", ["index", "stray"])
def test_a_log_whose_index_lies_is_not_archived(tmp_path: Path, what: str) -> None:
    log = a_log(tmp_path / "log")
    writer = LogWriter(log, run="r", map_gib=1)
    env = writer.reader().environment
    key = b"a\0" + (1).to_bytes(8, "big") + (1).to_bytes(8, "big")
    with env.lmdb.begin(write=True) as transaction:
        if what == "index":
            transaction.put(key, OFFSET.pack(7), db=env.sequences)
        else:
            transaction.put(key[:-1] + b"\xff", OFFSET.pack(7), db=env.sequences)
    writer.close()
    with pytest.raises(ArchiveRefused, match="mmzero log verify"):
        archived(log, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


MEMORY = textwrap.dedent("""
    import sys
    from pathlib import Path
    import pyarrow
    from mmzero_async.log.archive import archive
    from mmzero_async.log.reader import LogReader
    from mmzero_async.log.restore import restore
    archive(LogReader.open(Path(sys.argv[1])), Path(sys.argv[2]))
    restore(Path(sys.argv[2]), Path(sys.argv[3]))
    print(pyarrow.default_memory_pool().max_memory())
""")


def test_archive_and_restore_hold_a_few_row_groups_however_large_the_log(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "log", run="r", map_gib=1, sync="nosync")
    rng = random.Random(5)
    for i in range(150):
        blob = rng.randbytes(1_000_000)
        sent = Submission("w", 1, i, "of_another", b"", {blob_digest(blob): blob})
        writer.append([[sent]])
    writer.close()
    folders = [tmp_path / name for name in ("log", "out", "run")]
    command = [sys.executable, "-c", MEMORY, *map(str, folders)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) < 75_000_000, "half of the log, or more, was held at once"


def test_an_archive_that_finds_no_room_leaves_nothing_behind(tmp_path: Path) -> None:
    log, disk = a_log(tmp_path / "log"), tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        with pytest.raises(LogFull, match="another disk"):
            archived(log, disk / "out")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
