"""What the log server hears and says: the one ROUTER socket, behind a port small enough that a
simulation can stand in for it."""

from typing import Any, Protocol

import zmq

from mmzero_async.config import LogConfig
from mmzero_async.transport.keys import Authorized
from mmzero_async.transport.security import gate_of, listen, receive, send

LINGER_MS = 500  # for the last answers of a server that stops


class Line(Protocol):
    """Messages from and to workers, each worker under the identity of its connection."""

    url: str

    def wait(self, milliseconds: int) -> None:
        """Until something is there to be received, or so long."""

    def receive(self) -> tuple[bytes, bytes, list[bytes]] | None:
        """The connection, the public key that it came in with (b"" without keys), the frames."""

    def send(self, identity: bytes, frames: list[bytes]) -> bool:
        """False: lost, as the peer is gone or reads nothing."""

    def owner(self, public: bytes) -> Authorized | None:
        """Whose key it is; None for one that may not come in (any more), and without keys."""

    @property
    def closed(self) -> bool:
        """Whether only those come in whose key is known."""

    def close(self) -> None:
        """After the last answers are out, or have had time to be."""


class RouterLine:
    """Binds on construction. PortInUse, NotSecured, KeysUnusable."""

    def __init__(self, config: LogConfig, logger: Any) -> None:
        self._logger = logger
        self._context: zmq.Context[Any] = zmq.Context()
        self._gate = gate_of(self._context, config, logger)
        try:
            self._socket, self.url = listen(self._context, config, self._gate)
        except BaseException:
            self._close(linger=0)
            raise
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)

    @property
    def closed(self) -> bool:
        return self._gate is not None

    def owner(self, public: bytes) -> Authorized | None:
        return self._gate.client(public) if self._gate is not None else None

    def wait(self, milliseconds: int) -> None:
        self._poller.poll(milliseconds)

    def receive(self) -> tuple[bytes, bytes, list[bytes]] | None:
        try:
            return receive(self._socket, self._gate)
        except zmq.Again:
            return None

    def send(self, identity: bytes, frames: list[bytes]) -> bool:
        try:
            send(self._socket, [identity, *frames])
        except zmq.ZMQError as error:
            self._logger.debug("could not send", error=str(error))
            return False
        return True

    def close(self) -> None:
        self._close(LINGER_MS)

    def _close(self, linger: int) -> None:
        if self._gate is not None:
            self._gate.close()
        self._context.destroy(linger=linger)
