"""Where a log may lie, who may open it, and what happens when there are too many readers."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmzero_async.log.environment import MAX_READERS, lock_for_writing
from mmzero_async.log.errors import LogError, NetworkFileSystem, ReadersFull
from mmzero_async.log.filesystem import NETWORK, mount_of
from mmzero_async.log.reader import LogReader
from mmzero_async.log.writer import Ack, LogWriter, Submission

MOUNTS = textwrap.dedent("""\
    27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
    40 27 0:40 / /data rw,relatime shared:7 - nfs4 server:/export rw,vers=4.2
    41 40 254:1 / /data/local rw - xfs /dev/vdb rw
    42 27 0:42 / /with\\040space rw - cifs //host/share rw
    43 27 0:43 / /over rw - ext4 /dev/vdc rw
    44 43 0:44 / /over rw - fuse.sshfs me@host: rw
""")


def say(sequence: int) -> Submission:
    return Submission("p", 1, sequence, "from_the_future", b"\x80")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/runs/demo/log", "nfs4"),
        ("/data", "nfs4"),
        ("/data/local/runs", "xfs"),
        ("/database", "ext4"),
        ("/with space/log", "cifs"),
        ("/over/x", "fuse.sshfs"),
    ],
)
def test_the_mount_of_a_path_is_the_deepest_and_latest_one(path: str, kind: str) -> None:
    mount = mount_of(Path(path), MOUNTS)
    assert mount is not None and mount.kind == kind


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "lustre"])
def test_writing_a_log_on_a_network_file_system_is_refused_with_what_to_do(
    tmp_path: Path, kind: str
) -> None:
    assert kind in NETWORK
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        f"1 0 0:1 / / rw - ext4 /dev/vda rw\n2 1 0:2 / {tmp_path} rw - {kind} s rw"
    )
    with pytest.raises(NetworkFileSystem, match=rf"{kind} from s.*--run /local/disk") as caught:
        lock_for_writing(tmp_path / "log", mountinfo=mountinfo)
    assert str(tmp_path) in str(caught.value)
    assert not (tmp_path / "log").exists()
    mountinfo.write_text("garbage\n\n1 0 0:1 / / rw - ext4 /dev/vda rw")
    lock_for_writing(tmp_path / "log", mountinfo=mountinfo).release()
    lock_for_writing(tmp_path / "log", mountinfo=tmp_path / "nowhere").release()


def as_nobody(code: str, *arguments: str | Path) -> str:
    """What a process without rights prints. The test must be root to become nobody."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become a user without rights")
    prelude = (
        "import sys; from pathlib import Path; from mmzero_async.log.reader import LogReader\n"
    )
    prelude += "import os; os.setgid(65534); os.setuid(65534); path = Path(sys.argv[1])\n"
    ran = subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


READ = """
    try: print(LogReader.open(path).next_offset)
    except Exception as error: print(type(error).__name__, error)
"""


@pytest.fixture
def open_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that other users may look into."""
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("lock_file", [True, False])
def test_a_folder_that_may_not_be_written_is_read_all_the_same(
    open_folder: Path, lock_file: bool
) -> None:
    writer = LogWriter(open_folder / "log", run="r", map_gib=1)
    writer.append([[say(i)] for i in range(3)])
    writer.close()
    if not lock_file:
        (open_folder / "log" / "lock.mdb").unlink()
    assert as_nobody(READ, open_folder / "log") == "3\n"


def test_a_reader_that_cannot_register_with_a_running_writer_is_told_what_to_do(
    open_folder: Path,
) -> None:
    writer = LogWriter(open_folder / "log", run="r", map_gib=1)
    writer.append([[say(0)]])
    told = as_nobody(READ, open_folder / "log")
    assert told.startswith("LogError") and f"process {os.getpid()}" in told
    assert "mmzero log backup" in told
    writer.close()
    assert as_nobody(READ, open_folder / "log") == "1\n"


def test_a_file_system_mounted_read_only_is_read_unless_somebody_writes_it(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "log", run="r", map_gib=1)
    writer.append([[say(0)]])
    view = tmp_path / "view"
    view.mkdir()
    for command in (
        ["mount", "--bind", tmp_path / "log", view],
        ["mount", "-o", "remount,ro,bind", view],
    ):
        if subprocess.run(command, capture_output=True).returncode != 0:
            subprocess.run(["umount", view], capture_output=True)
            writer.close()
            pytest.skip("needs the right to mount")
    try:
        with pytest.raises(LogError, match=f"written by process {os.getpid()}"):
            LogReader.open(view)
        writer.close()
        reader = LogReader.open(view)
        assert reader.next_offset == 1
        reader.close()
    finally:
        subprocess.run(["umount", view], check=True)


HOG = """
    import sys, lmdb
    env = lmdb.open(sys.argv[1], readonly=True, max_dbs=5, max_readers=256, max_spare_txns=0)
    held = []
    try:
        while True: held.append(env.begin())
    except lmdb.ReadersFullError:
        print(len(held), flush=True)
    sys.stdin.read()
"""


def test_full_reader_slots_are_a_clear_error_and_do_not_stop_the_writer(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, run="r", map_gib=1)
    writer.append([[say(0)]])
    hog = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOG), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert hog.stdout is not None
    assert int(hog.stdout.readline()) == MAX_READERS - 1  # the writer's own reader keeps its slot
    told = refused_in_another_process(tmp_path)
    assert told.startswith("ReadersFull") and f"all {MAX_READERS} reader slots" in told
    for sequence in range(1, 20):
        assert writer.append([[say(sequence)]]) == [[Ack(sequence)]]
        assert writer.position("p") == (1, sequence + 1)
        assert len(list(writer.reader().scan())) == sequence + 1
    hog.kill()
    hog.wait()
    writer.append([[say(20)]])
    assert refused_in_another_process(tmp_path) == "21\n", "slots of the dead are taken back"
    writer.close()


def refused_in_another_process(path: Path) -> str:
    code = "import sys; from pathlib import Path; from mmzero_async.log.reader import LogReader\n"
    code += "path = Path(sys.argv[1])\n" + textwrap.dedent(READ)
    ran = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    return ran.stdout


def test_a_reader_that_opened_before_gets_the_clear_error_too(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, run="r", map_gib=1)
    writer.append([[say(0)]])
    writer.close()
    reader = LogReader.open(tmp_path)
    held = [reader.environment.lmdb.begin() for _ in range(MAX_READERS)]
    with pytest.raises(ReadersFull, match="mmzero log stat"):
        assert reader.next_offset
    held.clear()
    assert reader.next_offset == 1
    reader.close()
