"""What an inventory as a whole may have wrong: pure, and all of it at once, with what to do."""

import ipaddress
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath

from mmzero_async.config import Config
from mmzero_async.ops.cluster.inventory import STAGES, Host, Inventory
from mmzero_async.ops.cluster.words import SOCKET
from mmzero_async.schemas.events import ROLES
from mmzero_async.transport.keys import LOCAL_KEY, SERVER_KEY

_MAX_SOCKET = 100  # bytes of a unix socket's path, with room for a suffix
_RESERVED = (SERVER_KEY, LOCAL_KEY, "engine")


def objections(inventory: Inventory, config: Config) -> Iterator[str]:
    """What is wrong, a line each; nothing when it can be started."""
    hosts = inventory.hosts
    if not hosts:
        yield "it names no hosts: write [hosts.NAME] with an address and roles"
    if config.engine.count > 1:
        yield (
            f"engine.count = {config.engine.count} is for `mmzero run`: write roles.engine = 1 on "
            "each of several hosts"
        )
    yield from _roles_of_engines(inventory, config)
    for role, what in (("log", "log server"), ("learner", "learner"), ("engine", "engine")):
        holders = {n: getattr(h.roles, role) for n, h in hosts.items() if getattr(h.roles, role)}
        wanted = 0 if role == "engine" and config.engine.url else 1
        if role == "learner" and set(holders.values()) == {1}:
            continue  # on several hosts they are the ranks of one
        if role == "engine" and max(holders.values(), default=0) > 1:
            crowded = ", ".join(name for name, number in holders.items() if number > 1)
            yield (
                f"{max(holders.values())} engines (on {crowded}): a host has one, and several "
                "hosts may; several GPUs are engine.tensor_parallel and data_parallel"
            )
        elif role != "engine" and sum(holders.values()) > 1:
            yield (
                f"{sum(holders.values())} {what}s (on {', '.join(holders)}): a run has one"
                + "; its processes on a host are learner.processes" * (role == "learner")
            )
        elif wanted and not holders:
            yield f"no host has the {what}: roles.{role} = 1 on one of them" + (
                ", or engine.url in the configuration" * (role == "engine")
            )
        elif not wanted and holders:
            yield f"engine.url is {config.engine.url}, and {', '.join(holders)} is to run an engine"
    for stage in STAGES:
        if not any(getattr(host.roles, stage) for host in hosts.values()):
            yield f"no host runs a {stage}: nothing would ever be generated"
    for key in ("python", "path"):
        for name, host in hosts.items():
            value = getattr(host, key) or getattr(inventory, key)
            if not PurePosixPath(value).is_absolute():
                yield f"{name}: {key} = {value!r} must be an absolute path on that host"
    yield from _addresses(inventory)
    yield from _ports(inventory)
    for name, host in hosts.items():
        yield from _gpus(name, host, config)
        if name in _RESERVED:
            yield f"{name} is the name of a key of the run's own: call the host otherwise"
        socket = f"{host.path or inventory.path}/{inventory.run}/{SOCKET}"
        if len(socket.encode()) > _MAX_SOCKET:
            yield f"{name}: {socket} is too long for a socket's name: choose a shorter path"


def _roles_of_engines(inventory: Inventory, config: Config) -> Iterator[str]:
    """With full weights an engine serves one role, and says which; else it serves them all."""
    full = config.learner.weights == "full"
    served = {n: h.engine.role for n, h in inventory.hosts.items() if h.roles.engine}
    for name, host in inventory.hosts.items():
        role = host.engine.role
        if role is not None and not host.roles.engine:
            yield f"{name}: engine.role is set, and the host has no engine"
        elif role is not None and not full:
            yield (
                f'{name}: engine.role = {role!r} is for learner.weights = "full": an engine of '
                "adapters serves all roles"
            )
        elif role is None and full and host.roles.engine:
            yield (
                f'{name}: with learner.weights = "full" an engine serves one role: write '
                f"engine = {{ role = ... }}, one of {', '.join(ROLES)}"
            )
    lacking = [role for role in ROLES if role not in served.values()]
    if full and lacking and None not in served.values():
        yield (
            f'no host has an engine of {", ".join(lacking)}: with learner.weights = "full" each '
            "role has its own, on a host of its own"
        )


def _addresses(inventory: Inventory) -> Iterator[str]:
    several = len(inventory.hosts) > 1
    seen: dict[str, str] = {}
    for name, host in inventory.hosts.items():
        where = f"{name}: address {host.address!r}"
        if host.address in seen:
            yield f"{where} is {seen[host.address]}'s too: a host is named once"
        seen[host.address] = name
        try:
            address = ipaddress.ip_address(host.address)
        except ValueError:
            loopback, nowhere = host.address == "localhost", not host.address
        else:
            loopback = address.is_loopback
            nowhere = address.is_unspecified or address.is_multicast
        if nowhere:
            yield f"{where} is no address that others can reach"
        elif loopback and several and not inventory.one_machine:
            yield (
                f"{where} is reached from its own host alone: write the one that the others see "
                "(one_machine = true if all of them are this machine)"
            )


def _ports(inventory: Inventory) -> Iterator[str]:
    ports = inventory.ports
    for name, host in inventory.hosts.items():
        taken: list[tuple[int, str]] = [((host.ssh or inventory.ssh).port, "ssh.port")]
        if host.roles.log:
            taken += [(ports.log, "ports.log"), (ports.read, "ports.read")]
        if host.roles.engine:
            taken.append((ports.engine, "ports.engine"))
        if host.roles.learner:
            taken.append((ports.learner, "ports.learner"))
        for port, times in Counter(port for port, _ in taken).items():
            if times > 1:
                what = " and ".join(key for at, key in taken if at == port)
                yield f"{name}: port {port} is taken twice, by {what}"


def _gpus(name: str, host: Host, config: Config) -> Iterator[str]:
    engine, learner = host.engine, host.learner
    if len(set(host.gpus)) < len(host.gpus):
        yield f"{name}: gpus = {list(host.gpus)} names one twice"
    for role, gpus in (("engine", engine.gpus), ("learner", learner.gpus)):
        if gpus and not getattr(host.roles, role):
            yield f"{name}: {role}.gpus is set, and the host has no {role}"
        if absent := sorted(set(gpus) - set(host.gpus)):
            yield f"{name}: {role}.gpus has {absent}, which the host's gpus {list(host.gpus)} lack"
        if len(set(gpus)) < len(gpus):
            yield f"{name}: {role}.gpus = {list(gpus)} names one twice"
    if both := sorted(set(engine.gpus) & set(learner.gpus)):
        yield f"{name}: GPUs {both} are promised to the engine and to the learner"
    copies = engine.tensor_parallel * engine.data_parallel
    if copies != len(engine.gpus) and (copies > 1 or len(engine.gpus) > 1):
        yield (
            f"{name}: tensor_parallel {engine.tensor_parallel} times data_parallel "
            f"{engine.data_parallel} is {copies}, and engine.gpus are {len(engine.gpus)}"
        )
    if host.roles.learner and config.learner.device == "cuda" and not learner.gpus:
        yield f"{name}: learner.device is cuda, and learner.gpus is empty"
    if learner.gpus and config.learner.device == "cpu":
        yield f"{name}: learner.gpus is set, and learner.device is cpu"
    processes = config.learner.processes
    if learner.gpus and len(learner.gpus) < processes:
        yield (
            f"{name}: learner.gpus are {len(learner.gpus)}, and learner.processes of the "
            f"configuration is {processes}: each process wants one, on every host of the learner"
        )
