"""Who may speak to a server's socket: the making of sockets, with keys and without.

Without keys a socket stays on the loopback address. With keys it speaks CURVE, and a thread of its
own (the gate) answers ZeroMQ's question whether a client's public key is authorised. The folder of
authorised keys is looked at once a second and at each handshake: a key that was added comes in, a
key that was removed is out at its next handshake, and what an open connection still sends bears
the key's name, so that a server refuses it too (`Gate.client`).
"""

import ipaddress
import socket as net
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import zmq
from zmq.utils import z85

from mmzero_async.config import LogConfig
from mmzero_async.transport.errors import KeysUnusable, NotSecured, PortInUse
from mmzero_async.transport.keys import (
    MAX_KEYS,
    Authorized,
    ClientKeys,
    authorized_files,
    read_authorized,
    server_pair,
)

LOOK_SECONDS = 1.0  # between looks at the folder when nobody knocks
CURVE_OVERHEAD = 33  # bytes that encryption adds to a frame, which MAXMSGSIZE counts
MAX_FROM_SERVER = 1 << 30  # bytes of a frame that a client takes
# Then it is tried again. The kernel's own tries are a minute apart by the time a link is back.
CONNECT_MS = 3000
_ZAP = "inproc://zeromq.zap.01"  # where ZeroMQ asks (RFC 27)
_DOMAIN = "mmzero"

_Signature = tuple[tuple[str, int, int, int], ...]


class Gate:
    """Lets authorised keys into the sockets of one context. One a context.

    KeysUnusable on construction when the server's own key or the authorised ones cannot be used;
    later, what cannot be read is not authorised.
    """

    def __init__(self, context: zmq.Context[Any], folder: Path, logger: Any) -> None:
        self._folder, self._log = folder, logger
        self._pair = server_pair(folder)
        authorized_files(folder)
        self._clients: Mapping[bytes, Authorized] = {}
        self._problems: list[str] = []
        self._signature: _Signature | None = None
        self._look()
        self._closing = threading.Event()
        plain: zmq.Context[zmq.Socket[bytes]] = zmq.Context.shadow(context)
        self._socket = plain.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(_ZAP)
        self._thread = threading.Thread(target=self._answer, name="gate", daemon=True)
        self._thread.start()

    def guard(self, socket: zmq.Socket[Any]) -> None:
        """Before it is bound: nobody comes in whom the gate does not know.

        No monitor may be put on it to hear of replayed frames: libzmq 4.3.5 cuts a line for one,
        but with a monitor its event overwrites errno, the line stays, and later it aborts.
        """
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._pair.secret)
        socket.setsockopt_string(zmq.ZAP_DOMAIN, _DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without the gate, nobody rather than all

    def client(self, public: bytes) -> Authorized | None:
        """Whose key it is; None when it is authorised no more. From any thread."""
        return self._clients.get(public)

    def close(self) -> None:
        """Before the context is destroyed, which must not close our socket beneath the thread."""
        self._closing.set()
        self._thread.join()

    def _answer(self) -> None:
        try:
            while not self._closing.is_set():
                knocked = self._socket.poll(100)
                if knocked or time.monotonic() - self._looked >= LOOK_SECONDS:
                    self._look()
                if knocked:
                    self._socket.send_multipart(self._reply(self._socket.recv_multipart()))
        finally:
            self._socket.close()

    def _reply(self, request: list[bytes]) -> list[bytes]:
        """RFC 27: version, request id, domain, address, identity, mechanism, the client's key."""
        version, number, _, address, _, mechanism, *credentials = request
        public = z85.encode(credentials[0]) if credentials else b""
        client = self._clients.get(public) if mechanism == b"CURVE" else None
        if client is None:
            self._log.warning("unknown key", public_key=public.decode(), address=address.decode())
            return [version, number, b"400", b"this key is not authorised", b"", b""]
        return [version, number, b"200", b"", public, b""]

    def _look(self) -> None:
        """Reads the folder again if anything in it has changed."""
        self._looked = time.monotonic()
        clients: dict[bytes, Authorized] = {}
        problems: list[str] = []
        try:
            signature = _signature(self._folder)
            if signature == self._signature:
                return
            clients, problems = read_authorized(self._folder)
        except KeysUnusable as error:
            signature, problems = None, [str(error)]
        for problem in problems:
            if problem not in self._problems:
                self._log.warning("key not authorised", reason=problem)
        came = sorted(clients[key].name for key in clients.keys() - self._clients.keys())
        went = sorted(self._clients[key].name for key in self._clients.keys() - clients.keys())
        if came or went:
            self._log.info("authorised keys", added=came, revoked=went, count=len(clients))
        self._clients, self._problems, self._signature = clients, problems, signature


def _signature(folder: Path) -> _Signature:
    """Changes with every change to the files; ctime, for that one nobody can set."""
    found = []
    for path in authorized_files(folder)[: MAX_KEYS + 1]:
        try:
            status = path.stat()
        except OSError:
            continue
        found.append((path.name, status.st_ino, status.st_ctime_ns, status.st_mode))
    return tuple(found)


# --- servers --------------------------------------------------------------------------------------


def gate_of(context: zmq.Context[Any], config: LogConfig, logger: Any) -> Gate | None:
    """The gate that the configuration asks for; None without keys, on loopback.

    NotSecured for an address beyond this host without keys; KeysUnusable.
    """
    if config.keys:
        return Gate(context, Path(config.keys).expanduser(), logger)
    if not is_loopback(config.host):
        raise NotSecured(
            f"log.host = {config.host!r} is reached from other hosts, and log.keys names no keys: "
            "make some with `mmzero keys new DIR` and set log.keys = DIR, or listen at 127.0.0.1"
        )
    return None


def listen(
    context: zmq.Context[Any], config: LogConfig, gate: Gate | None, kind: int = zmq.ROUTER
) -> tuple[zmq.Socket[Any], str]:
    """A bound server socket with all its limits, and its address. PortInUse."""
    socket = context.socket(kind)
    overhead = CURVE_OVERHEAD if gate is not None else 0
    socket.setsockopt(zmq.MAXMSGSIZE, (config.max_message_mib << 20) + overhead)
    socket.setsockopt(zmq.SNDHWM, 4 * config.credits)
    socket.setsockopt(zmq.RCVHWM, 4 * config.credits)
    socket.setsockopt(zmq.LINGER, 500)
    # Finds half-open connections, which our own heartbeats would be lost on.
    socket.setsockopt(zmq.HEARTBEAT_IVL, round(config.heartbeat_seconds * 1000))
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, round(config.dead_seconds * 1000))
    if kind == zmq.ROUTER:
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    return socket, bound(socket, gate, config.host, config.port, "log server", "log.port")


def bound(
    socket: zmq.Socket[Any], gate: Gate | None, host: str, port: int, server: str, key: str
) -> str:
    """Guards and binds a server's socket; its address. PortInUse, with the setting to change."""
    if gate is not None:
        gate.guard(socket)
    address = f"tcp://{host}:{port or '*'}"
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        socket.close(0)
        raise PortInUse(
            f"the {server} cannot listen at {address}: {error}. Stop what listens there, or set "
            f"{key} (0: any free port)"
        ) from error
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


def receive(socket: zmq.Socket[bytes], gate: Gate | None) -> tuple[bytes, bytes, list[bytes]]:
    """From a ROUTER, at once: the connection, its public key (b"" without keys), the frames.

    zmq.Again when there is nothing. The key is ZeroMQ's word, not the sender's.
    """
    if gate is None:
        identity, *frames = socket.recv_multipart(zmq.NOBLOCK)
        return identity, b"", frames
    identity = socket.recv(zmq.NOBLOCK)
    if not socket.getsockopt(zmq.RCVMORE):
        return identity, b"", []
    first = socket.recv(copy=False)
    frames = [first.bytes]
    while socket.getsockopt(zmq.RCVMORE):
        frames.append(socket.recv())
    return identity, str(first.get("User-Id")).encode(), frames


def send(socket: zmq.Socket[bytes], parts: list[bytes], copy: bool = True) -> None:
    """To a connection of a ROUTER, at once. zmq.ZMQError when it is gone, or takes nothing.

    libzmq hears that a peer has read only once a millisecond while it sends, so that a queue may
    pass for full long after it was emptied. It is made to listen before that is believed.
    """
    try:
        socket.send_multipart(parts, zmq.NOBLOCK, copy)
    except zmq.Again:
        socket.getsockopt(zmq.EVENTS)
        socket.send_multipart(parts, zmq.NOBLOCK, copy)


def is_loopback(host: str) -> bool:
    """Whether nobody but this host can reach what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = net.getaddrinfo(host, None, type=net.SOCK_STREAM)
    except (OSError, UnicodeError):  # an interface, a wildcard, or nothing at all
        return False
    return all(ipaddress.ip_address(str(address[4][0])).is_loopback for address in found)


# --- clients --------------------------------------------------------------------------------------


def secure_client(socket: zmq.Socket[Any], url: str, keys: ClientKeys | None) -> None:
    """Before it is connected. NotSecured for an address beyond this host without keys."""
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FROM_SERVER)
    socket.setsockopt(zmq.CONNECT_TIMEOUT, CONNECT_MS)
    if keys is not None:
        socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.own.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, keys.own.secret)
    elif url.startswith("tcp:") and not is_loopback(urlsplit(url).hostname or ""):
        raise NotSecured(
            f"{url} is another host, and no key was given: name a key file made there with "
            "`mmzero keys new DIR --name NAME` (--key FILE, or log.keys)"
        )
