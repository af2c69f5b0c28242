"""An SSH server for a rehearsal's host, where no sshd is installed: asyncssh's own.

`python -m mmzero_async.ops.cluster.rehearsal.sshd ADDRESS PORT HOST_KEY AUTHORIZED_KEYS` runs the
commands of who has an authorised key, as who started it, and nothing else. Not for a network.
"""

import asyncio
import os
import sys
from typing import Any

import asyncssh


async def _session(session: Any) -> None:
    """As sshd does without a terminal: pipes, and a command that outlives a line that is cut
    notices it by its pipes alone."""
    if not session.command:
        session.stderr.write(b"no shell here: name a command\n")
        session.exit(1)
        return
    child = await asyncio.create_subprocess_shell(
        session.command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        cwd=os.environ.get("HOME", "/"),
    )
    await session.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
    status = await child.wait()
    await session.stdout.drain()
    session.exit(status if status >= 0 else 255)


async def _main(address: str, port: str, host_key: str, authorized: str) -> None:
    acceptor = await asyncssh.listen(
        address,
        int(port),
        server_host_keys=[host_key],
        authorized_client_keys=authorized,
        process_factory=_session,
        encoding=None,
        keepalive_interval=15,
    )
    await acceptor.wait_closed()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
