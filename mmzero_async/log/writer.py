"""The one writer: messages go in as a group commit, each whole or not at all, each once.

`append` returns after the transaction is on disk; what it answers may be acknowledged. Sending
the same (producer, epoch, sequence) again changes nothing and gets the same answer.
"""

import errno
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from mmzero_async.log.drafts import clear_compacting
from mmzero_async.log.environment import (
    COMPACTED,
    DROPPED,
    OFFSET,
    PRODUCER,
    lock_for_writing,
    open_environment,
    sequence_key,
)
from mmzero_async.log.errors import FencedProducer, LogError, LogFull, SequenceGap
from mmzero_async.log.index import Indexed, Indexer, forget, indexed, resume
from mmzero_async.log.reader import LogReader
from mmzero_async.log.tombstones import Tombstone, encode_tombstone
from mmzero_async.schemas.events import SCHEMA_VERSION
from mmzero_async.schemas.record import Envelope, RecordDamaged, encode_record

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


@dataclass(frozen=True, slots=True)
class Submission:
    """One event as a producer sent it, body encoded. `drop`: use up its number, store nothing."""

    producer: str
    epoch: int
    sequence: int
    kind: str
    body: bytes
    blobs: Mapping[str, bytes | memoryview] = field(default_factory=dict)
    drop: bool = False


@dataclass(frozen=True, slots=True)
class Ack:
    """Where the event stands; None: dropped, the log did not wait for it any more."""

    offset: int | None
    duplicate: bool = False


Answer = list[Ack] | LogError
T = TypeVar("T")


class LogWriter:
    """Opens a log for writing, creating it if need be. Close it, or leave that to the kernel."""

    def __init__(
        self,
        path: Path,
        *,
        run: str,
        map_gib: int = 64,
        sync: str = "full",
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._lock = lock_for_writing(path)
        clear_compacting(path)
        try:
            self._env = open_environment(path, write=True, run=run, map_gib=map_gib, sync=sync)
        except LogError:
            self._lock.release()
            raise
        self._clock = clock
        self._reader = LogReader(self._env)
        self.next_offset = self._reader.next_offset
        self._indexer = self._resume_index()

    def _resume_index(self) -> Indexer | None:
        """None where the log cannot be indexed to its end: it is written on, and readers scan."""
        try:
            return self._durably(lambda: resume(self._env))
        except (RecordDamaged, LogFull, lmdb.CorruptedError, lmdb.PageNotFoundError):
            return None

    def reindex(self) -> bool:
        """Makes the secondary index anew. False when damage keeps it from reaching the end."""
        self._durably(lambda: forget(self._env))
        self._indexer = self._resume_index()
        return self._indexer is not None

    def append(self, messages: Sequence[Sequence[Submission]]) -> list[Answer]:
        """One durable transaction for all messages; an answer for each.

        A message is fenced off (FencedProducer) or out of sequence (SequenceGap) on its own.
        Raises LogFull when the disk has no room: then nothing of the batch is in the log.
        """
        self._env.lmdb.reader_check()  # slots of the dead: nobody else may be there to clear them
        return self._durably(lambda: self._append(messages))

    def _durably(self, transaction: Callable[[], T]) -> T:
        """Runs it, in a larger map if need be; LogFull when the disk has no room."""
        while True:
            try:
                return transaction()
            except lmdb.MapFullError:
                self._grow()
            except (lmdb.Error, OSError) as error:
                if is_full(error):
                    raise LogFull(
                        f"no room for the log at {self._env.path}: {error}. Free disk space; "
                        "nothing acknowledged is lost and the run goes on when there is room"
                    ) from error
                raise

    def _append(self, messages: Sequence[Sequence[Submission]]) -> list[Answer]:
        offset = self.next_offset
        answers: list[Answer] = []
        fresh: list[Indexed] = []
        with self._env.lmdb.begin(write=True) as txn:
            ends: dict[str, tuple[int, int]] = {}
            for message in messages:
                try:
                    acks = self._check(txn, ends, message)
                except LogError as error:
                    answers.append(error)
                    continue
                if acks is None:
                    acks = []
                    for submission in message:
                        acks.append(self._put(txn, offset, submission, fresh))
                        offset += not submission.drop
                    final = message[-1]
                    ends[final.producer] = (final.epoch, final.sequence + 1)
                answers.append(acks)
            for producer, position in ends.items():
                self._set_position(txn, producer, position)
            if self._indexer is not None:
                self._indexer.write(txn, fresh)
        self.next_offset = offset
        if self._indexer is not None:
            self._indexer.keep(fresh)
        return answers

    def _check(
        self, txn: Any, ends: dict[str, tuple[int, int]], message: Sequence[Submission]
    ) -> list[Ack] | None:
        """The earlier answer for a message sent again; None for a new one that may go in."""
        first = message[0]
        epoch, following = ends.get(first.producer) or self._position(txn, first.producer)
        if first.epoch < epoch:
            raise FencedProducer(
                f"producer {first.producer} writes as epoch {first.epoch}, but epoch {epoch} has "
                "taken over: another process bears the same name"
            )
        if first.epoch == epoch and first.sequence < following:
            return [self._earlier(txn, submission) for submission in message]
        expected = following if first.epoch == epoch else 0
        if first.sequence != expected:
            raise SequenceGap(
                f"producer {first.producer} epoch {first.epoch} sent sequence {first.sequence}, "
                f"expected {expected}"
            )
        return None

    def _earlier(self, txn: Any, submission: Submission) -> Ack:
        key = sequence_key(submission.producer, submission.epoch, submission.sequence)
        found = txn.get(key, db=self._env.sequences)
        if found is None:
            raise SequenceGap(
                f"producer {submission.producer} epoch {submission.epoch} sent sequence "
                f"{submission.sequence} in a message that was cut differently before"
            )
        (offset,) = OFFSET.unpack(found)
        return Ack(None if offset == DROPPED else offset, duplicate=True)

    def _put(self, txn: Any, offset: int, submission: Submission, fresh: list[Indexed]) -> Ack:
        key = sequence_key(submission.producer, submission.epoch, submission.sequence)
        place = DROPPED if submission.drop else offset
        txn.put(key, OFFSET.pack(place), db=self._env.sequences)
        if submission.drop:
            return Ack(None)
        envelope = Envelope(
            SCHEMA_VERSION,
            self._clock(),
            submission.producer,
            submission.epoch,
            submission.sequence,
            submission.kind,
            submission.body,
        )
        key = OFFSET.pack(offset)
        txn.put(key, encode_record(envelope), db=self._env.events, append=True)
        fresh.append(indexed(envelope))
        for digest, data in submission.blobs.items():
            self._put_blob(txn, bytes.fromhex(digest), data)
        return Ack(offset)

    def _put_blob(self, txn: Any, key: bytes, data: bytes | memoryview) -> bool:
        """Whether it is new; a blob that had been dropped loses its tombstone."""
        new = bool(txn.put(key, data, db=self._env.blobs, overwrite=False))
        if new:
            txn.delete(key, db=self._env.dropped)
        return new

    # --- compaction ------------------------------------------------------------------------

    def drop_blobs(self, keys: Sequence[bytes], reason: str, archive: str) -> int:
        """Puts a tombstone in the place of each blob, in one transaction; bytes dropped. LogFull.

        The file does not get smaller by it, but reuses what becomes free.
        """

        def dropped() -> int:
            size, now = 0, self._clock()
            with self._env.lmdb.begin(write=True) as txn:
                txn.put(b"format", OFFSET.pack(COMPACTED), db=self._env.meta)
                for key in keys:
                    data = txn.pop(key, db=self._env.blobs)
                    if data is not None:
                        size += len(data)
                        tombstone = Tombstone(len(data), reason, now, archive)
                        encoded = encode_tombstone(key, tombstone)
                        txn.put(key, encoded, db=self._env.dropped)
            return size

        return self._durably(dropped)

    def put_back(self, blobs: Mapping[bytes, bytes]) -> int:
        """Stores again those of the blobs that have a tombstone; how many. LogFull."""

        def stored() -> int:
            count = 0
            with self._env.lmdb.begin(write=True) as txn:
                for key, data in blobs.items():
                    if txn.get(key, db=self._env.dropped) is not None:
                        count += self._put_blob(txn, key, data)
            return count

        return self._durably(stored)

    # --- producers -------------------------------------------------------------------------

    def _position(self, txn: Any, producer: str) -> tuple[int, int]:
        found = txn.get(producer.encode(), db=self._env.producers)
        if found is None:
            return 0, 0
        epoch, following = PRODUCER.unpack(found)
        return epoch, following

    def _set_position(self, txn: Any, producer: str, position: tuple[int, int]) -> None:
        txn.put(producer.encode(), PRODUCER.pack(*position), db=self._env.producers)

    def position(self, producer: str) -> tuple[int, int]:
        """The producer's newest epoch (0: none yet) and the sequence it is to write next."""
        with self._env.lmdb.begin() as txn:
            return self._position(txn, producer)

    def open_epoch(self, producer: str) -> int:
        """A new epoch, on disk when this returns: it fences the older ones and is given once.

        Raises LogFull.
        """

        def opened() -> int:
            with self._env.lmdb.begin(write=True) as txn:
                epoch = self._position(txn, producer)[0] + 1
                self._set_position(txn, producer, (epoch, 0))
            return epoch

        return self._durably(opened)

    def last_epoch(self, producer: str) -> int:
        """The producer's newest epoch; 0 if it never had one."""
        return self.position(producer)[0]

    def reader(self) -> LogReader:
        """A reader in this process: LMDB allows an environment to be opened once a process."""
        return self._reader

    def _grow(self) -> None:
        self._env.lmdb.set_mapsize(self._env.lmdb.info()["map_size"] * 2)

    def close(self) -> None:
        self._env.lmdb.close()
        self._lock.release()


def is_full(error: Exception) -> bool:
    """A commit that a full disk cut short comes as a bare lmdb.Error with EIO in its text."""
    if isinstance(error, lmdb.DiskError):
        return True
    number = getattr(error, "errno", None)
    return number in _FULL or any(os.strerror(code) in str(error) for code in _FULL)
