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


class KeysUnusable(TransportError):
    """Key files that are missing, broken or open to others: says which, and what to do."""


class NotSecured(TransportError):
    """An address beyond this host, without keys."""


class HandshakeFailed(TransportError):
    """The two ends do not have the keys that they expect of each other."""
