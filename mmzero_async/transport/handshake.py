"""What a client's handshake came to: ZeroMQ's monitor events, as errors that say what to do.

ZeroMQ gives up by itself on a key that is refused and on a peer that wants other security, and
tries for ever where the server cannot read us (a wrong server key looks like a line cut short).
"""

from collections.abc import Callable
from typing import Any

import zmq
import zmq.asyncio
from zmq.utils.monitor import recv_monitor_message

from mmzero_async.transport.errors import HandshakeFailed
from mmzero_async.transport.keys import ClientKeys

CUT_SHORT = 20  # handshakes in a row, before the first that succeeds; some two seconds
_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


def monitor(socket: zmq.asyncio.Socket) -> zmq.asyncio.Socket:
    """Of a socket that is not yet connected; hand it to `failed`, and close it afterwards."""
    return socket.get_monitor_socket(_EVENTS)


async def failed(
    events: zmq.asyncio.Socket,
    url: str,
    keys: ClientKeys | None,
    trouble: Callable[[str], None],
) -> HandshakeFailed:
    """Returns when no handshake will succeed any more; for what may yet pass, calls `trouble`.

    A server that is being restarted cuts handshakes short too: that is final only for a client
    that never came in.
    """
    cut, came_in = 0, False
    while True:
        event: Any = await recv_monitor_message(events)
        match event["event"]:
            case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                cut, came_in = 0, True
            case zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                return HandshakeFailed(_told(_refused, url, keys))
            case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                return HandshakeFailed(_told(_mismatch, url, keys))
            case _:
                cut += 1
                if cut >= CUT_SHORT:
                    why = _told(_cut_short, url, keys)
                    if not came_in:
                        return HandshakeFailed(why)
                    trouble(why)


def _told(why: Callable[[str, ClientKeys], str], url: str, keys: ClientKeys | None) -> str:
    """Without a key that is the reason, however the handshake ended."""
    return _without_key(url) if keys is None else why(url, keys)


def _refused(url: str, keys: ClientKeys) -> str:
    return (
        f"the log server at {url} does not know the key in {keys.path} (public key "
        f"{keys.own.public.decode()}): put its public key file into the folder `authorized` of "
        "the server's keys; it is read again at every handshake"
    )


def _mismatch(url: str, keys: ClientKeys) -> str:
    return (
        f"the server at {url} does not speak CURVE, and we have the key {keys.path}: set log.keys "
        "for the log server too, or look whether the address is right"
    )


def _cut_short(url: str, keys: ClientKeys) -> str:
    """Who is quicker to hang up decides whether a mismatch is seen as one or as this."""
    return (
        f"the log server at {url} ends every handshake: server.key beside {keys.path} (public key "
        f"{keys.server.decode()}) is not that server's: copy it from its key folder again. Or that "
        "server does not speak CURVE: set log.keys for it too"
    )


def _without_key(url: str) -> str:
    return (
        f"the log server at {url} wants a key, and we have none: name a key file that is "
        "authorised there (--key FILE, or log.keys), or look whether the address is right"
    )
