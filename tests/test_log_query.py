"""Finding events: the secondary index, pages, snapshots, following. In this host's files."""

import asyncio
import shutil
from contextlib import aclosing
from pathlib import Path

import lmdb
import msgspec
import pytest
from builders import rendered, whole_tree
from hypothesis import given, settings
from hypothesis import strategies as st
from log_builders import (
    BEGAN,
    EVENT,
    SECOND,
    WHERE,
    by_hand,
    problems,
    step,
    without_index,
    write,
)

from mmzero_async.log.errors import SnapshotOver
from mmzero_async.log.index import BLOCK
from mmzero_async.log.query import Limits
from mmzero_async.log.reader import LogReader
from mmzero_async.log.verify import verify
from mmzero_async.log.where import Where, parse_where
from mmzero_async.log.writer import LogWriter, Submission
from mmzero_async.schemas.about import lineages_of, prompts_of
from mmzero_async.schemas.events import (
    AnyEvent,
    GroupRejected,
    Rendered,
    RunFinished,
    encode_event,
)
from mmzero_async.schemas.ids import prompt_of
from mmzero_async.schemas.record import Record

# --- the index ------------------------------------------------------------------------------------


@given(st.lists(EVENT, max_size=20))
def test_the_index_knows_no_less_of_an_event_than_the_event_itself(events: list[AnyEvent]) -> None:
    for event in events:
        named = {prompt_of(lineage) for lineage in lineages_of(event)}
        assert named <= set(prompts_of(encode_event(event)))  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(EVENT, min_size=1, max_size=40),
    st.integers(0, 3 * BLOCK),
    st.lists(WHERE, min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_indexed_scanned_and_filtered_by_hand_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, some_events, count, filters, rng
) -> None:
    folder = tmp_path_factory.mktemp("log")
    events = [rng.choice(some_events) for _ in range(count)]
    jumping = iter([BEGAN + rng.randrange(-100, 900) * SECOND for _ in range(count)])
    writer = write(folder / "new", events, clock=jumping)
    old = LogReader.open(without_index(folder / "new", folder / "old"))
    assert old.environment.index is None
    everything = list(writer.reader().scan())
    for where in filters:
        expected = by_hand(everything, where)
        start, stop = rng.randrange(0, count + 1), rng.randrange(0, count + 10)
        for reader in (writer.reader(), old):
            assert [r.offset for r in reader.scan(where=where)] == expected
            assert [r.offset for r in reader.scan(start, stop, where)] == [
                offset for offset in expected if start <= offset < stop
            ]
    assert problems(folder / "new") == {}
    old.close()
    writer.close()
    shutil.rmtree(folder)


def test_the_index_lies_on_disk_as_these_bytes(tmp_path: Path) -> None:
    """As docs say it and `INDEX_VERSION` 1 means it: change these bytes, raise the version."""
    odd, even = rendered("g3.s0.d1", ok=False), step("solver", 1, ["g3", "g260.s1"])
    writer = write(tmp_path, [odd if i % 2 else even for i in range(BLOCK + 5)])
    env = writer.reader().environment
    block, all_of_it = bytes(8), bytes(range(256))
    with env.lmdb.begin() as txn:
        assert txn.get(b"index", db=env.meta) == (1).to_bytes(8, "big")
        assert dict(txn.cursor(env.index)) == {
            b"g" + (3).to_bytes(8, "big") + block: all_of_it,
            b"g" + (260).to_bytes(8, "big") + block: all_of_it[::2],
            b"krendered\0" + block: all_of_it[1::2],
            b"kstep_committed\0" + block: all_of_it[::2],
            b"t" + block: BEGAN.to_bytes(8, "big") + (BEGAN + 255 * SECOND).to_bytes(8, "big"),
        }
    writer.close()


def test_a_lineage_is_found_without_reading_the_rest(tmp_path: Path) -> None:
    events = [e for i in range(60) for e in whole_tree(f"g{i}")]
    writer = write(tmp_path, events)
    where = parse_where("lineage=g7")
    # Two or three blocks and the open end: not one event in five.
    page = writer.reader().page(where, limits=Limits(looked=len(events) // 3))
    assert [r.event() for r in page.records] == whole_tree("g7")
    assert page.next == page.end == len(events)
    writer.close()


def test_terms_that_the_index_knows_narrow_down_together(tmp_path: Path) -> None:
    """Each alone wants 120 events or more, together they want two."""
    events = [rendered(f"g{i % 2}.s0.d{i % 2}", ok=False) for i in range(BLOCK)]
    events[7:9] = [GroupRejected(role="solver", group=f"g{i}", reason="stale") for i in (1, 0)]
    events += [RunFinished(reason="steps")] * BLOCK
    writer = write(tmp_path, events)
    page = writer.reader().page(
        parse_where("lineage=g1 kind=group_rejected"), limits=Limits(looked=9)
    )
    assert ([r.offset for r in page.records], page.next) == ([7], len(events))
    writer.close()


@pytest.mark.parametrize("position", [0, 100, BLOCK - 1])
def test_both_ends_of_a_time_belong_to_it(tmp_path: Path, position: int) -> None:
    writer = write(tmp_path, [RunFinished(reason="steps")] * (3 * BLOCK))
    place = BLOCK + position
    moment = BEGAN + place * SECOND
    for where, wanted in (
        (Where(since_ns=moment), range(place, 3 * BLOCK)),
        (Where(until_ns=moment), range(place + 1)),
        (Where(since_ns=moment, until_ns=moment), range(place, place + 1)),
    ):
        assert [r.offset for r in writer.reader().scan(where=where)] == list(wanted)
    writer.close()


def test_a_page_is_bounded_says_where_to_go_on_and_pages_make_the_whole(tmp_path: Path) -> None:
    events = [e for i in range(30) for e in whole_tree(f"g{i}")]
    writer = write(tmp_path, events)
    reader = writer.reader()
    for text in ("", "kind=rendered", "lineage=g29", "role=solver", "staleness=0"):
        where = parse_where(text)
        whole = [r.offset for r in reader.scan(where=where)]
        for limits in (
            Limits(records=1),
            Limits(bytes=1),
            Limits(looked=1),
            Limits(records=7, looked=50),
        ):
            found, start, turns = [], 0, 0
            while start < reader.next_offset:
                page = reader.page(where, start, limits=limits)
                assert len(page.records) <= limits.records
                found += [r.offset for r in page.records]
                start, turns = page.next, turns + 1
                assert turns < 4 * len(events)
            assert found == whole
    in_vain = reader.page(parse_where("role=nobody"), 10, limits=Limits(looked=5))
    assert in_vain == ([], 15, len(events))
    writer.close()


def test_a_log_without_an_index_gets_one_from_its_next_writer(tmp_path: Path) -> None:
    events = [e for i in range(40) for e in whole_tree(f"g{i}")]
    write(tmp_path / "new", events).close()
    old = without_index(tmp_path / "new", tmp_path / "old")
    assert problems(old) == {}
    writer = LogWriter(old, run="r", map_gib=1)
    page = writer.reader().page(parse_where("lineage=g3"), limits=Limits(looked=250))
    assert [r.event() for r in page.records] == whole_tree("g3")
    writer.close()
    assert problems(old) == {}


def test_entries_of_another_version_are_not_used_and_made_anew(tmp_path: Path) -> None:
    events = [e for i in range(40) for e in whole_tree(f"g{i}")]
    write(tmp_path, events).close()
    env = lmdb.open(str(tmp_path), max_dbs=6, map_size=1 << 30)
    index, meta = env.open_db(b"index"), env.open_db(b"meta")
    with env.begin(write=True) as txn:
        txn.put(b"index", (99).to_bytes(8, "big"), db=meta)
        txn.drop(index, delete=False)
        txn.put(b"from the future", b"", db=index)
    env.close()
    reader = LogReader.open(tmp_path)
    found = [r.event() for r in reader.scan(where=parse_where("lineage=g3"))]
    reader.close()
    assert found == whole_tree("g3")
    LogWriter(tmp_path, run="r", map_gib=1).close()
    assert problems(tmp_path) == {}


@pytest.mark.parametrize("what", ["lost", "lying", "stray", "beyond", "time"])
def test_verify_names_an_index_that_disagrees_and_reindex_mends_it(
    tmp_path: Path, what: str
) -> None:
    trees = (e for i in range(40) for e in whole_tree(f"g{i}"))
    # Without pictures, so that all that verify can name is the index.
    events = [rendered(e.drawing, ok=False) if isinstance(e, Rendered) else e for e in trees]
    write(tmp_path, events).close()
    assert problems(tmp_path) == {}
    env = lmdb.open(str(tmp_path), max_dbs=6, map_size=1 << 30)
    index = env.open_db(b"index")
    block = (1).to_bytes(8, "big")
    with env.begin(write=True) as txn:
        match what:
            case "lost":
                assert txn.delete(b"krendered\0" + block, db=index)
            case "lying":
                txn.put(b"krendered\0" + block, b"\1\2", db=index)
            case "stray":
                txn.put(b"kproposed\0" + (9).to_bytes(8, "big") + block, b"\1", db=index)
            case "beyond":
                txn.put(b"t" + (77).to_bytes(8, "big"), bytes(16), db=index)
            case "time":
                txn.put(b"t" + block, bytes(16), db=index)
    env.close()
    found = verify(tmp_path)
    assert found.counts == {"index": 1}
    [told] = found.problems
    assert "secondary index" in told
    assert told.startswith("offset 256:") != (what == "beyond")
    writer = LogWriter(tmp_path, run="r", map_gib=1)
    assert writer.reindex()
    writer.close()
    assert problems(tmp_path) == {}


def test_a_damaged_event_keeps_no_log_from_being_written_or_read_by_index(tmp_path: Path) -> None:
    """The index of an old log ends before the damage; behind it readers scan, and say so."""
    events = [e for i in range(40) for e in whole_tree(f"g{i}")]
    write(tmp_path / "new", events).close()
    old = without_index(tmp_path / "new", tmp_path / "old")
    env = lmdb.open(str(old), max_dbs=6, map_size=1 << 30)
    db = env.open_db(b"events")
    bad = BLOCK + 10
    with env.begin(write=True) as txn:
        data = bytearray(txn.get(bad.to_bytes(8, "big"), db=db))
        data[-1] ^= 1
        txn.put(bad.to_bytes(8, "big"), bytes(data), db=db)
    env.close()
    writer = LogWriter(old, run="r", map_gib=1)
    finished = encode_event(RunFinished(reason="steps"))
    assert writer.append([[Submission("w", 1, len(events), "run_finished", finished)]])
    reader = writer.reader()
    page = reader.page(parse_where("lineage=g3"), stop=BLOCK)
    assert [r.event() for r in page.records] == whole_tree("g3")
    with pytest.raises(ValueError, match=f"offset {bad} is damaged"):
        list(reader.scan(where=parse_where("kind=run_finished")))
    assert [r.kind for r in reader.scan(bad + 1, where=parse_where("kind=run_finished"))] == [
        "run_finished"
    ]
    assert not writer.reindex()
    writer.close()
    assert problems(old) == {"records": 1}


def test_strange_kinds_and_events_about_very_much_cost_little_and_are_found(tmp_path: Path) -> None:
    long, zero = "k" * 256, "a\0b"
    many = step("solver", 1, [f"g{i}" for i in range(5000)])
    kinds = [long, zero, "ü" * 200, "step_committed"]
    bodies = [b"\x80", b"\xff", msgspec.msgpack.encode({"group": 5}), encode_event(many)]
    writer = LogWriter(tmp_path, run="r", map_gib=1, sync="nosync")
    for i in range(2 * BLOCK):
        writer.append([[Submission("w", 1, i, kinds[i % 4], bodies[i % 4])]])
    for i, kind in enumerate(kinds):
        found = writer.reader().scan(where=Where(kinds=(kind,)))
        assert [r.offset for r in found] == list(range(i, 2 * BLOCK, 4))
    found = writer.reader().scan(where=parse_where("lineage=g4321"))
    assert [r.offset for r in found] == list(range(3, 2 * BLOCK, 4))
    with writer.reader().environment.lmdb.begin() as txn:
        assert txn.stat(writer.reader().environment.index)["entries"] < 20
    writer.close()
    assert problems(tmp_path).keys() <= {"records"}


# --- snapshots and following ----------------------------------------------------------------------


def test_a_snapshot_stays_as_it_was_and_ends_when_its_time_is_over(tmp_path: Path) -> None:
    events = whole_tree("g0")
    writer = write(tmp_path, events)
    reader = writer.reader()
    finished = encode_event(RunFinished(reason="steps"))
    with reader.snapshot() as view:
        writer.append([[Submission("w", 1, len(events), "run_finished", finished, {})]])
        assert view.next_offset == len(events) < reader.next_offset
        assert len(list(view.scan())) == len(events)
        assert list(view.scan(where=parse_where("kind=run_finished"))) == []
    with pytest.raises(SnapshotOver, match="open another one"):
        list(view.scan())
    with reader.snapshot(seconds=0.01) as brief:
        pages = 0
        with pytest.raises(SnapshotOver, match=r"0\.01 s"):
            while True:
                pages += len(brief.page().records) > 0
    assert len(list(reader.scan())) == len(events) + 1
    writer.close()


def test_a_forgotten_snapshot_keeps_no_reader_slot(tmp_path: Path) -> None:
    writer = write(tmp_path, whole_tree("g0"))
    reader = writer.reader()
    forgotten = reader.snapshot(seconds=0.01)
    view = forgotten.__enter__()
    with pytest.raises(SnapshotOver):
        while True:
            _ = view.next_offset
    for line in reader.environment.lmdb.readers().splitlines()[1:]:
        assert line.split()[2] == "-", "a read transaction is still open"
    writer.close()


async def test_follow_gives_what_is_there_then_what_comes_and_ends_when_cancelled(
    tmp_path: Path,
) -> None:
    events = whole_tree("g0")
    writer = write(tmp_path, events)
    where = parse_where("kind=rendered,run_finished")
    seen: list[Record] = []
    grew = asyncio.Condition()

    async def follow() -> None:
        async with aclosing(writer.reader().follow(2, where)) as following:
            async for record in following:
                async with grew:
                    seen.append(record)
                    grew.notify_all()

    task = asyncio.create_task(follow())
    async with asyncio.timeout(10), grew:
        await grew.wait_for(lambda: len(seen) == 4)
    finished = encode_event(RunFinished(reason="steps"))
    writer.append([[Submission("w", 1, len(events), "run_finished", finished)]])
    async with asyncio.timeout(10), grew:
        await grew.wait_for(lambda: len(seen) == 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert [r.kind for r in seen] == ["rendered"] * 4 + ["run_finished"]
    writer.close()
