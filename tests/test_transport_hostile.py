"""Messages that are hostile, too large or no messages at all do no harm to the log.

What is hostile in a message is tried over both links: plain, and CURVE with an authorised key.
"""

import contextlib
import socket

import msgspec
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from transport_rig import (
    CONFIG,
    PLAIN,
    Link,
    Renders,
    appending,
    events_of,
    joining,
    measured,
    serving,
    wires,
)

from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import Measured, Rendered, encode_event
from mmzero_async.transport import messages as m
from mmzero_async.transport.errors import TransportError, WorkerRefused
from mmzero_async.transport.keys import local_keys, new_keys


@pytest.fixture(params=["plain", "curve"])
def link(request, tmp_path) -> Link:
    if request.param == "plain":
        return PLAIN
    new_keys(tmp_path / "keys")
    config = msgspec.structs.replace(CONFIG, keys=str(tmp_path / "keys"))
    return Link(config, local_keys(config.keys))


HOSTILE = {
    "no frame at all": [],
    "not UTF-8": [b"\x81\xa4type\xa5hel\xff\xff"],
    "nested without end": [b"\x82\xa4type\xa5hello\xa1x" + b"\x91" * 100_000 + b"\x90"],
    "a name longer than a key may be": [
        m.encode(
            m.Hello(
                worker="w" * 600, incarnation="i", role="r", host="h", pid=1, config_digest="digest"
            )
        )
    ],
    "a sequence below zero": [msgspec.msgpack.encode({"type": "append", "sequence": -1})],
}
HOSTILE_APPENDS = {
    "a sequence below zero": appending(-1, measured()),
    "a sequence beyond all bounds": appending(2**64 - 1, measured()),
    "no event": m.Append(sequence=0, kinds=[], bodies=[]),
    "a body that is not UTF-8": m.Append(
        sequence=0, kinds=["measured"], bodies=[b"\x82\xa4kind\xa8measured\xa6source\xa2\xff\xff"]
    ),
    "a body of another kind": m.Append(
        sequence=0, kinds=["measured"], bodies=[encode_event(Rendered(drawing="g0", renderer="x"))]
    ),
    "a kind of any length": m.Append(sequence=0, kinds=["k" * 5000], bodies=[b"\x80"]),
    "an id that is none": m.Append(
        sequence=0,
        kinds=["work_abandoned"],
        bodies=[
            msgspec.msgpack.encode(
                {"kind": "work_abandoned", "work": "propose/zebra", "reason": "x", "attempts": 1}
            )
        ],
    ),
    "a picture that was not sent": appending(
        0, Rendered(drawing="g0.s0.d0", renderer="x", picture="ab" * 32)
    ),
    "a blob that is not its digest's": m.Append(
        sequence=0, kinds=["measured"], bodies=[encode_event(measured())], blobs=["ab" * 32]
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_frame_leaves_the_server_serving(tmp_path, what, link):
    with (
        serving(tmp_path, config=link.config) as server,
        wires(server, "vandal", "good", link=link) as (vandal, good),
    ):
        vandal.socket.send_multipart(HOSTILE[what] or [b""])
        assert vandal.hear(m.Malformed)
        good.join()
        good.append(0, measured())
        assert good.hear(m.Appended)


@pytest.mark.parametrize("what", HOSTILE_APPENDS)
def test_a_hostile_append_is_refused_and_leaves_no_trace(tmp_path, what, link):
    with (
        serving(tmp_path, Renders(1), link.config) as server,
        wires(server, "vandal", "good", link=link) as (vandal, good),
    ):
        vandal.join()
        message = HOSTILE_APPENDS[what]
        vandal.say(message, *[b"blob"] * len(message.blobs))
        vandal.hear(m.Malformed | m.AppendRefused)
        vandal.append(0, measured(7))
        assert vandal.hear(m.Appended)
        good.join()
        good.append(0, measured(8))
        assert good.hear(m.Appended)
        assert events_of(server, Measured) == [measured(7), measured(8)]


@given(st.binary(max_size=200) | st.builds(lambda b: b"\x82\xa4type\xa6append" + b, st.binary()))
def test_any_bytes_decode_or_are_refused_in_one_way(frame):
    for decode in (m.decode_from_worker, m.decode_to_worker):
        with contextlib.suppress(TransportError):
            decode(frame)


def test_a_frame_of_the_largest_size_is_read_and_a_larger_one_costs_its_sender_the_line(
    tmp_path, link
):
    """To the byte: encryption adds some of its own, which must not count."""
    small = msgspec.structs.replace(link.config, max_message_mib=1)
    with (
        serving(tmp_path, config=small) as server,
        wires(server, "vandal", "good", link=link) as (vandal, good),
        contextlib.closing(vandal.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)) as cut,
    ):
        vandal.say(bytes(1 << 20))
        assert vandal.hear(m.Malformed)
        assert not cut.poll(0)
        vandal.say(bytes((1 << 20) + 1))
        assert cut.poll(30_000), "the server took a frame that is too large"
        good.join()
        good.append(0, measured(3), blobs=(bytes(1_000_000),))
        assert good.hear(m.Appended)


def test_frames_that_are_too_large_together_are_refused(tmp_path, link):
    small = msgspec.structs.replace(link.config, max_message_mib=1)
    with (
        serving(tmp_path, config=small) as server,
        wires(server, "vandal", link=link) as (vandal,),
    ):
        vandal.join()
        vandal.append(0, measured(1), blobs=tuple(bytes([i]) * 300_000 for i in range(4)))
        assert "max_message_mib" in vandal.hear(m.Malformed)[0].reason
        vandal.append(0, measured(2), blobs=tuple(bytes([i]) * 300_000 for i in range(3)))
        assert vandal.hear(m.Appended)
        assert events_of(server, Measured) == [measured(2)]


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01"
ON_THE_WIRE = {
    "nothing": b"",
    "not ZeroMQ": b"GET / HTTP/1.1\r\n\r\n",
    "noise": b"\xff" + bytes(range(256)) * 40,
    "half a greeting": GREETING,
    "no such mechanism": GREETING + b"NOSUCH".ljust(20, b"\0") + bytes(32),
    "PLAIN": GREETING
    + b"PLAIN".ljust(20, b"\0")
    + bytes(32)
    + b"\x04\x10\x05HELLO\x04user\x04pass",
    "a NULL that asks for all the memory": GREETING
    + b"NULL".ljust(20, b"\0")
    + bytes(32)
    + b"\x06"
    + b"\xff" * 8
    + b"\x05READY",
    "a CURVE that makes no sense": GREETING
    + b"CURVE".ljust(20, b"\0")
    + bytes(32)
    + b"\x04\xc8\x05HELLO"
    + bytes(194),
}


@pytest.mark.parametrize("what", ON_THE_WIRE)
def test_what_is_no_zeromq_harms_nobody(tmp_path, what, link):
    with (
        serving(tmp_path, config=link.config) as server,
        wires(server, "good", link=link) as (good,),
    ):
        port = int(server.url.rpartition(":")[2])
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                line = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                line.sendall(ON_THE_WIRE[what])
            good.join()
            good.append(0, measured())
            assert good.hear(m.Appended)
        assert [peer.hello.worker for peer in server._peers.values()] == ["good"]


async def test_a_message_larger_than_the_server_takes_is_refused_at_once(tmp_path, link):
    small = msgspec.structs.replace(link.config, max_message_mib=1)
    with serving(tmp_path, config=small) as server:
        async with joining(server, link=link) as client:
            blob = bytes(2 << 20)
            with pytest.raises(WorkerRefused, match="max_message_mib"):
                await client.append([measured()], {blob_digest(blob): blob})
            assert await client.append([measured()])
