"""The sockets of remote reading, with all their limits and keys: made here and nowhere else."""

from typing import Any

import zmq

from mmzero_async.config import LogConfig
from mmzero_async.transport.keys import ClientKeys
from mmzero_async.transport.security import CURVE_OVERHEAD, Gate, bound, secure_client

PAGES_QUEUED = 4  # for a reader that takes none; what comes on top is dropped, it asks again
REQUEST_BYTES = 64 << 10
REPLY_BYTES = 256 << 20
_HEARTBEAT_MS, _DEAD_MS = 2000, 10000


def read_server_socket(
    context: zmq.Context[Any], config: LogConfig, gate: Gate | None
) -> tuple[zmq.Socket[Any], str]:
    """A bound ROUTER and its address. PortInUse."""
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, REQUEST_BYTES + CURVE_OVERHEAD)
    socket.setsockopt(zmq.SNDHWM, PAGES_QUEUED)
    socket.setsockopt(zmq.RCVHWM, 64)
    _limit_silence(socket)
    return socket, bound(
        socket, gate, config.host, config.read_port, "read server", "log.read_port"
    )


def read_client_socket(
    context: zmq.Context[Any], url: str, keys: ClientKeys | None, most_queued: int = 1000
) -> zmq.Socket[Any]:
    """A connecting DEALER, with messages queued for a server that is away; zmq.Again beyond.
    ValueError for what is no address; NotSecured."""
    socket: zmq.Socket[Any] = context.socket(zmq.DEALER)
    try:
        secure_client(socket, url, keys)
        socket.setsockopt(zmq.MAXMSGSIZE, REPLY_BYTES)
        socket.setsockopt(zmq.SNDHWM, most_queued)
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        _limit_silence(socket)
        socket.connect(url)
    except zmq.ZMQError as error:
        socket.close(0)
        raise ValueError(f"{url!r} is no address ({error}); write tcp://host:port") from error
    except BaseException:
        socket.close(0)
        raise
    return socket


def _limit_silence(socket: zmq.Socket[Any]) -> None:
    socket.setsockopt(zmq.LINGER, 0)  # nothing here is worth waiting for: it is asked for again
    socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _DEAD_MS)
