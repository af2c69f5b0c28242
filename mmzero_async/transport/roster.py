"""Who is here: the workers on the line, and what the log has told of coming and going.

Knows no sockets. `joined` and `left` return the event that makes it known, or None when it is no
news, so that a reconnect or a restart of the server leaves no trace in the log.
"""

from dataclasses import dataclass, field

from mmzero_async.schemas.events import AnyEvent, WorkerJoined, WorkerLeft
from mmzero_async.schemas.work import Stage
from mmzero_async.transport.messages import Hello


@dataclass(slots=True)
class Peer:
    """A worker that has said Hello on this connection."""

    identity: bytes
    public: bytes  # the key that it came in with; empty without keys
    hello: Hello
    epoch: int
    last_seen: float
    wants: dict[Stage, int] = field(default_factory=dict)


class Presence:
    """The workers that the log says are here; feed it the log at start."""

    def __init__(self) -> None:
        self.roles: dict[str, str] = {}  # worker -> role

    def apply(self, event: AnyEvent) -> None:
        match event:
            case WorkerJoined():
                self.roles[event.worker] = event.role
            case WorkerLeft():
                self.roles.pop(event.worker, None)
            case _:
                pass

    def joined(self, hello: Hello) -> WorkerJoined | None:
        if hello.worker in self.roles:
            return None
        event = WorkerJoined(worker=hello.worker, role=hello.role, host=hello.host, pid=hello.pid)
        self.apply(event)
        return event

    def left(self, worker: str, reason: str) -> WorkerLeft | None:
        role = self.roles.get(worker)
        if role is None:
            return None
        event = WorkerLeft(worker=worker, role=role, reason=reason)
        self.apply(event)
        return event
