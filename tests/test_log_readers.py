"""One contract for the reader of the files and for the one over the network."""

import asyncio
import contextlib
import itertools
import shutil
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_builders import EVENT, WHERE, by_hand, remote, say, write
from log_builders import TREES as EVENTS

from mmzero_async.log.errors import BlobDropped, BlobMissing, LogError, SnapshotOver
from mmzero_async.log.interface import Reader
from mmzero_async.log.query import Limits
from mmzero_async.log.tombstones import Tombstone, encode_tombstone
from mmzero_async.log.where import parse_where
from mmzero_async.log.writer import LogWriter
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import RunFinished
from mmzero_async.schemas.record import Record, RecordDamaged

PICTURE = b"\x89PNG" * 40_000


@contextlib.contextmanager
def local(writer: LogWriter) -> Iterator[Reader]:
    yield writer.reader()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[LogWriter]:
    log = write(tmp_path / "log", EVENTS)
    blobs = {blob_digest(PICTURE): PICTURE}
    log.append([[say(len(EVENTS), "first", blobs)]])
    yield log
    log.close()


@pytest.fixture(params=[local, remote], ids=["local", "remote"])
def reader(request: pytest.FixtureRequest, writer: LogWriter) -> Iterator[Reader]:
    with request.param(writer) as opened:
        yield opened


def damage(writer: LogWriter, database: str, key: bytes) -> None:
    env = writer.reader().environment
    db = getattr(env, database)
    with env.lmdb.begin(write=True) as txn:
        data = bytearray(txn.get(key, db=db))
        data[-1] ^= 1
        txn.put(key, bytes(data), db=db)


def test_a_reader_tells_the_run_the_end_each_event_and_each_blob(reader: Reader) -> None:
    count = len(EVENTS) + 1
    assert (reader.run, reader.next_offset) == ("r", count)
    assert [record.event() for record in reader.scan()][:-1] == EVENTS
    assert [record.offset for record in reader.scan(5, 9)] == [5, 6, 7, 8]
    assert [record.offset for record in reader.scan(count - 1, count + 9)] == [count - 1]
    assert [record.offset for record in reader.scan(-3, 2)] == [0, 1]
    assert list(reader.scan(9, 5)) == list(reader.scan(count)) == list(reader.scan(count + 7)) == []
    assert reader.get(3).event() == EVENTS[3]
    digest = blob_digest(PICTURE)
    assert reader.blob(digest) == PICTURE
    assert reader.has_blob(digest) and not reader.has_blob("00" * 32)
    assert not reader.has_blob("no digest")


def test_what_is_not_there_is_an_error_of_one_kind(reader: Reader) -> None:
    for offset in (-1, len(EVENTS) + 1, 10**9):
        with pytest.raises(LogError, match=f"no event at offset {offset}"):
            reader.get(offset)
    for digest in ("00" * 32, "no digest", "x" * 1000):
        with pytest.raises(BlobMissing, match="no blob"):
            reader.blob(digest)


def test_damage_is_named_and_not_returned(reader: Reader, writer: LogWriter) -> None:
    damage(writer, "events", (7).to_bytes(8, "big"))
    damage(writer, "blobs", bytes.fromhex(blob_digest(PICTURE)))
    where = parse_where("role=solver")
    for attempt in (
        lambda: reader.get(7),
        lambda: list(reader.scan()),
        lambda: list(reader.scan(where=where)),
    ):
        with pytest.raises(RecordDamaged, match="offset 7 is damaged"):
            attempt()
    with pytest.raises(RecordDamaged, match=f"blob {blob_digest(PICTURE)} is damaged"):
        reader.blob(blob_digest(PICTURE))
    assert [record.offset for record in reader.scan(8, 10)] == [8, 9]


def test_a_picture_that_compaction_dropped_says_so(reader: Reader, writer: LogWriter) -> None:
    env, key = writer.reader().environment, bytes.fromhex(blob_digest(PICTURE))
    with env.lmdb.begin(write=True) as txn:
        txn.delete(key, db=env.blobs)
        tombstone = Tombstone(size=len(PICTURE), reason="those of the last steps", time_ns=1)
        txn.put(key, encode_tombstone(key, tombstone), db=env.dropped)
    with reader.snapshot() as view:
        for source in (reader, view):
            with pytest.raises(BlobDropped, match="dropped by compaction at 1970"):
                source.blob(blob_digest(PICTURE))


def test_a_page_keeps_to_its_limits_and_says_where_to_go_on(reader: Reader) -> None:
    page = reader.page(limits=Limits(records=3))
    assert [record.offset for record in page.records] == [0, 1, 2]
    assert (page.next, page.end) == (3, len(EVENTS) + 1)
    page = reader.page(parse_where("kind=run_finished"), limits=Limits(looked=2))
    while not page.records:
        assert page.next < page.end
        page = reader.page(parse_where("kind=run_finished"), page.next, limits=Limits(looked=2))
    assert page.records[0].offset == len(EVENTS)
    assert len(reader.page(limits=Limits(bytes=1)).records) == 1
    assert reader.page(start=10**6).records == []


def test_a_snapshot_does_not_move_and_ends(reader: Reader, writer: LogWriter) -> None:
    count = len(EVENTS) + 1
    with reader.snapshot() as view:
        writer.append([[say(count, "later")]])
        assert reader.next_offset == count + 1
        assert (view.run, view.next_offset) == ("r", count)
        assert len(list(view.scan())) == count
        assert view.page(parse_where("kind=run_finished"), count - 1).end == count
        assert [r.offset for r in view.scan(where=parse_where("kind=run_finished"))] == [count - 1]
        assert view.blob(blob_digest(PICTURE)) == PICTURE
        with pytest.raises(LogError, match=f"event at offset {count}"):
            view.get(count)
    with pytest.raises(SnapshotOver):
        view.get(0)
    with reader.snapshot(seconds=0.05) as brief, pytest.raises(SnapshotOver, match=r"0\.05 s"):
        for _ in itertools.count():
            brief.get(0)


async def test_following_gives_what_is_there_and_what_comes_and_stops_when_cancelled(
    reader: Reader, writer: LogWriter
) -> None:
    count = len(EVENTS) + 1
    seen: asyncio.Queue[Record] = asyncio.Queue()

    async def follow() -> None:
        async with aclosing(reader.follow(10, parse_where("kind=run_finished"))) as following:
            async for record in following:
                seen.put_nowait(record)

    task = asyncio.create_task(follow())
    async with asyncio.timeout(20):
        assert (await seen.get()).event() == RunFinished(reason="first")
        for i in range(3):
            writer.append([[say(count + i, f"{i}")]])
            assert (await seen.get()).event() == RunFinished(reason=f"{i}")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled() and seen.empty()
    assert reader.next_offset == count + 3, "the reader is as good as before"


async def test_waiting_says_whether_it_came(reader: Reader, writer: LogWriter) -> None:
    count = len(EVENTS) + 1
    assert await reader.wait(count - 1, seconds=20)
    assert not await reader.wait(count, seconds=0.2)
    waiting = asyncio.create_task(reader.wait(count, seconds=20))
    await asyncio.sleep(0)
    writer.append([[say(count, "later")]])
    assert await waiting


@settings(max_examples=20, deadline=None)
@given(
    st.lists(EVENT, min_size=1, max_size=40),
    st.integers(0, 600),
    st.lists(WHERE, min_size=1, max_size=5),
    st.randoms(use_true_random=False),
)
def test_both_readers_find_the_same(
    tmp_path_factory: pytest.TempPathFactory, some_events, count, filters, rng
) -> None:
    folder = tmp_path_factory.mktemp("log")
    writer = write(folder, [rng.choice(some_events) for _ in range(count)])
    everything = list(writer.reader().scan())
    with remote(writer) as far:
        assert list(far.scan()) == everything
        for where in filters:
            wanted = by_hand(everything, where)
            start, stop = rng.randrange(0, count + 1), rng.randrange(0, count + 10)
            for reader in (writer.reader(), far):
                assert [r.offset for r in reader.scan(where=where)] == wanted
                assert list(reader.scan(start, stop, where)) == [
                    everything[offset] for offset in wanted if start <= offset < stop
                ]
            limits = Limits(records=rng.randrange(1, 50), looked=rng.randrange(1, 300))
            assert far.page(where, start, stop, limits) == writer.reader().page(
                where, start, stop, limits
            )
    writer.close()
    shutil.rmtree(folder)
