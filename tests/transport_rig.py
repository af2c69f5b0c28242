"""Workers that speak the log server's protocol by hand, and a server that hands out renders."""

import contextlib
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path

import log_servers
import msgspec
import zmq

from mmzero_async.config import LogConfig
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import Measured, encode_event, kind_of
from mmzero_async.schemas.work import Work, completes
from mmzero_async.transport import messages as m
from mmzero_async.transport.client import LogClient
from mmzero_async.transport.keys import ClientKeys
from mmzero_async.transport.security import secure_client
from mmzero_async.transport.server import LogServer

CONFIG = LogConfig(port=0, map_gib=1, heartbeat_seconds=0.1, dead_seconds=30.0, max_attempts=2)


class Renders:
    """A dispatcher over `count` renders."""

    def __init__(self, count: int = 0, picture: str = "") -> None:
        works = [Work(stage="render", target=f"g0.s0.d{i}", picture=picture) for i in range(count)]
        self.open = {work.key: work for work in works}
        self.due = list(self.open)

    def admits(self, event):
        key = completes(event)
        return key is None or key in self.open

    def apply(self, record):
        self.open.pop(completes(record.event()) or "", None)

    def take(self, stage):
        while stage == "render" and self.due:
            if (work := self.open.get(self.due.pop(0))) is not None:
                return work
        return None

    def give_back(self, key):
        if key in self.open:
            self.due.append(key)

    def flows(self, held, hands):
        return []

    def backlog(self):
        return {"render": len(self.open)}


def serving(path: Path, dispatcher=None, config: LogConfig = CONFIG):
    return log_servers.serving(path, dispatcher or Renders(), config)


@dataclass(frozen=True)
class Link:
    """How a server listens, and what its clients need to come in."""

    config: LogConfig = CONFIG
    keys: ClientKeys | None = None


PLAIN = Link()


class Wire:
    """A worker that speaks the protocol by hand, word for word."""

    def __init__(
        self, url: str, worker: str = "w", incarnation: str | None = None, link: Link = PLAIN
    ) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        secure_client(self.socket, url, link.keys)
        self.socket.connect(url)
        self.hello = m.Hello(
            worker=worker,
            role="renderer",
            incarnation=incarnation or uuid.uuid4().hex,
            host="h",
            pid=1,
            config_digest="digest",
        )

    def say(self, message: m.Message | bytes, *frames: bytes) -> None:
        first = message if isinstance(message, bytes) else m.encode(message)
        self.socket.send_multipart([first, *frames])

    def hear(self, kind: type, seconds: float = 5.0):
        """The next message of a kind, with its frames; heartbeats and others pass by."""
        while self.socket.poll(int(seconds * 1000)):
            first, *frames = self.socket.recv_multipart()
            message = m.decode_to_worker(first)
            if isinstance(message, kind):
                return message, frames
        raise AssertionError(f"no {kind.__name__} within {seconds} s")

    def join(self, epoch: int = 0) -> m.Welcome:
        self.say(msgspec.structs.replace(self.hello, epoch=epoch))
        return self.hear(m.Welcome)[0]

    def append(self, sequence: int, *events, blobs: tuple[bytes, ...] = ()) -> None:
        self.say(appending(sequence, *events, blobs=blobs), *blobs)

    def close(self) -> None:
        self.socket.close(0)
        self.context.term()


def appending(sequence: int, *events, blobs: tuple[bytes, ...] = ()) -> m.Append:
    return m.Append(
        sequence=sequence,
        kinds=[kind_of(event) for event in events],
        bodies=[encode_event(event) for event in events],
        blobs=[blob_digest(blob) for blob in blobs],
    )


@contextlib.contextmanager
def wires(server: LogServer, *names: str, link: Link = PLAIN):
    made = [Wire(server.url, name, link=link) for name in names]
    try:
        yield made
    finally:
        for wire in made:
            wire.close()


def joining(server: LogServer, worker: str = "w", link: Link = PLAIN):
    return LogClient.connect(
        server.url,
        worker=worker,
        role="renderer",
        config_digest="digest",
        patience=5,
        keys=link.keys,
    )


def events_of(server: LogServer, kind: type):
    return [e for r in server._reader.scan() if isinstance(e := r.event(), kind)]


def measured(n: float = 0.0) -> Measured:
    return Measured(source="w", figures={"n": n})


def hold(server: LogServer, act) -> None:
    """Keeps the server from receiving until all that `act` sends has arrived."""
    turn, gate = server.turn, threading.Event()
    server.turn = lambda: (gate.wait(5), turn())
    act()
    threading.Event().wait(0.3)
    server.turn = turn
    gate.set()
