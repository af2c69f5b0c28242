"""A torn tail and flipped bytes: verify names them, readers refuse them, nobody dies of them."""

import os
import random
import shutil
import struct
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from mmzero_async.log.errors import ForeignLog, LogTorn
from mmzero_async.log.pages import Pages
from mmzero_async.log.reader import LogReader
from mmzero_async.log.verify import verify
from mmzero_async.log.writer import LogWriter, Submission
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import Rendered, WorkerFailed, encode_event
from mmzero_async.schemas.record import RecordDamaged

EVENTS, PER_COMMIT = 600, 20


def body_of(i: int) -> bytes:
    size = (10, 900, 9000)[i % 3]
    return encode_event(WorkerFailed(worker="w", role="r", error=f"<{i:06}>" + "x" * size))


def picture_of(i: int) -> bytes:
    return b"picture %06d " % i + random.Random(i).randbytes(3000)


def submission(i: int) -> Submission:
    if i % 10:
        return Submission("w", 1, i, "worker_failed", body_of(i), drop=i % 50 == 7)
    blob = picture_of(i)
    event = Rendered(drawing=f"g{i}.s0.d0", renderer="x", picture=blob_digest(blob))
    return Submission("w", 1, i, "rendered", encode_event(event), {blob_digest(blob): blob})


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of small, middling and large records, pictures and dropped events, in many commits."""
    path = tmp_path_factory.mktemp("original") / "log"
    writer = LogWriter(path, run="r", map_gib=1, sync="nosync")
    for start in range(0, EVENTS, PER_COMMIT):
        writer.append([[submission(i)] for i in range(start, start + PER_COMMIT)])
    writer.close()
    return path


@pytest.fixture
def log(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "log"))


def flip(log: Path, place: int, mask: int = 0xFF) -> None:
    with (log / "data.mdb").open("r+b") as file:
        file.seek(place)
        (old,) = file.read(1)
        file.seek(place)
        file.write(bytes([old ^ mask]))


def find(log: Path, what: bytes) -> int:
    """Its last place: older copies of a page hold what is no longer read."""
    return (log / "data.mdb").read_bytes().rindex(what)


def offset_of(log: Path, sequence: int) -> int:
    reader = LogReader.open(log)
    try:
        return next(r.offset for r in reader.scan() if r.envelope.sequence == sequence)
    finally:
        reader.close()


def everything(log: Path) -> list[object]:
    reader = LogReader.open(log)
    try:
        records = list(reader.scan())
        blobs = [reader.blob(e.picture) for r in records if isinstance(e := r.event(), Rendered)]
        return [*records, *blobs]
    finally:
        reader.close()


def test_a_whole_log_verifies_clean_and_counts_what_it_read(log: Path) -> None:
    found = verify(log)
    dropped = len(range(7, EVENTS, 50))
    assert (found.clean, found.problems, found.first_bad_offset) == (True, [], None)
    assert (found.events, found.blobs, found.pictures) == (EVENTS - dropped, 60, 60)
    assert (found.run, found.producers) == ("r", 1)


@pytest.mark.parametrize("sequence", [1, 301, 302, 599])
def test_a_flipped_byte_in_a_record_is_named_by_verify_and_refused_by_readers(
    log: Path, sequence: int
) -> None:
    offset = offset_of(log, sequence)
    flip(log, find(log, b"<%06d>" % sequence) + 3, 0x01)
    found = verify(log)
    assert found.first_bad_offset == offset
    assert found.counts == {"records": 1, "sequences": 1} or found.counts == {"records": 1}
    assert "checksum" in found.problems[0] and f"offset {offset}" in found.problems[0]
    assert found.events == EVENTS - len(range(7, EVENTS, 50)), "verify stopped counting"
    reader = LogReader.open(log)
    with pytest.raises(RecordDamaged, match=f"offset {offset} "):
        reader.get(offset)
    with pytest.raises(RecordDamaged, match=f"offset {offset} "):
        list(reader.scan())
    assert len(list(reader.scan(offset + 1))) == found.events - offset - 1
    reader.close()


def test_a_flipped_byte_in_a_picture_is_named_with_the_event_that_needs_it(log: Path) -> None:
    flip(log, find(log, b"picture 000310 ") + 500)
    found = verify(log)
    assert found.counts == {"blobs": 1, "pictures": 1}
    assert found.first_bad_offset == offset_of(log, 310)
    reader = LogReader.open(log)
    with pytest.raises(RecordDamaged, match=blob_digest(picture_of(310))):
        reader.blob(blob_digest(picture_of(310)))
    reader.close()


def test_a_picture_that_an_event_names_and_nobody_stored_is_named(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, run="r", map_gib=1)
    event = Rendered(drawing="g0.s0.d0", renderer="x", picture="ab" * 32)
    writer.append([[Submission("w", 1, 0, "rendered", encode_event(event))]])
    writer.close()
    found = verify(tmp_path)
    assert found.counts == {"pictures": 1} and found.first_bad_offset == 0


@pytest.mark.parametrize("what", ["lost", "stray", "moved", "event", "producer"])
def test_an_index_that_disagrees_with_the_events_is_named(log: Path, what: str) -> None:
    import lmdb

    env = lmdb.open(str(log), max_dbs=5, map_size=1 << 30)
    dbs = {n: env.open_db(n.encode(), create=False) for n in ("events", "sequences", "producers")}
    with env.begin(write=True) as txn:
        key = b"w\0" + (1).to_bytes(8, "big") + (100).to_bytes(8, "big")
        (place,) = [txn.get(key, db=dbs["sequences"])]
        offset = int.from_bytes(place, "big")
        match what:
            case "lost":
                txn.delete(key, db=dbs["sequences"])
            case "stray":
                txn.put(key[:-1] + b"\xff" * 1, (10**6).to_bytes(8, "big"), db=dbs["sequences"])
            case "moved":
                txn.put(key, (offset + 1).to_bytes(8, "big"), db=dbs["sequences"])
            case "event":
                txn.delete(place, db=dbs["events"])
            case "producer":
                txn.put(b"w", (1).to_bytes(8, "big") + (5).to_bytes(8, "big"), db=dbs["producers"])
    env.close()
    found = verify(log)
    sort = {"event": "offsets", "producer": "producers"}.get(what, "sequences")
    assert found.counts[sort] >= 1
    if what in ("lost", "event"):
        assert found.first_bad_offset == offset


@pytest.mark.parametrize("share", [0.999, 0.9, 0.5, 0.1])
def test_a_torn_tail_is_told_at_opening_and_by_verify_and_ends_no_process(
    log: Path, share: float
) -> None:
    size = (log / "data.mdb").stat().st_size
    os.truncate(log / "data.mdb", int(size * share))
    found = verify(log)
    assert not found.clean and any("cut off" in problem for problem in found.problems)
    with pytest.raises(LogTorn, match="mmzero log backup"):
        LogReader.open(log)
    with pytest.raises(LogTorn):
        LogWriter(log, run="r", map_gib=1)


def test_a_tail_of_zeros_is_named_and_ends_no_reader(log: Path) -> None:
    """What a power cut may leave where the file's length was written and its pages were not."""
    size = (log / "data.mdb").stat().st_size
    with (log / "data.mdb").open("r+b") as file:
        file.seek(size * 9 // 10)
        file.write(bytes(size - size * 9 // 10))
    assert not verify(log).clean
    code = (
        "import sys; from pathlib import Path; from mmzero_async.log.reader import LogReader\n"
        "try: list(LogReader.open(Path(sys.argv[1])).scan())\n"
        "except Exception as error: print(type(error).__name__)"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(log)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() in ("RecordDamaged", "ForeignLog")


def test_a_damaged_page_costs_its_own_events_and_the_rest_is_counted(log: Path) -> None:
    offset = offset_of(log, 300)
    place = find(log, b"<000301>")
    page_size = Pages(log / "data.mdb").page_size
    page = place // page_size * page_size
    flip(log, page + 10)  # the page's flags
    found = verify(log)
    assert found.counts["pages"] >= 1
    assert found.first_bad_offset is not None and abs(found.first_bad_offset - offset) < 20
    assert found.events > EVENTS * 9 // 10


def test_a_page_that_belongs_to_another_database_is_named_and_ends_nobody(log: Path) -> None:
    """As a power cut leaves it where nothing is synced: what was at the page's place before."""
    pages = Pages(log / "data.mdb")
    trees, _ = pages.trees(pages.newest())
    size = pages.page_size
    pages.close()
    data = bytearray((log / "data.mdb").read_bytes())

    def leaves(name: str) -> list[int]:
        """The pages below the root, in the order of their keys."""
        root = trees[name].root * size
        (lower,) = struct.unpack_from("<H", data, root + 12)
        nodes = struct.unpack_from(f"<{(lower - 16) // 2}H", data, root + 16)
        return [struct.unpack_from("<H", data, root + node)[0] for node in nodes]

    assert trees["events"].depth == trees["sequences"].depth == 2
    first, second, third, *_ = leaves("events")
    foreign = leaves("sequences")[0] * size
    data[second * size + 8 : (second + 1) * size] = data[foreign + 8 : foreign + size]
    data[third * size + 8 : (third + 1) * size] = bytes(size - 8)
    (log / "data.mdb").write_bytes(data)
    found = verify(log)
    assert {"pages", "offsets"} <= found.counts.keys()
    assert found.first_bad_offset is not None and 0 < found.first_bad_offset < EVENTS
    assert first != second and 0 < found.events < EVENTS


def test_no_flipped_byte_ends_verify_and_clean_means_that_nothing_is_lost(log: Path) -> None:
    """Anywhere in the file. In a process of its own: there a crash would show."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if flip_and_verify(log, seed=1, rounds=400) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def flip_and_verify(log: Path, *, seed: int, rounds: int) -> bool:
    rng, untouched = random.Random(seed), everything(log)
    size, noticed = (log / "data.mdb").stat().st_size, 0
    for _ in range(rounds):
        # Tree pages are few and meta pages two: aim at them as often as at all the rest.
        anywhere = rng.randrange(size)
        in_a_head = anywhere // 4096 * 4096 + rng.randrange(64)
        in_a_meta_page = rng.choice((0, 4096)) + rng.randrange(160)
        place = rng.choice((anywhere, in_a_head, in_a_meta_page))
        mask = rng.randrange(1, 256)
        flip(log, place, mask)
        try:
            if verify(log).clean:
                assert everything(log) == untouched, f"byte {place} ^ {mask:#x} went unnoticed"
            else:
                noticed += 1
        except ForeignLog:
            noticed += 1
        flip(log, place, mask)
    print(f"{noticed} of {rounds} flipped bytes noticed, the others changed nothing")
    return noticed > rounds // 4
