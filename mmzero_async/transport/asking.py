"""One question to the log server from somebody who is no worker: no Hello, no trace in the log."""

import asyncio

import zmq
import zmq.asyncio

from mmzero_async.transport import messages as m
from mmzero_async.transport.errors import BadMessage, NotReachable
from mmzero_async.transport.keys import ClientKeys
from mmzero_async.transport.security import secure_client

AGAIN_SECONDS = 1.0


async def why(url: str, *, keys: ClientKeys | None = None, patience: float = 5.0) -> m.WhyReply:
    """What every stage waits for, as the log server knows it.

    NotReachable when it says nothing for so many seconds; NotSecured for another host's address
    without keys.
    """
    context = zmq.asyncio.Context()
    try:
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        secure_client(socket, url, keys)
        socket.connect(url)
        async with asyncio.timeout(patience):
            return await _answer(socket)
    except TimeoutError:
        raise NotReachable(
            f"no log server answers at {url}: it is not running, hangs, or does not know our key"
        ) from None
    finally:
        context.destroy(linger=0)


async def _answer(socket: zmq.asyncio.Socket) -> m.WhyReply:
    while True:
        await socket.send(m.encode(m.Why()))
        while await socket.poll(AGAIN_SECONDS * 1000):
            frame, *_ = await socket.recv_multipart()
            match m.decode_to_worker(frame):
                case m.WhyReply() as reply:
                    return reply
                case m.Malformed(reason=reason):
                    raise BadMessage(f"the log server does not answer such questions: {reason}")
                case _:
                    pass
