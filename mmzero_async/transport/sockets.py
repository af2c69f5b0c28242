"""The sockets of remote reading, with all their limits: made here and nowhere else."""

from typing import Any

import zmq

from mmzero_async.transport.errors import PortInUse

PAGES_QUEUED = (
    4  # for one reader that takes none; more replies to it are dropped, and asked for again
)
REQUEST_BYTES = 64 << 10
REPLY_BYTES = 256 << 20
_HEARTBEAT_MS, _DEAD_MS = 2000, 10000


def read_server_socket(context: "zmq.Context[Any]", host: str, port: int) -> tuple[Any, str]:
    """A bound ROUTER and its address. PortInUse."""
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, REQUEST_BYTES)
    socket.setsockopt(zmq.SNDHWM, PAGES_QUEUED)
    socket.setsockopt(zmq.RCVHWM, 64)
    _limit_silence(socket)
    address = f"tcp://{host}:{port or '*'}"
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        socket.close(0)
        raise PortInUse(
            f"the read server cannot listen at {address}: {error}. Stop what listens there, or set "
            "log.read_port (0: any free port)"
        ) from error
    return socket, socket.getsockopt_string(zmq.LAST_ENDPOINT)


def read_client_socket(context: "zmq.Context[Any]", url: str) -> Any:
    """A connecting DEALER. ValueError for what is no address."""
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.MAXMSGSIZE, REPLY_BYTES)
    socket.setsockopt(zmq.RECONNECT_IVL, 100)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    _limit_silence(socket)
    try:
        socket.connect(url)
    except zmq.ZMQError as error:
        socket.close(0)
        raise ValueError(f"{url!r} is no address ({error}); write tcp://host:port") from error
    return socket


def _limit_silence(socket: Any) -> None:
    socket.setsockopt(zmq.LINGER, 0)  # nothing here is worth waiting for: it is asked for again
    socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _DEAD_MS)
