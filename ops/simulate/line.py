"""The wires of a simulation: what the log server hears and says, with no socket between."""

from collections import deque

from mmzero_async.transport.keys import Authorized


class VirtualLine:
    """Implements the server's Line. `inbox` is filled and `outbox` emptied by the world."""

    url = "virtual:log-server"
    closed = False

    def __init__(self) -> None:
        self.inbox: deque[tuple[bytes, list[bytes]]] = deque()
        self.outbox: list[tuple[bytes, list[bytes]]] = []
        self.cut: set[bytes] = set()  # connections whose other end is gone
        self.received = 0

    def wait(self, milliseconds: int) -> None:
        """The world calls turn by turn; nobody waits here."""

    def receive(self) -> tuple[bytes, bytes, list[bytes]] | None:
        if not self.inbox:
            return None
        self.received += 1
        identity, frames = self.inbox.popleft()
        return identity, b"", frames

    def send(self, identity: bytes, frames: list[bytes]) -> bool:
        if identity in self.cut:
            return False
        self.outbox.append((identity, frames))
        return True

    def owner(self, public: bytes) -> Authorized | None:
        return None

    def close(self) -> None:
        self.inbox.clear()
