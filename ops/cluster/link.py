"""The line to one host: SSH, and at its end the host's agent.

Knows no plan and no run. A line that breaks is LinkLost, and may be opened again; what another try
would not mend is HostRefused, and says what to do.
"""

import asyncio
import contextlib
import itertools
import shlex
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh

from mmzero_async.ops.cluster import words as w
from mmzero_async.ops.cluster.plan import PlannedHost

ANSWER_SECONDS = 3.5  # for a heartbeat, asked every second: a line that is down is known in 5
CONNECT_SECONDS = 4.0
START_SECONDS = 90.0  # for an agent that is started, on a host that is busy
SLOW_SECONDS = 120.0  # for what stops processes or reads a base model
_INSTALL = "install this project there (git clone; ./launch setup) and set `python` to its .venv"


class LinkLost(Exception):
    """Nobody answers, now."""


class HostRefused(Exception):
    """The host will not do it, however often it is asked."""


class Line:
    """An open line. Use `opened`; `ask` may be called from many tasks at once."""

    def __init__(self, host: PlannedHost, process: Any) -> None:
        self._host, self._process = host, process
        self._ids = itertools.count(1)
        self._asked: dict[int, asyncio.Future[w.Reply]] = {}
        self._lost = ""

    async def ask(self, ask: w.Ask, seconds: float = SLOW_SECONDS) -> w.Reply:
        """LinkLost when no answer comes in time; HostRefused for what the agent refuses."""
        if self._lost:
            raise LinkLost(self._lost)
        number = next(self._ids)
        answer: asyncio.Future[w.Reply] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            async with asyncio.timeout(seconds):
                self._process.stdin.write(w.encode(w.Request(id=number, ask=ask)))
                reply = await answer
        except TimeoutError:
            raise LinkLost(f"no answer within {seconds:g} s") from None
        except (OSError, asyncssh.Error) as error:
            raise LinkLost(str(error)) from None
        finally:
            self._asked.pop(number, None)
        if reply.error:
            raise HostRefused(f"{self._host.name}: {reply.error}")
        return reply

    async def read(self) -> None:
        """Until the line ends; hands answers to those who asked."""
        try:
            while data := await self._process.stdout.readline():
                reply = w.reply(data)
                answer = self._asked.get(reply.id)
                if answer is not None and not answer.done():
                    answer.set_result(reply)
            self._lost = await self._why_ended()
        except (OSError, asyncssh.Error, w.AgentError) as error:
            self._lost = str(error)
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(LinkLost(self._lost))

    async def _why_ended(self) -> str:
        said = ""
        with contextlib.suppress(TimeoutError, OSError, asyncssh.Error):
            async with asyncio.timeout(5.0):
                said = (await self._process.stderr.read()).decode(errors="replace").strip()
                await self._process.wait()
        status = self._process.exit_status
        return f"the agent's session ended (status {status}): {said or 'it said nothing'}"

    @property
    def never_will(self) -> str:
        """Why opening it again is of no use; empty: it may be."""
        if self._process.exit_status in (126, 127) or "No module named" in self._lost:
            return f"{self._host.python} cannot start our agent: {self._lost}. {_INSTALL}"
        return ""


@asynccontextmanager
async def opened(
    host: PlannedHost, hello: w.Hello, link_seconds: float
) -> AsyncIterator[tuple[Line, w.About]]:
    """The line to a host's agent, started where there is none. LinkLost; HostRefused."""
    command = [host.python, "-m", "mmzero_async.ops.cluster.attach"]
    command += ["--run-dir", host.run_dir, "--link-seconds", str(link_seconds)]
    async with _connection(host) as connection:
        try:
            process: Any = await connection.create_process(shlex.join(command), encoding=None)
        except (OSError, asyncssh.Error) as error:
            raise LinkLost(f"no session: {error}") from None
        line = Line(host, process)
        reading = asyncio.create_task(line.read())
        try:
            try:
                reply = await line.ask(hello, START_SECONDS)
            except LinkLost:
                await asyncio.wait({reading}, timeout=5.0)  # a session that ended says why
                if line.never_will:
                    raise HostRefused(f"{host.name}: {line.never_will}") from None
                raise
            assert reply.about is not None
            yield line, reply.about
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            process.close()


@asynccontextmanager
async def _connection(host: PlannedHost) -> AsyncIterator[asyncssh.SSHClientConnection]:
    where = f"{host.name} ({host.address}:{host.ssh.port})"
    options = _options(host)
    try:
        connection = await asyncssh.connect(host.address, host.ssh.port, **options)
    except asyncssh.HostKeyNotVerifiable as error:
        raise HostRefused(
            f"{where}: its host key is not in {options['known_hosts']} ({error}): look at it, and "
            "write it there with ssh-keyscan"
        ) from None
    except (asyncssh.PermissionDenied, asyncssh.KeyImportError, FileNotFoundError) as error:
        raise HostRefused(
            f"{where}: SSH does not let us in ({error}): set ssh.user and ssh.identity, and put "
            "the public key into its authorized_keys"
        ) from None
    except socket.gaierror as error:
        raise HostRefused(f"{where}: this machine knows no such address: {error}") from None
    except (OSError, asyncssh.Error) as error:  # a timeout is an OSError
        raise LinkLost(f"SSH does not answer at {where}: {str(error) or 'timed out'}") from None
    try:
        yield connection
    finally:
        connection.abort()


def _options(host: PlannedHost) -> dict[str, Any]:
    """HostRefused when there is no file of known hosts."""
    ssh = host.ssh
    known = Path(ssh.known_hosts).expanduser()
    if not known.is_file():
        raise HostRefused(
            f"{host.name}: ssh.known_hosts = {known} is no file: `ssh` to the host once by hand"
        )
    options: dict[str, Any] = {
        "known_hosts": str(known),
        "connect_timeout": CONNECT_SECONDS,
        "login_timeout": START_SECONDS,
        "keepalive_interval": ANSWER_SECONDS,
        "config": None,  # what the inventory does not say must not decide
    }
    if ssh.user:
        options["username"] = ssh.user
    if ssh.identity:
        options["client_keys"] = [str(Path(ssh.identity).expanduser())]
    return options
