"""Each result is one event and each lease one holder's, whatever comes in between."""

import asyncio
import os
import threading

import pytest
from transport_rig import Renders, events_of, hold, joining, measured, serving, wires

from mmzero_async.log.errors import LogFull
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import Measured, Rendered
from mmzero_async.transport import messages as m


def test_a_result_out_of_sequence_does_not_supersede_another_workers_result(tmp_path):
    """Both in one commit: the refused one must not settle the work that the good one does."""
    with serving(tmp_path, Renders(8)) as server, wires(server, "a", "b") as (a, b):
        a.join()
        b.join()
        for i in range(8):  # which of the two is read first is not ours to say: both come up
            early, good = (a, b) if i % 2 else (b, a)
            result = Rendered(drawing=f"g0.s0.d{i}", renderer="x")
            hold(
                server,
                lambda e=early, g=good, r=result, n=i // 2: (e.append(99, r), g.append(n, r)),
            )
            assert early.hear(m.AppendRefused)[0].again
            assert good.hear(m.Appended)[0].offsets != [None]


def test_two_results_of_one_work_in_one_commit_are_one_event(tmp_path):
    with serving(tmp_path, Renders(1)) as server, wires(server, "a", "b") as (a, b):
        a.join()
        b.join()
        result = Rendered(drawing="g0.s0.d0", renderer="x")
        hold(server, lambda: (a.append(0, result), b.append(0, result)))
        offsets = a.hear(m.Appended)[0].offsets + b.hear(m.Appended)[0].offsets
        assert sorted(offset is None for offset in offsets) == [False, True]
        assert events_of(server, Rendered) == [result]


def test_a_blob_is_kept_when_the_event_it_came_with_is_superseded(tmp_path):
    blob = os.urandom(100)
    with serving(tmp_path) as server, wires(server, "w") as (wire,):
        wire.join()
        late = Rendered(drawing="g0.s0.d0", renderer="x")
        wire.append(0, late, measured(), blobs=(blob,))
        offsets = wire.hear(m.Appended)[0].offsets
        assert offsets[0] is None and offsets[1] is not None
        assert server._reader.blob(blob_digest(blob)) == blob


def test_only_the_holder_of_a_lease_can_give_it_back(tmp_path):
    with serving(tmp_path, Renders(1)) as server, wires(server, "a", "b") as (a, b):
        a.join()
        b.join()
        a.say(m.Want(stage="render", slots=1))
        key = a.hear(m.Leased)[0].work.key
        for _ in range(3):
            b.say(m.Fail(key=key, reason="not mine"))
        b.say(m.Status())
        assert b.hear(m.StatusReply)[0].status["leases"] == 1
        a.say(m.Fail(key=key, reason="mine"))
        a.say(m.Want(stage="render", slots=1))
        assert a.hear(m.Leased)[0].work.attempt == 2


def test_leases_go_round_among_the_waiting(tmp_path):
    dispatcher = Renders(4)
    dispatcher.due, later = [], list(dispatcher.due)
    with serving(tmp_path, dispatcher) as server, wires(server, "a", "b") as both:
        for wire in both:
            wire.join()
            wire.say(m.Want(stage="render", slots=2))
        for key in later:  # one at a time
            dispatcher.due.append(key)
            threading.Event().wait(0.12)
        for wire in both:
            assert wire.hear(m.Leased) and wire.hear(m.Leased)


async def test_a_client_rides_out_a_full_disk_and_keeps_its_order(tmp_path):
    with serving(tmp_path) as server:
        append, refusals = server._writer.append, iter(range(3))

        def full(messages):
            if next(refusals, None) is not None:
                raise LogFull("no room")
            return append(messages)

        async with joining(server) as client:
            server._writer.append = full
            async with asyncio.timeout(10):
                await asyncio.gather(*(client.append([measured(n)]) for n in range(100)))
        assert events_of(server, Measured) == [measured(n) for n in range(100)]


async def test_a_cancelled_wait_loses_no_lease(tmp_path):
    with serving(tmp_path, Renders(3)) as server:
        async with joining(server) as client:
            for pause in (0.0, 0.001, 0.002, 0.004, 0.008, 0.016):
                waiting = asyncio.create_task(client.lease("render"))
                await asyncio.sleep(pause)
                waiting.cancel()
                (got,) = await asyncio.gather(waiting, return_exceptions=True)
                if not isinstance(got, asyncio.CancelledError):
                    await client.fail(got.work.key, "was too quick", counts=False)
            async with asyncio.timeout(10):
                leases = [await client.lease("render") for _ in range(3)]
            assert len({lease.work.key for lease in leases}) == 3


async def test_a_lease_that_arrives_with_the_cancellation_is_given_back(tmp_path):
    with serving(tmp_path, Renders(1)) as server:
        async with joining(server) as client:
            waiting = asyncio.create_task(client.lease("render"))
            while not client.holding:  # noqa: ASYNC110 - seen before its caller wakes
                await asyncio.sleep(0)
            assert not waiting.done()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            async with asyncio.timeout(5):
                assert (await client.lease("render")).work.key == "render/g0.s0.d0"


async def test_a_settled_lease_is_no_longer_held(tmp_path):
    with serving(tmp_path, Renders(1)) as server:
        async with joining(server) as client:
            lease = await client.lease("render")
            assert client.holding == {lease.work.key}
            await client.append([Rendered(drawing=lease.work.target, renderer="x")])
            assert client.holding == frozenset()
