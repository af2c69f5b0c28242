"""The processes that torture.py torments; the nursery starts each by its function's name.

Each client numbers its events and writes a line `number offset` to a file for every one
acknowledged, so that what it was promised outlives a kill -9.
"""

import asyncio
import functools
import os
import random
import signal
import sys
import time
import uuid
from pathlib import Path

import zmq
from msgspec.structs import replace

from mmzero_async.log.errors import LogTorn
from mmzero_async.log.reader import LogReader
from mmzero_async.log.writer import LogWriter
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import WorkerFailed, encode_event
from mmzero_async.transport import messages as m
from mmzero_async.transport.client import LogClient
from mmzero_async.workers import log_server

ROLE = "tormented"
BLOB_EVERY = 3


def blob_of(worker: str, number: int) -> bytes:
    """Large ones, small ones, and some that all workers share."""
    if number % 7 == 0:
        return b"shared %d" % (number % 10) * 1000
    return f"{worker} {number} ".encode() * (1 + number % 500)


def event_of(worker: str, number: int) -> WorkerFailed:
    filling = "x" * (10, 500, 6000)[number % 3]
    return WorkerFailed(worker=worker, role=ROLE, error=f"{number} {filling}")


def blobs_of(worker: str, numbers: list[int]) -> dict[str, bytes]:
    blobs = [blob_of(worker, number) for number in numbers if number % BLOB_EVERY == 0]
    return {blob_digest(blob): blob for blob in blobs}


class Promises:
    """The file of acknowledged numbers."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def keep(self, numbers: list[int], offsets: list[int | None]) -> None:
        pairs = zip(numbers, offsets, strict=True)
        os.write(self._file, "".join(f"{n} {offset}\n" for n, offset in pairs).encode())


def server() -> int:
    """The real log-server process, but its wall clock jumps by years, both ways, at every look."""
    run_dir, port, seed = sys.argv[1:]
    rng, years = random.Random(seed), 10 * 365 * 86_400 * 10**9

    def clock() -> int:
        return time.time_ns() + rng.randrange(-years, years)

    jumping = functools.partial(LogWriter, clock=clock)
    log_server.LogWriter = jumping  # type: ignore[misc, assignment]
    return log_server.main(["--run-dir", run_dir, "--port", port])


def client() -> None:
    asyncio.run(appending(*sys.argv[1:]))


async def appending(url: str, digest: str, worker: str, first: str, seed: str, path: str) -> None:
    """Appends as workers do, several messages on the way, until it is killed."""
    rng, promises = random.Random(seed), Promises(path)
    number, room, tasks = int(first), asyncio.Semaphore(8), set()
    async with LogClient.connect(
        url, worker=worker, role=ROLE, config_digest=digest, patience=600
    ) as line:

        async def send(numbers: list[int]) -> None:
            events = [event_of(worker, n) for n in numbers]
            promises.keep(numbers, await line.append(events, blobs_of(worker, numbers)))
            room.release()

        while True:
            await room.acquire()
            numbers = list(range(number, number + rng.randint(1, 3)))
            number += len(numbers)
            task = asyncio.create_task(send(numbers))
            tasks.add(task)
            task.add_done_callback(failing_loudly(tasks))
            await asyncio.sleep(rng.random() * 0.04)


def failing_loudly(tasks: set):
    def ended(task: asyncio.Task) -> None:
        tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            print(f"an append failed: {task.exception()!r}", file=sys.stderr, flush=True)
            os._exit(3)

    return ended


class Repeater:
    """A raw DEALER that says everything many times, also what was answered long ago."""

    def __init__(
        self, url: str, digest: str, worker: str, first: int, seed: str, path: str
    ) -> None:
        self.rng, self.promises, self.worker = random.Random(seed), Promises(path), worker
        self.socket = zmq.Context().socket(zmq.DEALER)
        self.socket.connect(url)
        self.hello = m.Hello(
            worker=worker,
            role=ROLE,
            incarnation=uuid.uuid4().hex,
            host="h",
            pid=os.getpid(),
            config_digest=digest,
        )
        self.first, self.sequence, self.joined = first, 0, False
        self.sent: dict[int, list[int]] = {}  # sequence -> numbers
        self.answers: dict[int, list[int | None]] = {}
        self.heard = self.said_hello = self.sent_again = 0.0
        self.said, self.told = 0, os.open(path + ".repeated", os.O_WRONLY | os.O_CREAT)

    def run(self) -> None:
        while True:
            while self.socket.poll(5):
                self.hear(m.decode_to_worker(self.socket.recv_multipart()[0]))
            now = time.monotonic()
            if self.joined and now - self.heard < 1.0:
                self.repeat_yourself()
            elif now - self.said_hello > 0.5:
                self.joined, self.said_hello = False, now
                self.say(self.hello)

    def repeat_yourself(self) -> None:
        if time.monotonic() - self.sent_again > 0.3:
            self.sent_again = time.monotonic()
            for sequence in sorted(self.sent.keys() - self.answers.keys()):
                self.append(sequence)
        if len(self.sent) - len(self.answers) < 20 and self.rng.random() < 0.5:
            count = self.rng.randint(1, 3)
            start = self.first + self.sequence
            self.sent[self.sequence] = list(range(start, start + count))
            self.append(self.sequence)
            self.sequence += count
        for sequence in self.rng.choices(list(self.sent)[-60:] or [0], k=self.rng.randint(0, 4)):
            if sequence in self.sent:
                self.said += len(self.sent[sequence])
                self.append(sequence)
        os.pwrite(self.told, b"%d" % self.said, 0)

    def append(self, sequence: int) -> None:
        events = [event_of(self.worker, number) for number in self.sent[sequence]]
        blobs = blobs_of(self.worker, self.sent[sequence])
        message = m.Append(
            sequence=sequence,
            kinds=["worker_failed"] * len(events),
            bodies=[encode_event(event) for event in events],
            blobs=list(blobs),
        )
        self.say(message, *blobs.values())

    def hear(self, message: m.ToWorker) -> None:
        self.heard = time.monotonic()
        match message:
            case m.Welcome():
                self.hello, self.joined = replace(self.hello, epoch=message.epoch), True
            case m.Unknown():
                self.joined = False
            case m.Appended():
                self.promised(message.sequence, message.offsets)
            case m.AppendRefused() if message.again:
                pass  # out of sequence: what is missing is sent again anyway
            case m.AppendRefused() | m.Refused() | m.Malformed():
                raise SystemExit(f"refused: {message.reason}")
            case _:
                pass

    def promised(self, sequence: int, offsets: list[int | None]) -> None:
        earlier = self.answers.setdefault(sequence, offsets)
        if earlier != offsets:
            raise SystemExit(f"sequence {sequence} was answered {earlier}, then {offsets}")
        if earlier is offsets:
            self.promises.keep(self.sent[sequence], offsets)

    def say(self, message: m.Message, *frames: bytes) -> None:
        try:
            self.socket.send_multipart([m.encode(message), *frames], zmq.NOBLOCK)
        except zmq.Again:  # the server is away: say it later
            self.joined = False


def repeater() -> None:
    url, digest, worker, first, seed, path = sys.argv[1:]
    Repeater(url, digest, worker, int(first), seed, path).run()


def slow_reader() -> None:
    """Holds one snapshot until it is asked (SIGTERM): it must not have changed by a byte."""
    environment = LogReader.open(Path(sys.argv[1])).environment
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    def look(txn) -> list[bytes]:
        with txn.cursor(environment.events) as cursor:
            return [blob_digest(value) for value in cursor.iternext(keys=False)]

    with environment.lmdb.begin() as txn:
        before = look(txn)
        print("holds", len(before), flush=True)
        signal.sigwait([signal.SIGTERM])
        print("same" if look(txn) == before else "changed", flush=True)


def read_all() -> None:
    """`whole N`, or `torn` when opening refuses the file; it must not die of it."""
    try:
        reader = LogReader.open(Path(sys.argv[1]))
    except LogTorn:
        print("torn")
        return
    print("whole", sum(1 for _ in reader.scan()))
