"""Logs for tests of reading: random events and filters, with and without an index, served."""

import contextlib
import itertools
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import structlog
from builders import answered, coded, proposed, rendered, step, whole_tree
from hypothesis import strategies as st

from mmzero_async.config import LogConfig
from mmzero_async.log.interface import Reader
from mmzero_async.log.verify import verify
from mmzero_async.log.where import Range, Where
from mmzero_async.log.writer import LogWriter, Submission
from mmzero_async.schemas.events import (
    Event,
    GroupRejected,
    Rewarded,
    RunFinished,
    StepCommitted,
    WorkAbandoned,
    WorkerFailed,
    encode_event,
    kind_of,
)
from mmzero_async.schemas.record import Record
from mmzero_async.transport.read_server import ReadServer
from mmzero_async.transport.remote_reader import RemoteReader

SECOND = 10**9
BEGAN = 1_795_500_000 * SECOND
TREES = [e for i in range(40) for e in whole_tree(f"g{i}")]


def rewarded(group: str, rewards: list[float], role="solver") -> Rewarded:
    terms = [{"x": r} for r in rewards]
    return Rewarded(
        role=role, group=group, rewards=rewards, terms=terms, advantages=rewards, step=1
    )


def ids() -> st.SearchStrategy[str]:
    shape = st.sampled_from(["g{}", "g{}.s{}", "g{}.s{}.d{}"])
    return st.builds(
        lambda s, a, b, c: s.format(a, b, c), shape, st.integers(0, 6), *[st.integers(0, 2)] * 2
    )


ROLE = st.sampled_from(["proposer", "coder", "solver"])
VERSION = st.integers(0, 4)
REWARD = st.lists(st.sampled_from([-0.5, 0.0, 0.25, 1.0]), max_size=3)
EVENT: st.SearchStrategy[Event] = st.one_of(
    st.builds(proposed, ids(), st.lists(st.booleans(), max_size=2), VERSION),
    st.builds(coded, ids(), st.lists(st.booleans(), max_size=2), VERSION),
    st.builds(rendered, ids(), st.booleans()),
    st.builds(answered, ids(), st.just("hard"), st.lists(st.sampled_from([None, "4"])), VERSION),
    st.builds(rewarded, ids(), REWARD, ROLE),
    st.builds(GroupRejected, role=ROLE, group=ids(), reason=st.sampled_from(["stale", "x"])),
    st.builds(step, ROLE, VERSION, st.lists(ids() | st.just("no id"), max_size=3)),
    st.builds(
        WorkAbandoned,
        work=ids().map(lambda i: f"render/{i}") | st.just("odd"),
        reason=st.just("its lease ran out"),
        attempts=st.just(3),
    ),
    st.builds(WorkerFailed, worker=st.just("w"), role=ROLE, error=st.just("boom")),
    st.builds(RunFinished, reason=st.just("steps")),
)


def ranges(value: st.SearchStrategy[float]) -> st.SearchStrategy[Range | None]:
    pairs = st.tuples(value, value).map(sorted)
    closed = pairs.map(lambda pair: Range(*pair))
    return st.none() | closed | value.map(Range) | value.map(lambda v: Range(None, v))


def some(*words: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(words), max_size=2, unique=True).map(tuple)


TIMES = st.none() | st.integers(BEGAN - 5 * SECOND, BEGAN + 700 * SECOND)
WHERE = st.builds(
    Where,
    roles=some("solver", "coder", "renderer"),
    kinds=some("answered", "rendered", "step_committed", "run_finished", "from_the_future"),
    versions=ranges(VERSION),
    staleness=ranges(st.integers(-1, 4)),
    rewards=ranges(st.sampled_from([-0.5, 0.0, 0.3, 1.0])),
    outcomes=some("ok", "stale", "*lease*", "inv?lid"),
    lineages=st.lists(ids(), max_size=2, unique=True).map(tuple),
    since_ns=TIMES,
    until_ns=TIMES,
)


def write(path: Path, events: list[Event], *, clock: Iterator[int] | None = None) -> LogWriter:
    times = clock or itertools.count(BEGAN, SECOND)
    writer = LogWriter(path, run="r", map_gib=1, sync="nosync", clock=lambda: next(times))
    messages = [[Submission("w", 1, i, kind_of(e), encode_event(e))] for i, e in enumerate(events)]
    for at in range(0, len(messages), 100):
        writer.append(messages[at : at + 100])
    return writer


def without_index(log: Path, copy: Path) -> Path:
    """The log as a writer from before the index left it."""
    copy.mkdir()
    shutil.copyfile(log / "data.mdb", copy / "data.mdb")
    env = lmdb.open(str(copy), max_dbs=6, map_size=1 << 30)
    index, meta = env.open_db(b"index"), env.open_db(b"meta")
    with env.begin(write=True) as txn:
        txn.drop(index)
        txn.delete(b"index", db=meta)
    env.close()
    return copy


def problems(log: Path) -> dict[str, int]:
    """What verify counts, but for the pictures: these events name some that nobody stored."""
    return {sort: count for sort, count in verify(log).counts.items() if sort != "pictures"}


def by_hand(all_records: list[Record], where: Where) -> list[int]:
    """What a filter wants, by looking at every event. The versions are counted here anew."""
    newest: dict[tuple[str, int], int] = {}
    now: dict[str, int] = {}
    for record in all_records:
        for role in ("proposer", "coder", "solver"):
            newest[role, record.offset] = now.get(role, 0)
        event = record.event()
        if isinstance(event, StepCommitted):
            now[event.role] = event.version
    return [r.offset for r in all_records if where.matches(r, lambda role, at: newest[role, at])]


def say(sequence: int, reason: str, blobs: dict[str, bytes] | None = None) -> Submission:
    body = encode_event(RunFinished(reason=reason))
    return Submission("w", 1, sequence, "run_finished", body, blobs or {})


@contextlib.contextmanager
def served(
    writer: LogWriter,
    config: LogConfig = LogConfig(),  # noqa: B008
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[ReadServer]:
    server = ReadServer(writer.reader(), config, structlog.get_logger(), clock)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


@contextlib.contextmanager
def remote(writer: LogWriter) -> Iterator[Reader]:
    with served(writer) as server, contextlib.closing(RemoteReader.open(server.url)) as reader:
        yield reader
