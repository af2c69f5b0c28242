"""What a power cut may leave of a file: recorded writes and syncs of a process, and images of them.

The model: a write is on disk when a later fdatasync of the file has returned, or at once through a
descriptor opened with O_DSYNC; of all others any sectors may be there and any may be missing. A
sector of 512 bytes is whole, new or old. What it leaves out: disks that lie about a flush.
"""

import random
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512
_CALLS = (
    "openat,lseek,write,writev,pwrite64,pwritev,fdatasync,fsync,msync,ftruncate,sync_file_range"
)
_LINE = re.compile(r"(?:\[pid +\d+\] |\d+ +)?(\w+)\((.*)\) += (-?\d+)")
_BYTES = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')

# The process that is recorded: says `acknowledged N` when the batch of event N - 1 is appended.
WRITER = """
import os, random, sys
from pathlib import Path
from mmzero_async.log.writer import LogWriter, Submission
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import RunFinished, encode_event

folder, seed, sync, batches = sys.argv[1:]
rng, sequence = random.Random(int(seed)), 0
writer = LogWriter(Path(folder), run="r", map_gib=1, sync=sync)
for _ in range(int(batches)):
    batch = []
    for _ in range(rng.randint(1, 6)):
        body = encode_event(RunFinished(reason=f"{sequence} " + "x" * rng.choice((9, 900, 9000))))
        blob = rng.randbytes(rng.choice((40, 5000)))
        submission = Submission("p", 1, sequence, "run_finished", body, {blob_digest(blob): blob})
        batch.append([submission])
        sequence += 1
    assert not any(isinstance(answer, Exception) for answer in writer.append(batch))
    os.write(1, b"acknowledged %d" % sequence)
os._exit(0)
"""


@dataclass(frozen=True)
class Write:
    offset: int
    data: bytes


@dataclass
class Recording:
    """One moment after the other: a write, a sync (None) or a count of acknowledged events."""

    moments: list[Write | int | None] = field(default_factory=list)

    def image(self, moment: int, rng: random.Random) -> tuple[bytes, int]:
        """What the disk may hold after so many moments, and how many events were acknowledged."""
        sure, pending, acknowledged = bytearray(), list[Write](), 0
        for what in self.moments[:moment]:
            match what:
                case int():
                    acknowledged = what
                case None:
                    for write in pending:
                        _put(sure, write.offset, write.data)
                    pending = []
                case Write():
                    pending.append(what)
        share = rng.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        for write in pending:
            lose_whole = rng.random() < 0.3 and rng.random() > share
            for start in range(0, len(write.data), SECTOR):
                if not lose_whole and rng.random() < share:
                    _put(sure, write.offset + start, write.data[start : start + SECTOR])
        return bytes(sure), acknowledged


def _put(image: bytearray, offset: int, data: bytes) -> None:
    image.extend(bytes(max(0, offset + len(data) - len(image))))
    image[offset : offset + len(data)] = data


def strace() -> str | None:
    """The tool, if it may trace here."""
    tool = shutil.which("strace")
    if tool is None or subprocess.run([tool, "true"], capture_output=True).returncode != 0:
        return None
    return tool


def record(tool: str, log: Path, *, seed: int, batches: int, sync: str = "full") -> Recording:
    """Runs WRITER under strace; what it did to data.mdb, in order."""
    traced = log.with_suffix(".strace")
    command = [tool, "-f", "-xx", "-s", "100000000", "-e", f"trace={_CALLS}", "-o", str(traced)]
    command += [sys.executable, "-c", WRITER, str(log), str(seed), sync, str(batches)]
    subprocess.run(command, check=True, capture_output=True)
    return parse(traced.read_text())


def parse(text: str) -> Recording:
    recording, data_files = Recording(), dict[int, bool]()  # descriptor -> writes are synced
    places: dict[int, int] = {}  # descriptor -> where its next write goes
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None or (result := int(found[3])) < 0:
            continue
        call, arguments = found[1], found[2]
        descriptor = arguments.split(",")[0]
        number = int(descriptor) if descriptor.isdecimal() else -1
        said = [bytes.fromhex(hexed.replace("\\x", "")) for hexed in _BYTES.findall(arguments)]
        if call == "openat":
            if said[0].endswith(b"/data.mdb"):
                data_files[result] = "O_DSYNC" in arguments or "O_SYNC" in arguments
            else:
                data_files.pop(result, None)
        elif call == "write" and number == 1 and said[0].startswith(b"acknowledged"):
            recording.moments.append(int(said[0].split()[1]))
        elif number not in data_files:
            continue
        elif call == "lseek":
            places[number] = result
        elif call in ("pwrite64", "writev"):
            if call == "writev":
                offset = places[number]
                places[number] += result
            else:
                offset = int(arguments.rsplit(", ", 1)[1], 0)
            recording.moments.append(Write(offset, b"".join(said)[:result]))
            if data_files[number]:
                # Durable on return; before that it may be half there, like any write.
                recording.moments.append(None)
        elif call in ("fdatasync", "fsync"):
            recording.moments.append(None)
        else:
            raise AssertionError(f"data.mdb was written in a way that this does not know: {call}")
    return recording
