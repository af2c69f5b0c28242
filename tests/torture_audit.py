"""What must be true of a log after every round of torture, held against what clients were promised.

Each (worker, number) that was acknowledged is in the log exactly once, at the offset that was told
and with its blob; offsets are dense, each worker's numbers in order, and `verify` is clean.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from torture_children import BLOB_EVERY, ROLE, blob_of

from mmzero_async.log.reader import LogReader
from mmzero_async.log.verify import verify
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import WorkerFailed


@dataclass
class Audit:
    """Reads on where it stopped. Counts what it held against each other."""

    run_dir: Path
    places: dict[tuple[str, int], int] = field(default_factory=dict)  # (worker, number) -> offset
    last: dict[str, int] = field(default_factory=dict)
    offset: int = 0
    promised: int = 0
    read: Counter[Path] = field(default_factory=Counter)  # bytes of each file of promises

    def __call__(self) -> None:
        promises = self._new_promises()  # before the log is read: it must hold them all
        reader = LogReader.open(self.run_dir / "log")
        try:
            for record in reader.scan(self.offset):
                assert record.offset == self.offset, "a hole in the log"
                self.offset += 1
                event = record.event()
                if isinstance(event, WorkerFailed) and event.role == ROLE:
                    self._place(record.envelope.producer, event, record.offset)
            for worker, number, offset in promises:
                assert self.places.get((worker, number)) == offset, (
                    f"{worker} was promised {number} at offset {offset}, the log has it at "
                    f"{self.places.get((worker, number))}"
                )
                if number % BLOB_EVERY == 0:
                    blob = blob_of(worker, number)
                    assert reader.blob(blob_digest(blob)) == blob
            self.promised += len(promises)
        finally:
            reader.close()
        found = verify(self.run_dir / "log")
        assert found.clean, found.problems
        assert found.events >= self.offset

    def _place(self, producer: str, event: WorkerFailed, offset: int) -> None:
        number = int(event.error.split()[0])
        assert producer == event.worker
        assert (producer, number) not in self.places, f"{producer} {number} is in the log twice"
        assert number > self.last.get(producer, -1), f"{producer} {number} comes too late"
        self.places[producer, number] = offset
        self.last[producer] = number

    def _new_promises(self) -> list[tuple[str, int, int]]:
        found = []
        for path in sorted(self.run_dir.glob("*.promised")):
            with path.open("rb") as file:
                file.seek(self.read[path])
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self.read[path] += len(whole)
            for line in whole.decode().splitlines():
                number, offset = line.split()
                found.append((path.stem, int(number), int(offset)))
        return found
