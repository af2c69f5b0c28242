"""A log is whole wherever its compaction was killed, and after any sequence of them."""

import random
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from log_contents import a_log, compacted, digest, picture, records, rendering

from mmzero_async.log.errors import BlobDropped
from mmzero_async.log.reader import LogReader
from mmzero_async.log.restore import restore_pictures
from mmzero_async.log.verify import verify
from mmzero_async.log.writer import Ack, LogWriter
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import Rendered

# --- killed at any moment -----------------------------------------------------------------------

COMPACTOR = textwrap.dedent("""
    import sys
    from pathlib import Path
    from mmzero_async.log.compact import compact, compacting, plan
    needed = set(sys.argv[2].split(",")) 
    print("begins", flush=True)
    with compacting(Path(sys.argv[1])) as writer:
        compact(writer, plan(writer.reader(), needed), kept="k", archived=None)
    print("done", flush=True)
""")


def test_killed_at_any_moment_of_a_compaction_the_log_is_whole(tmp_path: Path) -> None:
    rng = random.Random(11)
    log = a_log(tmp_path / "log", count=200, size=9_000)
    events = records(log)
    keep = {blob_digest(picture(i, 9_000)) for i in range(0, 200, 10)}
    killed, seconds = 0, 0.3
    for turn in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", COMPACTOR, str(log), ",".join(keep)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None and child.stdout.readline() == "begins\n"
        try:
            child.wait(timeout=rng.random() * seconds)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            killed += 1
        finished = "done" in child.stdout.read()
        child.wait()
        seconds *= 0.8 if finished else 1.2  # about where the work is done, on any machine
        assert verify(log).clean
        assert records(log) == events
        assert every_picture_is_there_or_typed(log, keep)
        writer = LogWriter(log, run="r", map_gib=1)  # and it goes on
        assert not (log / ".compacting").exists()
        number = 1000 + turn
        writer.append([[rendering(200 + turn, number, 9_000)]])
        writer.close()
        keep.add(blob_digest(picture(number, 9_000)))
        events = records(log)
    assert killed > 0
    compacted(log, keep)
    assert verify(log).blobs == len(keep)
    assert records(log) == events


def every_picture_is_there_or_typed(log: Path, keep: set[str]) -> bool:
    reader = LogReader.open(log)
    try:
        for record in reader.scan():
            event = record.event()
            assert isinstance(event, Rendered) and event.picture is not None
            try:
                reader.blob(event.picture)
            except BlobDropped:
                assert event.picture not in keep
        return True
    finally:
        reader.close()


# --- against a model ----------------------------------------------------------------------------


class CompactedAgainstModel(RuleBasedStateMachine):
    """Appends, compactions, restarts and restorations against a list and two sets."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.log = Path(self.folder.name) / "log"
        self.events: list[tuple[int, int]] = []  # sequence, picture
        self.there: set[int] = set()
        self.dropped: set[int] = set()
        self.archives: list[tuple[Path, set[int]]] = []
        LogWriter(self.log, run="r", map_gib=1, sync="nosync").close()

    @rule(numbers=st.lists(st.integers(0, 12), min_size=1, max_size=4))
    def append(self, numbers: list[int]) -> None:
        writer = LogWriter(self.log, run="r", map_gib=1, sync="nosync")
        for number in numbers:
            sequence = len(self.events)
            assert writer.append([[rendering(sequence, number)]]) == [[Ack(sequence)]]
            self.events.append((sequence, number))
            self.there.add(number)
            self.dropped.discard(number)
        writer.close()

    @precondition(lambda self: self.events)
    @rule(needed=st.sets(st.integers(0, 12)), keep=st.booleans())
    def compact(self, needed: set[int], keep: bool) -> None:
        out = Path(self.folder.name) / f"archive{len(self.archives)}" if keep else None
        if out is not None:
            self.archives.append((out, set(self.there)))
        compacted(self.log, {digest(number) for number in needed}, out)
        self.dropped |= self.there - needed
        self.there &= needed

    @precondition(lambda self: self.archives)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        out, held = data.draw(st.sampled_from(self.archives))
        writer = LogWriter(self.log, run="r", map_gib=1, sync="nosync")
        back = self.dropped & held
        assert restore_pictures(out, writer) == len(back)
        writer.close()
        self.there |= back
        self.dropped -= back

    @invariant()
    def every_event_is_readable_and_every_picture_there_or_typed(self) -> None:
        reader = LogReader.open(self.log)
        try:
            found = [
                (record.envelope.sequence, record.event().picture)  # type: ignore[union-attr]
                for record in reader.scan()
            ]
            assert found == [(sequence, digest(number)) for sequence, number in self.events]
            for number in self.there:
                assert reader.blob(digest(number)) == picture(number)
                assert reader.tombstone(digest(number)) is None
            for number in self.dropped:
                with pytest.raises(BlobDropped):
                    reader.blob(digest(number))
        finally:
            reader.close()
        checked = verify(self.log)
        assert checked.clean, checked.problems
        assert (checked.blobs, checked.dropped) == (len(self.there), len(self.dropped))

    def teardown(self) -> None:
        self.folder.cleanup()


TestCompactedAgainstModel = CompactedAgainstModel.TestCase
TestCompactedAgainstModel.settings = settings(max_examples=15, stateful_step_count=10)
