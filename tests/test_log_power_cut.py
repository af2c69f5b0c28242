"""A power cut at any moment: what was acknowledged is in the log, and the log is sound.

Two ways. Every write and sync of a real writer is recorded with strace, and images of what the disk
may hold are made for many moments (power_cut.py). Where there is no strace, the pages that a commit
changed are seen by comparing the file before and after; any part of them may then be missing.
"""

import random
from pathlib import Path

import power_cut
import pytest
from power_cut import SECTOR

from mmzero_async.log.errors import LogError
from mmzero_async.log.reader import LogReader
from mmzero_async.log.verify import verify
from mmzero_async.log.writer import LogWriter, Submission
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import RunFinished, encode_event

PAGE = 4096
CUTS = 300


def event(sequence: int, rng: random.Random) -> Submission:
    body = encode_event(RunFinished(reason=f"{sequence} " + "x" * rng.choice((9, 900, 9000))))
    blob = rng.randbytes(rng.choice((40, 5000)))
    return Submission("p", 1, sequence, "run_finished", body, {blob_digest(blob): blob})


def complaint(folder: Path, image: bytes, acknowledged: int) -> str:
    """What is wrong with a log after a power cut; empty: nothing."""
    folder.mkdir(exist_ok=True)
    (folder / "data.mdb").write_bytes(image)
    try:
        found = verify(folder)
    except LogError as error:
        return str(error)
    if not found.clean:
        return f"not sound: {found.problems[:3]}"
    if found.events < acknowledged:
        return f"{acknowledged} events were acknowledged, {found.events} are there"
    reader = LogReader.open(folder)
    try:
        for record in reader.scan():
            said = record.event()
            assert isinstance(said, RunFinished)
            if int(said.reason.split()[0]) != record.offset:
                return f"offset {record.offset} holds another event"
    finally:
        reader.close()
    return ""


@pytest.fixture
def strace() -> str:
    tool = power_cut.strace()
    if tool is None:
        pytest.skip("needs strace and the right to trace: apt install strace")
    return tool


def test_a_power_cut_at_any_moment_loses_nothing_acknowledged(strace: str, tmp_path: Path) -> None:
    rng = random.Random(1)
    recording = power_cut.record(strace, tmp_path / "log", seed=1, batches=40)
    firsts = [i for i, what in enumerate(recording.moments) if isinstance(what, int)]
    assert len(firsts) == 40
    for _ in range(CUTS):
        moment = rng.randrange(firsts[0], len(recording.moments) + 1)
        image, acknowledged = recording.image(moment, rng)
        assert complaint(tmp_path / "after", image, acknowledged) == "", f"moment {moment}"


def test_the_simulation_sees_what_is_lost_where_nothing_is_synced(
    strace: str, tmp_path: Path
) -> None:
    """With `sync = "nosync"`, which says that it may lose the last seconds."""
    rng = random.Random(1)
    recording = power_cut.record(strace, tmp_path / "log", seed=1, batches=40, sync="nosync")
    moments = [
        rng.randrange(len(recording.moments) // 2, len(recording.moments)) for _ in range(40)
    ]
    images = [recording.image(moment, rng) for moment in moments]
    complaints = [complaint(tmp_path / "after", image, told) for image, told in images if image]
    assert sum(said != "" for said in complaints) > len(complaints) / 2


@pytest.mark.parametrize("seed", range(3))
def test_a_commit_that_is_cut_short_leaves_all_that_was_before_it(
    tmp_path: Path, seed: int
) -> None:
    """Until the meta page is written no page of the commit before may be touched."""
    rng, sequence = random.Random(seed), 0
    writer = LogWriter(tmp_path / "log", run="r", map_gib=1)
    data = tmp_path / "log" / "data.mdb"
    for _ in range(25):
        before, count = data.read_bytes(), sequence
        batch = [[event(sequence + i, rng)] for i in range(rng.randint(1, 6))]
        writer.append(batch)
        sequence += len(batch)
        after = data.read_bytes()
        image = bytearray(before.ljust(len(after), b"\0"))
        sectors = [
            start
            for start in range(2 * PAGE, len(after), SECTOR)  # the two meta pages stay as they were
            if after[start : start + SECTOR] != image[start : start + SECTOR]
        ]
        assert sectors
        for start in rng.sample(sectors, rng.randint(0, len(sectors))):
            image[start : start + SECTOR] = after[start : start + SECTOR]
        image = image[: rng.randrange(len(before), len(after) + 1)]  # nor need the file have grown
        assert complaint(tmp_path / "after", bytes(image), count) == ""
        assert verify(tmp_path / "after").events == count
    writer.close()
