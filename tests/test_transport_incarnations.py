"""Who is who: workers that die, come back and bear each other's names do no harm to the log."""

import threading

import msgspec
from transport_rig import CONFIG, Wire, events_of, hold, measured, serving, wires

from mmzero_async.schemas.events import Measured, WorkerJoined, WorkerLeft
from mmzero_async.transport import messages as m


def test_two_incarnations_never_share_an_epoch_even_over_a_restart(tmp_path):
    """An epoch that never wrote must survive a restart, or two workers would share sequences."""
    with serving(tmp_path) as server, wires(server, "twin") as (older,):
        epoch = older.join().epoch
        name = older.hello.incarnation
    with serving(tmp_path) as server:
        newer, back = Wire(server.url, "twin"), Wire(server.url, "twin", name)
        try:
            assert newer.join().epoch > epoch
            newer.append(0, measured(1))
            assert newer.hear(m.Appended)
            back.say(msgspec.structs.replace(back.hello, epoch=epoch))
            assert "taken over" in back.hear(m.Refused)[0].reason
            newer.append(1, measured(2))
            assert newer.hear(m.Appended)
        finally:
            newer.close()
            back.close()
        assert events_of(server, Measured) == [measured(1), measured(2)]


def test_an_epoch_that_the_log_never_gave_is_refused(tmp_path):
    with serving(tmp_path) as server, wires(server, "w") as (wire,):
        wire.say(msgspec.structs.replace(wire.hello, epoch=9))
        assert "another log" in wire.hear(m.Refused)[0].reason


def test_saying_hello_twice_changes_nothing(tmp_path):
    with serving(tmp_path) as server, wires(server, "w") as (wire,):
        wire.say(wire.hello)
        wire.say(wire.hello)
        assert wire.hear(m.Welcome)[0].epoch == wire.hear(m.Welcome)[0].epoch == 1
        wire.append(0, measured())
        assert wire.hear(m.Appended)
        assert len(events_of(server, WorkerJoined)) == 1


def test_a_worker_has_joined_before_its_first_event_and_left_after_its_last(tmp_path):
    """Also when all of it arrives for one commit."""
    with serving(tmp_path) as server, wires(server, "w") as (wire,):

        def live_fast():
            wire.say(wire.hello)
            wire.append(0, measured())
            wire.say(m.Goodbye())

        hold(server, live_fast)
        assert wire.hear(m.Appended)
        kinds = [record.kind for record in server._reader.scan()]
        assert kinds == ["worker_joined", "measured", "worker_left"]


def test_the_log_tells_who_came_and_who_went_over_restarts(tmp_path):
    quick = msgspec.structs.replace(CONFIG, dead_seconds=0.5)
    with serving(tmp_path, config=quick) as server, wires(server, "stays", "goes") as (stays, goes):
        goes.join()
        epoch = stays.join().epoch
        name = stays.hello.incarnation
    with serving(tmp_path, config=quick) as server:
        wire = Wire(server.url, "stays", name)
        wire.join(epoch)
        for _ in range(8):
            wire.say(m.Heartbeat())
            threading.Event().wait(0.1)
        assert [e.worker for e in events_of(server, WorkerJoined)] == ["goes", "stays"]
        assert [(e.worker, e.reason) for e in events_of(server, WorkerLeft)] == [("goes", "silent")]
        wire.close()
        other = Wire(server.url, "stays")
        other.join()
        other.append(0, measured())
        other.hear(m.Appended)
        assert events_of(server, WorkerLeft)[-1].reason == "replaced"
        other.close()
