"""What the log does at its limits: epochs, a full disk, a map that has to grow under readers."""

import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mmzero_async.log.environment import open_environment
from mmzero_async.log.errors import BlobMissing, FencedProducer, LogFull
from mmzero_async.log.reader import LogReader
from mmzero_async.log.writer import Ack, LogWriter, Submission
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import RunFinished, encode_event


def say(sequence: int, *, epoch: int = 1, size: int = 10) -> Submission:
    body = encode_event(RunFinished(reason="x" * size))
    return Submission("p", epoch, sequence, "run_finished", body)


def test_an_epoch_is_given_once_also_over_a_restart_and_fences_the_older(tmp_path):
    writer = LogWriter(tmp_path, run="r", map_gib=1)
    assert [writer.open_epoch("p"), writer.open_epoch("p"), writer.open_epoch("q")] == [1, 2, 1]
    writer.close()
    writer = LogWriter(tmp_path, run="r", map_gib=1)
    assert writer.position("p") == (2, 0)
    assert writer.open_epoch("p") == 3
    fenced, good = writer.append([[say(0, epoch=2)], [say(0, epoch=3)]])
    assert isinstance(fenced, FencedProducer)
    assert good == [Ack(0)]
    assert writer.position("p") == (3, 1)
    writer.close()


def test_what_cannot_be_a_digest_names_no_blob(tmp_path):
    writer = LogWriter(tmp_path, run="r", map_gib=1)
    reader = writer.reader()
    for word in ("", "zebra", "ab", "ab" * 600, blob_digest(b"never stored")):
        assert not reader.has_blob(word)
        with pytest.raises(BlobMissing):
            reader.blob(word)
    writer.close()


def test_a_file_that_may_not_grow_refuses_the_batch_as_a_full_disk_does(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "log", run="r", map_gib=1)
    assert writer.append([[say(0, size=50_000)]]) == [[Ack(0)]]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "log" / "data.mdb").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(LogFull, match="Free disk space"):
            for sequence in range(1, 100):
                writer.append([[say(sequence, size=50_000)]])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    sequence = writer.next_offset
    assert writer.append([[say(sequence, size=50_000)]]) == [[Ack(sequence)]]
    assert [record.offset for record in writer.reader().scan()] == list(range(sequence + 1))
    writer.close()


@pytest.fixture
def tiny_disk(tmp_path: Path):
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("needs the right to mount a tmpfs of 2 MiB")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_refuses_the_batch_and_the_log_goes_on_when_there_is_room(tiny_disk):
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(bytes(1 << 20))
    writer = LogWriter(tiny_disk / "log", run="r", map_gib=1)
    sequence = 0
    with pytest.raises(LogFull, match="Free disk space"):
        while True:
            writer.append([[say(sequence, size=50_000)]])
            sequence += 1
    assert 0 < sequence == writer.next_offset == len(list(writer.reader().scan()))
    ballast.unlink()
    assert writer.append([[say(sequence, size=50_000)]]) == [[Ack(sequence)]]
    writer.close()
    writer = LogWriter(tiny_disk / "log", run="r", map_gib=1)
    assert len(list(writer.reader().scan())) == sequence + 1
    writer.close()


def test_a_map_that_is_full_grows_and_nothing_is_lost(tmp_path):
    writer = LogWriter(tmp_path, run="r", map_gib=1)
    writer._env.lmdb.set_mapsize(1 << 17)
    for i in range(40):
        assert writer.append([[say(i, size=50_000)]]) == [[Ack(i)]]
    assert writer._env.lmdb.info()["map_size"] > 1 << 17
    writer.close()


GROWER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from mmzero_async.log.writer import LogWriter, Submission
    from mmzero_async.schemas.events import RunFinished, encode_event
    writer = LogWriter(Path(sys.argv[1]), run="r", map_gib=1)
    body = encode_event(RunFinished(reason="x" * 50_000))
    for i in range(100):
        writer.append([[Submission("p", 2, i, "run_finished", body)]])
""")


def test_a_reader_follows_a_writer_that_grows_the_map(tmp_path):
    writer = LogWriter(tmp_path, run="r", map_gib=1)
    writer.append([[say(0)]])
    writer.close()
    environment = open_environment(tmp_path, write=False)
    environment.lmdb.set_mapsize(1 << 18)
    reader = LogReader(environment)
    assert reader.next_offset == 1
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", GROWER, str(tmp_path)], check=True, env=env)
    assert reader.next_offset == 101
    assert len(list(reader.scan())) == 101
    reader.close()
