"""From an inventory and a configuration to the plan: every process of the run, by host.

Pure: no file is read, no name resolved, nothing started. The plan is plain data (msgspec), and all
that starts a cluster, or writes what another scheduler starts, works from it alone.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

import msgspec
from msgspec.structs import replace

from mmzero_async.config import Config
from mmzero_async.ops.cluster.inventory import STAGES, Host, Inventory, InventoryError, Ssh
from mmzero_async.ops.cluster.objections import objections
from mmzero_async.ops.cluster.words import KEYS
from mmzero_async.schemas.events import ROLES
from mmzero_async.telemetry import HOST
from mmzero_async.transport.keys import SERVER_KEY

ENGINE_KEY = "engine.key_secret"
LOG_ROLES = ("log-server", "log-reader", "tracker", "log-shipper")  # run as long as the log does
_HELPING = (*STAGES, "log-reader", "tracker", "log-shipper")  # the run goes on without them

Counts = dict[str, dict[str, int]]  # host -> stage -> processes


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One process that is to be alive."""

    name: str  # unique in the run, e.g. "beta.coder-0"
    host: str
    role: str  # one of LOG_ROLES, "engine", "learner", or a stage
    command: tuple[str, ...]  # complete, as its host understands it
    env: dict[str, str] = {}  # beyond the host's own
    gpus: tuple[int, ...] = ()
    listens: dict[str, int] = {}  # what for -> port
    vital: bool = False  # without it the run ends


class PlannedHost(msgspec.Struct, frozen=True, kw_only=True):
    """One host, with everything that its entry left to the top of the file filled in."""

    name: str
    address: str
    ssh: Ssh
    python: str
    run_dir: str
    base_model: str  # empty: what run.base_model says
    gpus: tuple[int, ...]
    secrets: tuple[str, ...]  # files in its folder of keys; "authorized/" is every public key
    needs_base: bool  # it serves or trains the base model


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The whole run."""

    run: str
    config: Config  # the same text on every host
    hosts: dict[str, PlannedHost]
    processes: tuple[Process, ...]  # in the order in which they start
    log_host: str
    log_url: str
    read_url: str
    engine_url: str  # of several engines, separated by commas; with full weights the solver's
    engine_hosts: tuple[str, ...]  # none: engines that run already
    counts: Counts
    may: dict[str, tuple[str, ...]]  # stage -> hosts that the inventory gives it to
    drained: tuple[str, ...] = ()
    link_seconds: float = 300.0
    keys: str = ""  # folder of CURVE keys on the driver's machine
    role_engines: dict[str, str] = {}  # with full weights: role -> its engines' addresses

    @property
    def engine_host(self) -> str:
        """The first of them; empty: engines that run already."""
        return self.engine_hosts[0] if self.engine_hosts else ""

    def on(self, host: str) -> tuple[Process, ...]:
        return tuple(process for process in self.processes if process.host == host)

    def process(self, name: str) -> Process:
        """InventoryError when the run has none of that name."""
        for process in self.processes:
            if process.name == name:
                return process
        names = ", ".join(process.name for process in self.processes)
        raise InventoryError(f"the run has no process {name!r}; there are: {names}")


def make(inventory: Inventory, config: Config) -> Plan:
    """InventoryError with everything that is wrong, a line each."""
    wrong = list(objections(inventory, config))
    if wrong:
        raise InventoryError("the inventory cannot be started:\n" + "\n".join(wrong))
    counts = {
        name: {stage: getattr(host.roles, stage) for stage in STAGES}
        for name, host in inventory.hosts.items()
    }
    return _plan(inventory, config, counts, ())


def scaled(plan: Plan, inventory: Inventory, stage: str, count: int) -> Plan:
    """So many processes of a stage in all, spread over the hosts that may run it.

    New ones go where the fewest are, those that go are taken where the most are; what stays, stays
    where it is. InventoryError.
    """
    if stage not in STAGES:
        raise InventoryError(f"{stage!r} does not scale: choose one of {', '.join(STAGES)}")
    hosts = [host for host in plan.may[stage] if host not in plan.drained]
    if not hosts or not 0 <= count <= 4096:
        raise InventoryError(
            f"no host that is not drained may run a {stage}: give one the role in the inventory, "
            "and `mmzero cluster join` it"
            if count
            else f"{stage}={count}: 0 to 4096 processes"
        )
    now = {host: plan.counts[host][stage] for host in hosts}
    while sum(now.values()) != count:
        if sum(now.values()) < count:
            now[min(hosts, key=now.__getitem__)] += 1
        else:
            now[max(reversed(hosts), key=now.__getitem__)] -= 1
    counts = {host: dict(each) for host, each in plan.counts.items()}
    for host, number in now.items():
        counts[host][stage] = number
    return _plan(inventory, plan.config, counts, plan.drained)


def drained(plan: Plan, inventory: Inventory, host: str) -> Plan:
    """The host runs no stage any more. InventoryError for one that the run cannot do without."""
    if host not in plan.hosts:
        raise InventoryError(f"no host {host!r}; there are: {', '.join(plan.hosts)}")
    vital = [p.role for p in plan.on(host) if p.role not in (*STAGES, "tracker", "log-shipper")]
    if vital:
        raise InventoryError(
            f"{host} holds the run's {', '.join(vital)}: it cannot be drained while the run goes "
            "on. Stop the run, give the role to another host in the inventory, and start it again"
        )
    counts = plan.counts | {host: dict.fromkeys(STAGES, 0)}
    return _plan(inventory, plan.config, counts, tuple(sorted({*plan.drained, host})))


def joined(plan: Plan, inventory: Inventory, host: str) -> Plan:
    """With a host more, as it stands in the inventory now; a drained one takes part again."""
    if host not in inventory.hosts:
        raise InventoryError(f"the inventory has no host {host!r}: write it there first")
    if host in plan.hosts and host not in plan.drained:
        raise InventoryError(f"{host} takes part already")
    roles = inventory.hosts[host].roles
    others = {name: inventory.hosts[name] for name in plan.hosts if name in inventory.hosts}
    together = replace(inventory, hosts=others | {host: inventory.hosts[host]})
    wrong = list(objections(together, plan.config))
    if roles.log or roles.engine or roles.learner:
        wrong.append(f"{host} is given a log server, an engine or a learner: a run has its own")
    if wrong:
        raise InventoryError(f"{host} cannot join:\n" + "\n".join(wrong))
    counts = plan.counts | {host: {stage: getattr(roles, stage) for stage in STAGES}}
    return _plan(inventory, plan.config, counts, tuple(n for n in plan.drained if n != host))


# --- what follows ---------------------------------------------------------------------------------


def _plan(inventory: Inventory, config: Config, counts: Counts, drained: tuple[str, ...]) -> Plan:
    named = {name: host for name, host in inventory.hosts.items() if name in counts}
    log_host = next(name for name, host in named.items() if host.roles.log)
    engine_hosts = tuple(name for name, host in named.items() if host.roles.engine)
    run_dirs = {n: f"{h.path or inventory.path}/{inventory.run}" for n, h in named.items()}
    ports, address = inventory.ports, named[log_host].address
    log = replace(
        config.log,
        host=address,
        port=ports.log,
        read_port=ports.read,
        keys=f"{run_dirs[log_host]}/{KEYS}",
    )
    engine, engine_url = config.engine, config.engine.url
    role_engines: dict[str, str] = {}
    if engine_hosts:
        at = {n: f"http://{_bracketed(named[n].address)}:{ports.engine}" for n in engine_hosts}
        engine = replace(engine, host=named[engine_hosts[0]].address, port=ports.engine)
        if config.learner.weights == "full":
            for role in ROLES:
                serving = [n for n in engine_hosts if named[n].engine.role == role]
                role_engines[role] = ",".join(at[n] for n in serving)
        engine_url = role_engines.get("solver") or ",".join(at.values())
    plan = Plan(
        run=inventory.run,
        config=replace(config, log=log, engine=engine),
        hosts={n: _host(n, h, inventory, run_dirs[n], log_host) for n, h in named.items()},
        processes=(),
        log_host=log_host,
        log_url=f"tcp://{_bracketed(address)}:{ports.log}",
        read_url=f"tcp://{_bracketed(address)}:{ports.read}",
        engine_url=engine_url,
        engine_hosts=engine_hosts,
        counts=counts,
        may={
            stage: tuple(n for n, h in named.items() if getattr(h.roles, stage)) for stage in STAGES
        },
        drained=drained,
        link_seconds=inventory.link_seconds,
        keys=inventory.keys,
        role_engines=role_engines,
    )
    return replace(plan, processes=tuple(_processes(plan, inventory)))


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _host(name: str, host: Host, inventory: Inventory, run_dir: str, log_host: str) -> PlannedHost:
    secrets = [f"{name}.key_secret", f"{SERVER_KEY}.key", ENGINE_KEY]
    if name == log_host:
        secrets += [f"{SERVER_KEY}.key_secret", "authorized/"]
    return PlannedHost(
        name=name,
        address=host.address,
        ssh=host.ssh or inventory.ssh,
        python=host.python or inventory.python,
        run_dir=run_dir,
        base_model=host.base_model or inventory.base_model,
        gpus=host.gpus,
        secrets=tuple(secrets),
        needs_base=bool(host.roles.engine or host.roles.learner),
    )


def _processes(plan: Plan, inventory: Inventory) -> Iterator[Process]:
    ports = inventory.ports
    at = plan.log_host
    yield _process(plan, inventory, at, "log-server", "log_server", ("--port", str(ports.log)))
    yield _process(plan, inventory, at, "log-reader", "log_reader", ("--port", str(ports.read)))
    if plan.config.tracker.wanted:  # it reads the log's files
        yield _process(plan, inventory, at, "tracker", "tracker", ())
    for host in plan.hosts:
        if host != at:
            read = ("--read-url", plan.read_url)
            yield _process(plan, inventory, host, "log-shipper", "log_shipper", read)
    options: tuple[str, ...]
    for host in plan.engine_hosts:
        place = inventory.hosts[host].engine
        options = (
            *("--tensor-parallel", str(place.tensor_parallel)),
            *("--data-parallel", str(place.data_parallel)),
        )
        if place.role is not None:
            options += ("--role", place.role)
        if len(plan.engine_hosts) > 1:  # the configuration, the same for all, can name but one
            options += ("--host", plan.hosts[host].address)
        yield _process(plan, inventory, host, "engine", "engine", options)
    yield from _learners(plan, inventory)
    for stage in STAGES:
        for host, counts in plan.counts.items():
            for i in range(counts[stage]):
                yield _process(plan, inventory, host, stage, stage, (), number=i)


def _learners(plan: Plan, inventory: Inventory) -> Iterator[Process]:
    """One process, or a launcher on each of its hosts: the first is the learner's rank 0, which
    alone knows the log, the engine and a key."""
    hosts = [name for name in plan.hosts if inventory.hosts[name].roles.learner]
    hosts.sort(key=lambda name: name != plan.log_host)  # it reads the log event by event
    first, *others = hosts
    options = [] if first == plan.log_host else ["--read-url", plan.read_url]
    if any(host != first for host in plan.engine_hosts):
        options.append("--hand-over")
    for role, urls in plan.role_engines.items():
        options += ["--role-engines", f"{role}={urls}"]
    several = bool(others) or plan.config.learner.processes > 1
    module = "learner_ranks" if several else "learner"
    found = [_process(plan, inventory, first, "learner", module, tuple(options))]
    for host in others:
        process = _process(plan, inventory, host, "learner", module, ())
        at = process.command.index("--worker")
        found.append(replace(process, command=process.command[: at + 2]))
    for rank, process in enumerate(found):
        meet = {
            "PET_NNODES": str(len(hosts)),
            "PET_NODE_RANK": str(rank),
            "PET_MASTER_ADDR": plan.hosts[first].address,
            "PET_MASTER_PORT": str(inventory.ports.learner),
        }
        listens = {"ranks": inventory.ports.learner} if others and not rank else {}
        env = {**meet, **process.env} if others else process.env
        yield replace(process, env=env, listens=listens)


def _process(
    plan: Plan,
    inventory: Inventory,
    host: str,
    role: str,
    module: str,
    options: tuple[str, ...],
    number: int = 0,
) -> Process:
    at, ports = plan.hosts[host], inventory.ports
    keys = f"{at.run_dir}/{KEYS}"
    command = [at.python, "-m", f"mmzero_async.workers.{module}", "--run-dir", at.run_dir]
    name = role
    gpus: tuple[int, ...] = ()
    listens: dict[str, int] = {}
    match role:
        case "log-server":
            listens = {"log": ports.log}
        case "log-reader":
            listens = {"read": ports.read}
        case "tracker":
            pass
        case "log-shipper":
            name = f"{host}.log-shipper"
            command += ["--key", f"{keys}/{host}.key_secret"]
        case "engine":
            name, gpus = f"{host}.engine", inventory.hosts[host].engine.gpus
            listens = {"engine": ports.engine}
            command += ["--engine-key", f"{keys}/{ENGINE_KEY}"]
        case _:
            name = f"{host}.{role}-{number}"
            if role == "learner":
                gpus = inventory.hosts[host].learner.gpus
            command += ["--worker", name, "--log-url", plan.log_url]
            command += ["--key", f"{keys}/{host}.key_secret"]
            if role != "renderer":
                command += ["--engine-url", plan.role_engines.get(role, plan.engine_url)]
                command += ["--engine-key", f"{keys}/{ENGINE_KEY}"] if plan.engine_host else []
    env = {HOST: host, **inventory.env, **inventory.hosts[host].env}
    if at.gpus:  # a process that is promised none must not take another's
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
    return Process(
        name=name,
        host=host,
        role=role,
        command=(*command, *options),
        env=env,
        gpus=gpus,
        listens=listens,
        vital=role not in _HELPING
        and not (role == "engine" and _has_others(host, plan, inventory)),
    )


def _has_others(host: str, plan: Plan, inventory: Inventory) -> bool:
    """Whether other engines serve what the host's does."""
    role = inventory.hosts[host].engine.role
    return any(n != host and inventory.hosts[n].engine.role == role for n in plan.engine_hosts)


def totals(plan: Plan) -> Mapping[str, int]:
    """Processes of each role."""
    return Counter(process.role for process in plan.processes)
