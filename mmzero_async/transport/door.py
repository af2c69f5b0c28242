"""Whom the log server lets in, and what it tells those whom it does not.

Knows no sockets. A refusal is for good where another process of that name, started the same way,
would be told the same: who keeps such a worker alive need not try.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mmzero_async.schemas.flow import Refusal
from mmzero_async.transport import messages as m
from mmzero_async.transport.keys import Authorized

SERVER = "log-server"  # the name under which the server writes its own events
REVOKED = "the key that this connection came in with is not authorised any more"
TAKEN = "another process bears this name now"
# What the log says of frames that come twice. Of one on an encrypted line libzmq tells us nothing
# but that it has cut the line, while the worker was heard: that is what a replay looks like here.
AGAIN = (
    "this epoch and sequence are in the log: a replay, or its acknowledgement was lost; it was "
    "answered as before and nothing was written"
)
CUT = (
    "its worker was heard until then: a frame on it was a replay, altered or larger than "
    "log.max_message_mib, and nothing of that frame is in the log; or the network reset it"
)
MOST_REMEMBERED = 64  # workers


def refused(
    hello: m.Hello, *, digest: str, owner: Authorized | None, last_epoch: int
) -> m.Refused | None:
    """None: it may come in.

    Args:
        digest: of the run's configuration.
        owner: of the key that the connection came in with; None without keys.
        last_epoch: the newest that the log gave to this name; 0: none yet.
    """
    if hello.protocol != m.PROTOCOL:
        return m.Refused(
            reason=f"the worker speaks protocol {hello.protocol}, the log server {m.PROTOCOL}"
        )
    if hello.version not in ("", m.VERSION):
        return m.Refused(
            reason=f"the worker is mmzero-async {hello.version}, the log server {m.VERSION}: "
            "install the same on both hosts"
        )
    if hello.config_digest != digest:
        return m.Refused(
            reason=f"the worker has configuration {hello.config_digest}, the run has {digest}: "
            "start it with the run's own configuration"
        )
    if hello.worker == SERVER:
        return m.Refused(reason=f"the name {SERVER} is the log server's own")
    if owner is not None and not owner.may_write_as(hello.worker):
        return m.Refused(reason=owner.refusal(hello.worker))
    if hello.epoch and hello.epoch < last_epoch:
        return m.Refused(
            reason=f"epoch {hello.epoch} of {hello.worker} is over, epoch {last_epoch} has taken "
            "over: another process bears the same name"
        )
    if hello.epoch > last_epoch:
        return m.Refused(
            reason=f"{hello.worker} was given epoch {hello.epoch} by another log: start it anew",
            anew=True,
        )
    return None


@dataclass(slots=True)
class Refusals:
    """Who was refused, until it comes in: the newest of each worker. Bounded."""

    _told: dict[str, tuple[str, float]] = field(default_factory=dict)  # worker -> reason, when

    def told(self, worker: str, reason: str, now: float) -> None:
        self._told.pop(worker, None)
        self._told[worker] = reason, now
        while len(self._told) > MOST_REMEMBERED:
            del self._told[next(iter(self._told))]

    def came_in(self, worker: str) -> None:
        self._told.pop(worker, None)

    def now(self, now: float) -> list[Refusal]:
        """The oldest first."""
        told: Mapping[str, tuple[str, float]] = self._told
        return [
            Refusal(worker=worker, reason=reason, seconds=now - when)
            for worker, (reason, when) in told.items()
        ]
