"""What can go wrong between a worker and the log server."""


class TransportError(Exception):
    """Base of the transport's errors."""


class NotReachable(TransportError):
    """Nobody answers at the log server's address."""


class WorkerRefused(TransportError):
    """The log server will not have this worker: wrong configuration, fenced, beyond credit.

    `for_good`: nor any other process that is started the same way.
    """

    def __init__(self, reason: str, *, for_good: bool = False) -> None:
        super().__init__(reason)
        self.for_good = for_good


class BadMessage(TransportError):
    """Bytes that are no message of this protocol, or one that says what cannot be."""


class PortInUse(TransportError):
    """Somebody else listens at the log server's address."""


class KeysUnusable(TransportError):
    """Key files that are missing, broken or open to others: says which, and what to do."""


class NotSecured(TransportError):
    """An address beyond this host, without keys."""


class HandshakeFailed(TransportError):
    """The two ends do not have the keys that they expect of each other."""


def hopeless(error: BaseException) -> bool:
    """Whether the same process started again would end the same way: its keys or its server's are
    amiss, or the server has refused it for good."""
    if isinstance(error, WorkerRefused):
        return error.for_good
    return isinstance(error, HandshakeFailed | KeysUnusable | NotSecured)
