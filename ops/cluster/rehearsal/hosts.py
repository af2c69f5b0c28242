"""Hosts on one machine: network namespaces, each with an address, a link and an SSH server.

Where namespaces may not be made (no root), the hosts are loopback addresses: then links cannot be
pulled or made bad, and whoever rehearses is told so (`real` is False, `why` says why).
"""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from mmzero_async.ops.cluster.rehearsal.cable import Cable

_SSH_PORT = 2222
_PATIENCE = 60.0


class NotPossible(RuntimeError):
    """What these hosts cannot do."""


@dataclass(slots=True)
class RehearsalHost:
    """One host; `space` is its network namespace, empty for loopback."""

    name: str
    address: str
    space: str = ""
    device: str = ""  # this machine's end of its link
    inner: str = ""  # its own end
    cable: Cable | None = None
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    def command(self, *command: str) -> list[str]:
        """The command as it runs on this host."""
        return ["ip", "netns", "exec", self.space, *command] if self.space else list(command)

    def pull(self) -> None:
        """Its link is down until `push`."""
        self._link("down")

    def push(self) -> None:
        self._link("up")

    def worsen(self, delay: float, loss: float) -> None:
        """Seconds added each way, share of packets lost. NotPossible without a cable."""
        if self.cable is None:
            raise NotPossible(f"{self.name} is on no cable of ours")
        self.cable.delay, self.cable.loss = delay, loss

    def _link(self, state: str) -> None:
        if not self.space:
            raise NotPossible("a loopback address has no link to pull")
        _ip("link", "set", self.device, state)


@dataclass(slots=True)
class Hosts:
    """All of them, and how to reach them."""

    folder: Path
    hosts: dict[str, RehearsalHost]
    real: bool
    why: str  # not real

    @property
    def ssh(self) -> dict[str, object]:
        """For an inventory."""
        return {
            "port": _SSH_PORT,
            "identity": str(self.folder / "id"),
            "known_hosts": str(self.folder / "known_hosts"),
        }


@contextlib.asynccontextmanager
async def rehearsal_hosts(
    folder: Path, names: Sequence[str], *, on_cable: Sequence[str] = (), number: int = 0
) -> AsyncIterator[Hosts]:
    """Hosts until the end, when nothing of them is left. `number` tells networks of several
    rehearsals at once apart (0 to 200)."""
    number = number or os.getpid() % 200 + 1
    why = _why_not()
    async with contextlib.AsyncExitStack() as stack:
        hosts: dict[str, RehearsalHost] = {}
        if not why:
            bridge = f"mmz{number}"
            stack.callback(_quietly, "link", "del", bridge)
            _ip("link", "add", bridge, "type", "bridge")
            _ip("addr", "add", f"10.213.{number}.1/24", "dev", bridge)
            _ip("link", "set", bridge, "up")
        for i, name in enumerate(names):
            if why:
                hosts[name] = RehearsalHost(name, f"127.{number}.0.{i + 2}")
            else:
                hosts[name] = _space(stack, name, number, i, cable=name in on_cable)
        made = Hosts(folder, hosts, not why, why)
        stack.push_async_callback(_stop, hosts)
        await _serve_ssh(made)
        yield made


def _why_not() -> str:
    """Why there can be no namespaces here; empty: there can."""
    if shutil.which("ip") is None:
        return "there is no `ip` (iproute2)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun cannot be opened"
    probe = f"mmzprobe{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    _quietly("netns", "del", probe)
    return tried.stderr.strip() if tried.returncode else ""


def _space(
    stack: contextlib.AsyncExitStack, name: str, number: int, i: int, *, cable: bool
) -> RehearsalHost:
    space, outer, inner = f"mmz{number}-{name}", f"mmz{number}o{i}", f"mmz{number}i{i}"
    host = RehearsalHost(name, f"10.213.{number}.{i + 10}", space, outer, inner)
    stack.callback(_quietly, "netns", "del", space)
    _ip("netns", "add", space)
    if cable:
        host.cable = Cable((outer, inner))
        stack.callback(host.cable.unplug)
        host.cable.plug_in()
    else:
        stack.callback(_quietly, "link", "del", outer)
        _ip("link", "add", outer, "type", "veth", "peer", "name", inner)
    _ip("link", "set", outer, "master", f"mmz{number}", "up")
    _ip("link", "set", inner, "netns", space)
    for command in (
        ("addr", "add", f"{host.address}/24", "dev", inner),
        ("link", "set", inner, "up"),
        ("link", "set", "lo", "up"),
        ("route", "add", "default", "via", f"10.213.{number}.1"),
    ):
        _ip("-n", space, *command)
    return host


async def _serve_ssh(made: Hosts) -> None:
    folder = made.folder
    folder.mkdir(parents=True, exist_ok=True)
    ours, theirs = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    for path in (folder / "id", folder / "host_key"):
        path.unlink(missing_ok=True)
    ours.write_private_key(str(folder / "id"))
    (folder / "id").chmod(0o600)
    ours.write_public_key(str(folder / "authorized"))
    theirs.write_private_key(str(folder / "host_key"))
    (folder / "host_key").chmod(0o600)
    public = theirs.export_public_key().decode().strip()
    known = [f"[{host.address}]:{_SSH_PORT} {public}\n" for host in made.hosts.values()]
    (folder / "known_hosts").write_text("".join(known))
    for host in made.hosts.values():
        command = host.command(*_ssh_server(folder, host))
        with (folder / f"sshd-{host.name}.log").open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )
        host.processes.append(child)
    for host in made.hosts.values():
        await until_open(host.address, _SSH_PORT)


def _ssh_server(folder: Path, host: RehearsalHost) -> list[str]:
    """OpenSSH's, where it is installed and we may start it; else asyncssh's."""
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    key, authorized = str(folder / "host_key"), str(folder / "authorized")
    if sshd is None or os.geteuid() != 0:
        module = "mmzero_async.ops.cluster.rehearsal.sshd"
        return [sys.executable, "-m", module, host.address, str(_SSH_PORT), key, authorized]
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # it wants an empty folder
    settings = {
        "ListenAddress": host.address,
        "Port": _SSH_PORT,
        "HostKey": key,
        "AuthorizedKeysFile": authorized,
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
    }
    config = folder / f"sshd-{host.name}.conf"
    config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    return [sshd, "-D", "-e", "-f", str(config)]


async def until_open(address: str, port: int) -> None:
    """TimeoutError when nobody listens there in time."""
    async with asyncio.timeout(_PATIENCE):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(address, port, family=socket.AF_INET)
                writer.close()
                return
            await asyncio.sleep(0.1)


async def _stop(hosts: dict[str, RehearsalHost]) -> None:
    for host in hosts.values():
        for process in host.processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _ip(*command: str) -> None:
    ran = subprocess.run(["ip", *command], capture_output=True, text=True)
    if ran.returncode:
        raise NotPossible(f"ip {' '.join(command)}: {ran.stderr.strip()}")


def _quietly(*command: str) -> None:
    subprocess.run(["ip", *command], capture_output=True)
