"""What can go wrong between a worker and the log server."""


class TransportError(Exception):
    """Base of the transport's errors."""


class NotReachable(TransportError):
    """Nobody answers at the log server's address."""


class WorkerRefused(TransportError):
    """The log server will not have this worker: wrong configuration, fenced, beyond credit."""


class BadMessage(TransportError):
    """Bytes that are no message of this protocol, or one that says what cannot be."""


class PortInUse(TransportError):
    """Somebody else listens at the log server's address."""
