"""Logs for tests of retention: what lies in each database, and logs of any mix of submissions."""

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from mmzero_async.log.compact import compact, compacting, ensure_archived, plan
from mmzero_async.log.environment import DATABASES, open_environment
from mmzero_async.log.reader import LogReader
from mmzero_async.log.writer import Answer, LogWriter, Submission
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import Rendered, RunFinished, encode_event
from mmzero_async.schemas.record import Record

Contents = dict[str, list[tuple[bytes, bytes]]]
KEPT = "pending groups' pictures"


def databases(log: Path) -> Contents:
    """Every key and value, in order."""
    environment = open_environment(log, write=False)
    try:
        found: Contents = {}
        with environment.lmdb.begin() as transaction:
            for name in DATABASES:
                handle = getattr(environment, name)
                cursor = transaction.cursor(handle) if handle is not None else []
                found[name] = [(bytes(key), bytes(value)) for key, value in cursor]
        return found
    finally:
        environment.lmdb.close()


def picture(number: int, size: int = 300) -> bytes:
    return b"picture %d " % number + bytes([number % 251]) * size


@st.composite
def writings(draw: Any) -> list[tuple[str, int, bool, str, bytes, int | None]]:
    """(producer, epoch step, drop, kind, body, picture): see `write`."""
    body = st.binary(max_size=50)
    known = st.just(("run_finished", encode_event(RunFinished(reason="steps"))))
    unknown = st.tuples(st.sampled_from(["from_the_future", "of_another"]), body)
    return draw(
        st.lists(
            st.tuples(
                st.sampled_from(["a", "worker-0", "ü ber"]),
                st.sampled_from([0, 0, 0, 1]),
                st.sampled_from([False, False, True]),
                st.one_of(known, unknown),
                st.one_of(st.none(), st.integers(0, 5)),
            ).map(lambda t: (t[0], t[1], t[2], *t[3], t[4])),
            max_size=30,
        )
    )


def write(
    writer: LogWriter, all_of_it: list[tuple[str, int, bool, str, bytes, int | None]]
) -> None:
    """Each as a message of its own; a picture goes with a `Rendered` that names it."""
    for producer, step, drop, kind, body, number in all_of_it:
        epoch, following = writer.position(producer)
        if step or epoch == 0:
            epoch, following = epoch + 1, 0
        blobs = {}
        if number is not None:
            data = picture(number)
            blobs = {blob_digest(data): data}
            named = Rendered(drawing="g0.s0.d0", renderer="x", picture=blob_digest(data))
            kind, body = "rendered", encode_event(named)
        submission = Submission(producer, epoch, following, kind, body, blobs, drop)
        answer: Answer = writer.append([[submission]])[0]
        assert not isinstance(answer, Exception)


def digest(number: int) -> str:
    return blob_digest(picture(number))


def rendering(sequence: int, number: int, size: int = 300) -> Submission:
    data = picture(number, size)
    event = Rendered(drawing=f"g{sequence}.s0.d0", renderer="x", picture=blob_digest(data))
    return Submission("w", 1, sequence, "rendered", encode_event(event), {blob_digest(data): data})


def a_log(path: Path, count: int = 60, size: int = 300) -> Path:
    writer = LogWriter(path, run="r", map_gib=1, sync="nosync")
    for start in range(0, count, 10):
        writer.append([[rendering(i, i, size)] for i in range(start, start + 10)])
    writer.close()
    return path


def compacted(log: Path, needed: set[str], archived: Path | None = None) -> None:
    with compacting(log) as writer:
        planned = plan(writer.reader(), needed)
        if archived is not None:
            ensure_archived(writer.reader(), planned, archived, [])
        compact(writer, planned, kept=KEPT, archived=archived)


def records(log: Path) -> list[Record]:
    reader = LogReader.open(log)
    try:
        return list(reader.scan())
    finally:
        reader.close()
