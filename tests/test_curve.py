"""Log server and clients over CURVE: who may come in, who may not, and what each is told."""

import asyncio
import contextlib
import re
import shutil
from pathlib import Path

import log_servers
import msgspec
import pytest
import structlog
import zmq

from mmzero_async.config import LogConfig
from mmzero_async.log.writer import LogWriter
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import Measured, Rendered, WorkerLeft, encode_event, kind_of
from mmzero_async.schemas.work import Work, completes
from mmzero_async.transport import messages as m
from mmzero_async.transport.client import LogClient
from mmzero_async.transport.errors import (
    HandshakeFailed,
    KeysUnusable,
    NotSecured,
    TransportError,
    WorkerRefused,
)
from mmzero_async.transport.keys import client_keys, new_keys
from mmzero_async.transport.security import is_loopback, secure_client
from mmzero_async.transport.server import LogServer

PLAIN = LogConfig(port=0, map_gib=1, heartbeat_seconds=0.1, dead_seconds=30.0)


class OneRender:
    """A dispatcher that has one picture to draw."""

    def __init__(self) -> None:
        self.work = [Work(stage="render", target="g0.s0.d0")]
        self.settled: set[str] = set()

    def admits(self, event):
        return completes(event) not in self.settled

    def apply(self, record):
        self.settled |= {completes(record.event()) or ""}

    def take(self, stage):
        return self.work.pop() if stage == "render" and self.work else None

    def give_back(self, key):
        self.work.append(Work(stage="render", target=key.partition("/")[2]))

    def flows(self, held, hands):
        return []

    def backlog(self):
        return {"render": len(self.work)}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    new_keys(folder, ["alpha", "beta"])
    return folder


def serving(path: Path, folder: Path | None, logger=None):
    config = msgspec.structs.replace(PLAIN, keys=str(folder or ""))
    return log_servers.serving(path / "log", OneRender(), config, logger)


def joining(server: LogServer, secret: Path | None, worker: str = "alpha.w", patience=60.0):
    """Patience enough for a busy machine: what is refused is refused long before."""
    return LogClient.connect(
        server.url,
        worker=worker,
        role="renderer",
        config_digest="digest",
        patience=patience,
        keys=client_keys(secret) if secret is not None else None,
    )


def secret_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.key_secret"


def stored(server: LogServer, kind: type):
    return [e for r in server._reader.scan() if isinstance(e := r.event(), kind)]


async def refused(server: LogServer, secret: Path | None, worker: str = "alpha.w") -> str:
    """What a client that must not come in is told; nothing of it may be in the log."""
    with pytest.raises(TransportError) as told:
        async with joining(server, secret, worker):
            pass
    assert not any(r.envelope.producer == worker for r in server._reader.scan())
    assert worker not in server._presence.roles
    return f"{type(told.value).__name__}: {told.value}"


async def test_an_authorised_client_appends_leases_and_is_acknowledged(tmp_path, keys):
    picture = b"png" * 5000
    with serving(tmp_path, keys) as server:
        async with joining(server, secret_of(keys, "alpha")) as client:
            (offset,) = await client.append(
                [Measured(source="w", figures={})], {blob_digest(picture): picture}
            )
            assert server._reader.read(offset, 1)[0].envelope.producer == "alpha.w"
            assert server._reader.blob(blob_digest(picture)) == picture
            lease = await client.lease("render")
            assert await client.append([Rendered(drawing=lease.work.target, renderer="x")])
            assert (await client.status())["backlog"] == {"render": 0}


async def test_an_unknown_key_is_refused_and_both_ends_say_so(tmp_path, keys):
    stranger = tmp_path / "stranger"
    new_keys(stranger, ["alpha"])
    shutil.copy(keys / "server.key", stranger / "server.key")
    with structlog.testing.capture_logs() as lines, serving(tmp_path, keys) as server:
        told = await refused(server, secret_of(stranger, "alpha"))
        assert told.startswith("HandshakeFailed") and server.url in told
        assert str(secret_of(stranger, "alpha")) in told and "authorized" in told
        async with joining(server, secret_of(keys, "beta"), "beta") as client:
            assert await client.append([Measured(source="w", figures={})])
    (line,) = [line for line in lines if line["event"] == "unknown key"]
    assert line["public_key"] in (stranger / "authorized" / "alpha.key").read_text()


async def test_the_wrong_server_key_is_a_clear_error(tmp_path, keys):
    other = tmp_path / "other"
    new_keys(other)
    shutil.copy(other / "server.key", keys / "server.key")
    with serving(tmp_path, keys) as server:
        told = await refused(server, secret_of(keys, "alpha"))
    assert told.startswith("HandshakeFailed")
    assert server.url in told and "server.key" in told and "copy it" in told


async def test_a_client_without_keys_at_a_server_with_keys_is_a_clear_error(tmp_path, keys):
    with serving(tmp_path, keys) as server:
        told = await refused(server, None)
    assert told.startswith("HandshakeFailed")
    assert server.url in told and "wants a key" in told and "--key" in told


async def test_a_client_with_keys_at_a_server_without_is_a_clear_error(tmp_path, keys):
    with serving(tmp_path, None) as server:
        told = await refused(server, secret_of(keys, "alpha"))
    assert told.startswith("HandshakeFailed")
    assert server.url in told and "does not speak CURVE" in told


async def test_a_key_writes_under_its_own_names_only(tmp_path, keys):
    with serving(tmp_path, keys) as server:
        for worker in ("beta", "beta.w", "alphabet", "alpha-2"):
            told = await refused(server, secret_of(keys, "alpha"), worker)
            assert told.startswith("WorkerRefused") and f"--worker alpha.{worker}" in told
        for name, worker in (("alpha", "alpha"), ("alpha", "alpha.w"), ("local", "beta.w")):
            async with joining(server, secret_of(keys, name), worker) as client:
                assert await client.append([Measured(source="w", figures={})])


async def test_a_key_that_is_added_while_the_server_runs_comes_in(tmp_path, keys):
    with serving(tmp_path, keys) as server:
        new_keys(keys, ["gamma"])
        async with joining(server, secret_of(keys, "gamma"), "gamma") as client:
            assert await client.append([Measured(source="w", figures={})])


@pytest.mark.parametrize("how", ["removed", "replaced"])
async def test_a_revoked_key_is_out_at_once_and_at_its_next_handshake(tmp_path, keys, how):
    """Its open connection is told, and what it still sends is not in the log."""
    with serving(tmp_path, keys) as server:
        async with joining(server, secret_of(keys, "beta"), "beta") as other:
            with pytest.raises(WorkerRefused, match="not authorised any more"):
                async with joining(server, secret_of(keys, "alpha")) as client:
                    lease = await client.lease("render")
                    (keys / "authorized" / "alpha.key").unlink()
                    if how == "replaced":
                        secret_of(keys, "alpha").rename(keys / "older")
                        new_keys(keys, ["alpha"])
                    async with asyncio.timeout(60):
                        while True:
                            await client.append([Measured(source="w", figures={})])
            older = secret_of(keys, "alpha") if how == "removed" else keys / "older"
            assert "does not know the key" in await handshake_of(server, older)
            again = await other.lease("render")
            assert (again.work.key, again.work.attempt) == (lease.work.key, 1)
            assert WorkerLeft(worker="alpha.w", role="renderer", reason="revoked") in stored(
                server, WorkerLeft
            )


def wire(server: LogServer, secret: Path, identity: bytes) -> zmq.Socket:
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.setsockopt(zmq.ROUTING_ID, identity)
    secure_client(socket, server.url, client_keys(secret))
    socket.connect(server.url)
    return socket


def answer(socket: zmq.Socket, message: m.Message, kind: type) -> m.Message | None:
    """The server's answer of that kind, if any comes soon; heartbeats and others pass by."""
    socket.send(m.encode(message))
    while socket.poll(2000):
        found = m.decode_to_worker(socket.recv_multipart()[0])
        if isinstance(found, kind):
            return found
    return None


def hello(worker: str) -> m.Hello:
    return m.Hello(
        worker=worker, role="r", incarnation="i", host="h", pid=1, config_digest="digest"
    )


def test_a_key_does_not_speak_over_the_connection_of_another(tmp_path, keys):
    """beta calls its connection as alpha called hers, when she has just gone without a word."""
    event = Measured(source="w", figures={})
    append = m.Append(sequence=0, kinds=[kind_of(event)], bodies=[encode_event(event)])
    with serving(tmp_path, keys) as server:
        alpha = wire(server, secret_of(keys, "alpha"), b"same")
        assert answer(alpha, hello("alpha.w"), m.Welcome)
        alpha.close(0)
        while True:  # until ZeroMQ has forgotten her, beta's connection is not heard at all
            beta = wire(server, secret_of(keys, "beta"), b"same")
            heard = answer(beta, append, m.Unknown | m.Appended)
            if heard is not None:
                break
            beta.close(0)
        assert isinstance(heard, m.Unknown)
        assert [peer.hello.worker for peer in server._peers.values()] == ["alpha.w"]
        assert stored(server, Measured) == []
        beta.close(0)


async def handshake_of(server: LogServer, secret: Path) -> str:
    with pytest.raises(HandshakeFailed) as told:
        async with joining(server, secret):
            pass
    return str(told.value)


async def test_a_folder_that_others_may_write_lets_nobody_in(tmp_path, keys):
    with serving(tmp_path, keys) as server:
        (keys / "authorized").chmod(0o777)
        assert "does not know the key" in await handshake_of(server, secret_of(keys, "alpha"))
        (keys / "authorized").chmod(0o700)
        async with joining(server, secret_of(keys, "alpha")) as client:
            assert await client.append([Measured(source="w", figures={})])
    (keys / "authorized").chmod(0o770)
    with pytest.raises(KeysUnusable, match="chmod 700"), serving(tmp_path, keys):
        pass


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "192.0.2.7", "no.such.host.invalid"])
def test_without_keys_the_log_server_listens_on_loopback_only(tmp_path, host):
    config = msgspec.structs.replace(PLAIN, host=host)
    told = rf"{re.escape(host)}.*mmzero keys new.*log\.keys"
    with (
        contextlib.closing(LogWriter(tmp_path, run="r", map_gib=1)) as writer,
        pytest.raises(NotSecured, match=told),
    ):
        LogServer(writer, OneRender(), config, "digest", structlog.get_logger())


async def test_with_keys_the_log_server_listens_for_other_hosts(tmp_path, keys):
    config = msgspec.structs.replace(PLAIN, host="0.0.0.0", keys=str(keys))
    with contextlib.closing(LogWriter(tmp_path / "log", run="r", map_gib=1)) as writer:
        server = LogServer(writer, OneRender(), config, "digest", structlog.get_logger())
        server.stop()
        server.run()
        assert server.url.startswith("tcp://0.0.0.0:")


async def test_a_client_without_keys_says_nothing_to_another_host():
    with pytest.raises(NotSecured, match=r"192\.0\.2\.7.*--key"):
        async with LogClient.connect(
            "tcp://192.0.2.7:5701", worker="w", role="r", config_digest="d"
        ):
            pass


def test_loopback_is_what_only_this_host_can_reach():
    assert all(map(is_loopback, ("127.0.0.1", "127.8.9.10", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "*", "10.0.0.1", "eth0", "", "a b")))
