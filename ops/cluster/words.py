"""What a driver and a host's agent say to each other: JSON, one line a message.

The driver asks, each request with a number; the agent answers each under the same number. Secrets
travel in `Prepare` alone, and stand in no other message and no log line.
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec

SOCKET, KEYS = "agent.sock", "keys"  # in the run's folder on a host
MAX_LINE = 64 << 20  # bytes of one message
T = TypeVar("T")


class AgentError(RuntimeError):
    """What a host cannot do, or what it says that is none of these words."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """The installation on a machine."""

    version: str
    schema: int
    code: str  # digest of the package's source files
    commit: str  # of the checkout that it runs from; empty where there is none
    python: str
    vllm: str = ""  # distribution and version; empty: not installed


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """First words of every line to an agent. `driver` is random, of the driver's process."""

    driver: str
    who: str  # for people: user, host and process of the driver


class Prepare(msgspec.Struct, frozen=True, kw_only=True, tag="prepare"):
    """What lies in the run's folder. May be said again: files are replaced."""

    config: str  # config.json
    base_model: str  # its folder; empty: what the configuration says
    needs_base: bool
    secrets: dict[str, str] = {}  # file in the folder of keys -> content


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    """Keep this process alive. Said again, it changes nothing, unless the command is another."""

    name: str
    command: list[str]
    env: dict[str, str] = {}


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """End it, and keep it alive no more."""

    name: str


class Restart(msgspec.Struct, frozen=True, kw_only=True, tag="restart"):
    """End it and start it, also when it was given up."""

    name: str


class Look(msgspec.Struct, frozen=True, kw_only=True, tag="look"):
    """How everything is. Said once a second, it is the line's heartbeat too."""


class End(msgspec.Struct, frozen=True, kw_only=True, tag="end"):
    """Stop everything, remove the secrets, go."""


Ask = Hello | Prepare | Start | Stop | Restart | Look | End


class Request(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    ask: Ask


class ChildState(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the host's."""

    name: str
    pid: int = 0  # 0: not running now
    restarts: int = 0
    ended: bool = False  # by itself, with status 0
    given_up: str = ""  # why it is started no more


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    error: str = ""  # empty: done
    about: About | None = None
    children: list[ChildState] = []
    base_digest: str = ""
    free_bytes: int = 0  # of the disk with the run's folder


_requests = msgspec.json.Decoder(Request)
_replies = msgspec.json.Decoder(Reply)


def encode(message: Request | Reply) -> bytes:
    return msgspec.json.encode(message) + b"\n"


def request(line: bytes) -> Request:
    """AgentError for anything else."""
    return _decoded(_requests.decode, line)


def reply(line: bytes) -> Reply:
    """AgentError for anything else."""
    return _decoded(_replies.decode, line)


def _decoded(decode: Callable[[bytes], T], line: bytes) -> T:
    """The text itself is not for the error: it may hold a secret."""
    try:
        return decode(line)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise AgentError(f"a line of {len(line)} bytes is no message of ours: {error}") from None
