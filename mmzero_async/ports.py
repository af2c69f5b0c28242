"""The TCP port that a server of ours takes, settled before the server is started."""

import socket


class PortTaken(OSError):
    """Somebody else listens there, or the port may not be used: says which key to change."""


def free_port(host: str, port: int, *, key: str) -> int:
    """The port itself if nobody listens there, or any free one for 0.

    Raises PortTaken, naming the configuration's `key`, when it is taken or may not be used.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(
                f"cannot listen at {host}:{port} ({error.strerror}): set {key} to another port "
                "(0: any free one), or stop what listens there"
            ) from error
        return int(probe.getsockname()[1])
