"""The log keeps its promises: dense offsets, once, fenced, atomic, durable when acknowledged."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from mmzero_async.log.errors import BlobMissing, FencedProducer, ForeignLog, LogLocked, SequenceGap
from mmzero_async.log.reader import LogReader
from mmzero_async.log.writer import Ack, LogWriter, Submission
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import RunFinished, UnknownEvent, encode_event
from mmzero_async.schemas.record import RecordDamaged

BODY = encode_event(RunFinished(reason="steps"))


def say(producer: str, sequence: int, *, epoch: int = 1, drop: bool = False, **blobs: bytes):
    named = {blob_digest(data): data for data in blobs.values()}
    return Submission(producer, epoch, sequence, "run_finished", BODY, named, drop)


@pytest.fixture
def writer(tmp_path: Path):
    log = LogWriter(tmp_path / "log", run="r", map_gib=1)
    yield log
    log.close()


def test_offsets_are_dense_over_messages_and_producers(writer):
    assert writer.append([[say("a", 0), say("a", 1)], [say("b", 0)]]) == [
        [Ack(0), Ack(1)],
        [Ack(2)],
    ]
    assert [record.offset for record in writer.reader().scan()] == [0, 1, 2]
    assert writer.reader().get(2).event() == RunFinished(reason="steps")


def test_sending_again_changes_nothing_and_gets_the_same_answer(writer):
    first = writer.append([[say("a", 0)], [say("a", 1, drop=True)], [say("a", 2)]])
    again = writer.append([[say("a", 0)], [say("a", 1)], [say("a", 2)]])
    assert [acks[0].offset for acks in again] == [acks[0].offset for acks in first] == [0, None, 1]
    assert all(acks[0].duplicate for acks in again)
    assert writer.next_offset == 2


def test_an_older_epoch_is_fenced_and_a_gap_refused_without_harm_to_others(writer):
    writer.append([[say("a", 0, epoch=2)]])
    fenced, gap, good = writer.append([[say("a", 1)], [say("a", 5, epoch=2)], [say("b", 0)]])
    assert isinstance(fenced, FencedProducer) and "epoch 2" in str(fenced)
    assert isinstance(gap, SequenceGap) and "expected 1" in str(gap)
    assert good == [Ack(1)]


def test_a_message_goes_in_as_a_whole_or_not_at_all(writer):
    (answer,) = writer.append([[say("a", 1), say("a", 2)]])
    assert isinstance(answer, SequenceGap)
    assert writer.next_offset == 0


def test_blobs_are_stored_once_and_checked(writer):
    picture = os.urandom(5000)
    writer.append([[say("a", 0, p=picture), say("a", 1, p=picture)]])
    assert writer.reader().stats().blobs == 1
    assert writer.reader().blob(blob_digest(picture)) == picture
    with pytest.raises(BlobMissing):
        writer.reader().blob("00" * 32)


def test_a_second_writer_and_a_foreign_run_are_refused_by_name(tmp_path):
    writer = LogWriter(tmp_path / "log", run="mine", map_gib=1)
    with pytest.raises(LogLocked, match=str(os.getpid())):
        LogWriter(tmp_path / "log", run="mine", map_gib=1)
    writer.close()
    with pytest.raises(ForeignLog, match="mine"):
        LogWriter(tmp_path / "log", run="yours", map_gib=1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "data.mdb").write_bytes(b"not a log" * 1000)
    with pytest.raises(ForeignLog):
        LogReader.open(tmp_path / "other")


def test_a_damaged_record_is_named_and_not_returned(writer):
    writer.append([[say("a", i)] for i in range(3)])
    env = writer._env
    with env.lmdb.begin(write=True) as txn:
        key = (1).to_bytes(8, "big")
        data = bytearray(txn.get(key, db=env.events))
        data[-1] ^= 1
        txn.put(key, bytes(data), db=env.events)
    with pytest.raises(RecordDamaged, match="offset 1"):
        list(writer.reader().scan())


def test_events_of_a_newer_writer_are_kept(writer):
    writer.append([[Submission("a", 1, 0, "from_the_future", b"\x80")]])
    assert writer.reader().get(0).event() == UnknownEvent("from_the_future", b"\x80")


WRITER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from mmzero_async.log.writer import LogWriter, Submission
    from mmzero_async.schemas.events import RunFinished, encode_event
    log = LogWriter(Path(sys.argv[1]), run="r", map_gib=1)
    epoch = log.last_epoch("p") + 1
    body = encode_event(RunFinished(reason="x" * 2000))
    for i in range(10**9):
        message = [Submission("p", epoch, 2 * i + j, "run_finished", body) for j in range(2)]
        (acks,) = log.append([message])
        print(acks[-1].offset, flush=True)
""")


@pytest.mark.parametrize("acknowledged", [3, 17, 64])
def test_kill_9_loses_nothing_acknowledged(tmp_path, acknowledged):
    path = tmp_path / "log"
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        last = -1
        for _ in range(acknowledged):
            last = int(process.stdout.readline())
        if acknowledged == 17:  # another process reads while it is written
            reader = LogReader.open(path)
            assert len(list(reader.scan(0, last + 1))) == last + 1
            reader.close()
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
        last = int(rest[-1]) if rest and rest[-1].isdigit() else last
        process.wait()
        reader = LogReader.open(path)
        records = list(reader.scan())
        reader.close()
        assert len(records) > last
        assert len(records) % 2 == 0, "half a message is in the log"
        assert [r.offset for r in records] == list(range(len(records)))


class LogAgainstModel(RuleBasedStateMachine):
    """Random sends, resends, takeovers and restarts against a list and a dict."""

    sent = Bundle("sent")

    def __init__(self):
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "log"
        self.log = LogWriter(self.path, run="r", map_gib=1, sync="nosync")
        self.events: list[tuple] = []
        self.answers: dict[tuple, int | None] = {}
        self.position: dict[str, tuple[int, int]] = {}

    @rule(target=sent, producer=st.sampled_from("ab"), drop=st.booleans(), n=st.integers(1, 3))
    def send(self, producer, drop, n):
        epoch, last = self.position.get(producer, (1, -1))
        message = [say(producer, last + 1 + i, epoch=epoch, drop=drop) for i in range(n)]
        (acks,) = self.log.append([message])
        for submission, ack in zip(message, acks, strict=True):
            key = (producer, epoch, submission.sequence)
            expected = None if drop else len(self.events)
            if not drop:
                self.events.append(key)
            assert ack == Ack(expected)
            self.answers[key] = expected
        self.position[producer] = (epoch, last + n)
        return message

    @rule(message=sent)
    def send_again(self, message):
        (acks,) = self.log.append([message])
        epoch, _ = self.position[message[0].producer]
        if message[0].epoch < epoch:
            assert isinstance(acks, FencedProducer)
            return
        for submission, ack in zip(message, acks, strict=True):
            key = (submission.producer, submission.epoch, submission.sequence)
            assert ack == Ack(self.answers[key], duplicate=True)

    @rule(producer=st.sampled_from("ab"))
    def take_over(self, producer):
        epoch = self.log.last_epoch(producer) + 1
        (acks,) = self.log.append([[say(producer, 0, epoch=epoch)]])
        self.answers[producer, epoch, 0] = len(self.events)
        assert acks == [Ack(len(self.events))]
        self.events.append((producer, epoch, 0))
        self.position[producer] = (epoch, 0)

    @rule(producer=st.sampled_from("ab"), skip=st.integers(1, 5))
    def skip(self, producer, skip):
        epoch, last = self.position.get(producer, (1, -1))
        (answer,) = self.log.append([[say(producer, last + 1 + skip, epoch=epoch)]])
        assert isinstance(answer, SequenceGap)

    @rule()
    def restart(self):
        self.log.close()
        self.log = LogWriter(self.path, run="r", map_gib=1, sync="nosync")

    @invariant()
    def the_log_is_the_model(self):
        found = [
            (r.envelope.producer, r.envelope.epoch, r.envelope.sequence)
            for r in self.log.reader().scan()
        ]
        assert found == self.events

    def teardown(self):
        self.log.close()
        self.folder.cleanup()


TestLogAgainstModel = LogAgainstModel.TestCase
TestLogAgainstModel.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
