"""Who makes the rows: this process, or others beside it. Which is ready first shows nowhere:
batches come back in the order of their tasks.

A process gets tasks over a socket of its own and ends when the other end is gone, however that came
about. It reads the log itself; nothing is written but by the one that asked for it.
"""

import gc
import pickle
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import pyarrow as pa

from mmzero_async.ops.datasets.columns import schema_of
from mmzero_async.ops.datasets.fates import Fates, Index
from mmzero_async.ops.datasets.groups import KEPT_BYTES, SELDOM, Recent, Walk
from mmzero_async.ops.datasets.maker import Batch, Maker
from mmzero_async.ops.datasets.options import DatasetError, Options
from mmzero_async.ops.datasets.sources import sources
from mmzero_async.ops.datasets.tasks import Task

_AHEAD = 2  # tasks that a process has: one that it is at, and the next
_SECONDS_TO_END = 10.0
_GONE = (EOFError, ConnectionError)

Made = Callable[[Iterable[Task]], Iterator[tuple[Task, Batch]]]


@dataclass(frozen=True, slots=True)
class _Job:
    """What a process has to know before its first task."""

    folder: Path
    stops: dict[str, int]
    indices: list[Index]  # one a source: read once, for all
    options: Options


@contextmanager
def crew(count: int, folder: Path, walks: Sequence[Walk], options: Options) -> Iterator[Made]:
    """Makes the tasks of a run's or a collection's folder, so many at a time.

    DatasetError: a process was killed. What making rows raises, wherever it did.
    """
    if count == 1:
        maker = Maker(walks, options)
        yield lambda tasks: ((task, maker.make(task)) for task in tasks)
        return
    stops = {walk.source.name: walk.source.stop for walk in walks}
    job = _Job(folder.resolve(), stops, [walk.fates.index for walk in walks], options)
    others: list[_Other] = []
    try:
        others.extend(_Other(job) for _ in range(count))
        yield lambda tasks: _in_order(others, tasks, schema_of(options))
    finally:
        for other in others:
            other.leave()
        for other in others:
            other.end()


def _in_order(
    others: Sequence["_Other"], tasks: Iterable[Task], schema: pa.Schema
) -> Iterator[tuple[Task, Batch]]:
    waiting: deque[tuple[_Other, Task]] = deque()
    for number, task in enumerate(tasks):
        other = others[number % len(others)]
        other.send(task)
        waiting.append((other, task))
        if len(waiting) == _AHEAD * len(others):
            other, task = waiting.popleft()
            yield task, other.batch(schema)
    for other, task in waiting:
        yield task, other.batch(schema)


class _Other:
    """A process as it is seen from the one that asks."""

    def __init__(self, job: _Job) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", __name__, str(theirs.fileno())]
        with theirs:
            # Not of the terminal's group: Ctrl-C is for who asks, and it ends the others.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._connection = Connection(ours.detach())
        self._send(pickle.dumps(job))

    def send(self, task: Task) -> None:
        self._send(msgspec.msgpack.encode(task))

    def _send(self, data: bytes) -> None:
        try:
            self._connection.send_bytes(data)
        except _GONE:
            raise self._killed() from None

    def batch(self, schema: pa.Schema) -> Batch:
        try:
            found: Batch | Exception = self._connection.recv()
            data = self._connection.recv_bytes()
        except _GONE:
            raise self._killed() from None
        if isinstance(found, Exception):
            raise found
        if data:
            found.packed = pa.ipc.read_record_batch(pa.py_buffer(data), schema)
        return found

    def leave(self) -> None:
        self._connection.close()

    def end(self) -> None:
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _killed(self) -> DatasetError:
        status = self._process.wait()
        return DatasetError(
            f"a process that made rows ended with status {status} (-9: killed, where memory ran "
            "out perhaps): go on with --resume, and fewer --processes"
        )


def work(descriptor: int) -> None:
    """Of such a process: until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.set_threshold(*SELDOM)
    with Connection(descriptor) as connection, suppress(*_GONE):
        job: _Job = connection.recv()
        with sources(job.folder, job.stops) as found:
            walks = [
                Walk(source, Fates(source.view, index), Recent(source.view, KEPT_BYTES // 16))
                for source, index in zip(found, job.indices, strict=True)
            ]
            maker, decoder = Maker(walks, job.options), msgspec.msgpack.Decoder(Task)
            while True:
                _answer(connection, maker, walks, decoder.decode(connection.recv_bytes()))


def _answer(connection: Connection, maker: Maker, walks: Sequence[Walk], task: Task) -> None:
    try:
        items = task.items
        offsets = (at for it in items for at in ([it] if isinstance(it, int) else it.offsets))
        walks[task.source].recent.load(offsets)
        batch = maker.make(task)
    except Exception as error:
        connection.send(_portable(error))
        connection.send_bytes(b"")
        return
    packed = batch.packed
    arrow = isinstance(packed, pa.RecordBatch)
    batch.packed = [] if arrow else packed
    connection.send(batch)
    connection.send_bytes(packed.serialize() if arrow else b"")  # copied once less than pickled


def _portable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return DatasetError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    # Under its own name, for what is pickled bears it.
    from mmzero_async.ops.datasets import crew as own

    own.work(int(sys.argv[1]))
