"""The inventory: which hosts there are, what runs on each, how they are reached. One TOML file.

Read strictly: an unknown key or a wrong type is refused with its place. What the file says as a
whole (two log servers, a GPU promised twice) is judged by plan.py. docs/cluster.example.toml holds
every key with its meaning.
"""

import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from mmzero_async.config import ConfigError
from mmzero_async.schemas.events import Role

STAGES = ("proposer", "coder", "renderer", "solver")  # roles that scale, and may be drained

# A host's name begins its workers' names, and names its key: no dot, or `a` could write as `a.b`.
HostName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,39}\Z")]
RunName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,39}\Z")]
Port = Annotated[int, Meta(ge=1, le=65535)]
Number = Annotated[int, Meta(ge=0, le=4096)]
Positive = Annotated[int, Meta(ge=1, le=4096)]
Seconds = Annotated[float, Meta(gt=0, le=86400)]


class InventoryError(ConfigError):
    """An inventory that cannot be started: says everything that is wrong, and what to do."""


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all sections: frozen, unknown keys refused."""


class Roles(_Section, frozen=True, kw_only=True):
    """How many of each process a host runs."""

    log: Number = 0  # the log server, and the read server beside it
    engine: Number = 0
    learner: Number = 0  # 1 on several hosts: together they are one learner
    proposer: Number = 0
    coder: Number = 0
    renderer: Number = 0
    solver: Number = 0


class EnginePlace(_Section, frozen=True, kw_only=True):
    """How the engine lies on its host. Without GPUs it is vLLM's CPU engine."""

    gpus: tuple[Number, ...] = ()
    tensor_parallel: Positive = 1  # GPUs that share one copy of the model
    data_parallel: Positive = 1  # copies behind the one address
    role: Role | None = None  # that it serves alone, with full weights; none: all, as adapters


class LearnerPlace(_Section, frozen=True, kw_only=True):
    """How the learner lies on its host; learner.device of the configuration says cpu or cuda."""

    gpus: tuple[Number, ...] = ()


class Ssh(_Section, frozen=True, kw_only=True):
    """How a host is reached. Its host key must be known."""

    user: str = ""  # empty: who starts the cluster
    port: Port = 22
    identity: str = ""  # a private key's file; empty: ssh-agent and ~/.ssh
    known_hosts: str = "~/.ssh/known_hosts"


class Host(_Section, frozen=True, kw_only=True):
    """One host. What is empty here is taken from the top of the file."""

    address: str  # at which all other hosts reach it
    roles: Roles = Roles()
    gpus: tuple[Number, ...] = ()  # that the run may use
    engine: EnginePlace = EnginePlace()
    learner: LearnerPlace = LearnerPlace()
    ssh: Ssh | None = None  # in place of the one at the top, as a whole
    python: str = ""
    path: str = ""
    base_model: str = ""
    env: dict[str, str] = {}  # over the one at the top, key by key


class Ports(_Section, frozen=True, kw_only=True):
    """Where the servers listen on their hosts."""

    log: Port = 5701
    read: Port = 5702
    engine: Port = 8701
    learner: Port = 29400  # where the ranks of a learner on several hosts meet


class Inventory(_Section, frozen=True, kw_only=True):
    """The whole file."""

    run: RunName  # the run's name, and its folder's on every host
    config: str = "seedling"  # a preset or a TOML file, as for `mmzero run --config`
    overrides: tuple[str, ...] = ()  # section.key=value
    keys: str  # folder of CURVE keys on the machine that starts the cluster
    python: str  # the interpreter on each host that has this project installed
    path: str  # folder on each host, in which the run's folder is made
    base_model: str = ""  # its folder on each host; empty: what run.base_model says
    link_seconds: Seconds = 300.0  # a host goes on so long without a line to the driver
    one_machine: bool = False  # all hosts are this machine, at loopback addresses: for trials
    ssh: Ssh = Ssh()
    ports: Ports = Ports()
    env: dict[str, str] = {}
    hosts: dict[HostName, Host]


def load(path: Path) -> Inventory:
    """The inventory in a TOML file. InventoryError for what cannot be read as one."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InventoryError(
            f"inventory {path} cannot be read ({error.strerror}): docs/cluster.example.toml is one"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InventoryError(f"inventory {path}: not valid TOML: {error}") from error
    try:
        return msgspec.convert(tree, Inventory)
    except msgspec.ValidationError as error:
        raise InventoryError(
            f"inventory {path}: {error}. Every key stands in docs/cluster.example.toml"
        ) from error
