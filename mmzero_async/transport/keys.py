"""CURVE keys on disk: one folder, files in ZeroMQ's own certificate format. Knows no sockets.

    DIR/                    0700
      server.key            the log server's public key; every client needs a copy beside its own
      server.key_secret     0600, stays on the log server's host
      NAME.key_secret       0600, of the client NAME; move it to the host that uses it
      authorized/NAME.key   public key of a client that may come in; delete it and it may not

A public key's `producers` says under which names its owner may write: `alpha` for alpha and all
that begins with `alpha.`, `*` for any. No function here puts a secret into an error or a log line.
"""

import os
import re
import stat
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from mmzero_async.transport.errors import KeysUnusable

SERVER_KEY = "server"
LOCAL_KEY = "local"  # of what runs on the log server's host; writes under any name
ANY = "*"
AUTHORIZED = "authorized"
MAX_KEYS = 1024  # clients that one folder may authorise
_MAX_BYTES = 4096  # of one key file
_NAME = re.compile(r"[A-Za-z0-9_.:@+-]{1,100}")
_LINE = re.compile(r"\s*([a-z-]+)\s*=\s*(.*?)\s*")
_BANNER = "#   ZeroMQ CURVE {kind} certificate of mmzero-async{advice}\n\n"


@dataclass(frozen=True, slots=True)
class Pair:
    """A key pair of our own; `secret` is kept out of its text."""

    public: bytes  # 40 characters of Z85, as all keys here
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """What a client needs: its own pair, and the public key of the server that it means."""

    path: Path  # of the secret file, for error messages
    own: Pair
    server: bytes


@dataclass(frozen=True, slots=True)
class Authorized:
    """A client that may come in."""

    name: str
    public: bytes
    producers: str

    def may_write_as(self, producer: str) -> bool:
        return (
            self.producers == ANY
            or producer == self.producers
            or producer.startswith(f"{self.producers}.")
        )

    def refusal(self, producer: str) -> str:
        return (
            f"the key {self.name} may write as {self.producers} and {self.producers}.*, not as "
            f"{producer}: start the worker as --worker {self.producers}.{producer}"
        )


# --- making ---------------------------------------------------------------------------------------


def new_keys(folder: Path, names: Iterable[str] = ()) -> list[str]:
    """Makes the folder, keys for the server and for `local` where it has none, and a pair for each
    name; returns the names of what was made.

    KeysUnusable, with nothing made, when a name has a key already or none is left to be made.
    """
    absent = [n for n in (SERVER_KEY, LOCAL_KEY) if not any(p.exists() for p in _paths(folder, n))]
    names = [*absent, *names]
    if not names:
        raise KeysUnusable(f"{folder} holds keys already: add a client's with --name NAME")
    for name in names:
        if not _NAME.fullmatch(name) or name in (".", ".."):
            raise KeysUnusable(f"{name!r} is no name for a key: letters, digits and _.:@+- only")
        if names.count(name) > 1:
            raise KeysUnusable(f"the name {name} is given twice")
        for path in _paths(folder, name):
            if path.exists():
                raise KeysUnusable(
                    f"{path} exists and is not overwritten: choose another name, or remove it first"
                )
    for inner in (folder, folder / AUTHORIZED):
        inner.mkdir(mode=0o700, parents=True, exist_ok=True)
        if inner.stat().st_mode & 0o077:
            raise KeysUnusable(f"others may look into {inner}: chmod 700 {inner}")
    for name in names:
        _write_pair(folder, name)
    return names


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    """Of the secret and of the public key."""
    public = folder if name == SERVER_KEY else folder / AUTHORIZED
    return folder / f"{name}.key_secret", public / f"{name}.key"


def _write_pair(folder: Path, name: str) -> None:
    public, secret = (key.decode() for key in zmq.curve_keypair())
    about = {"name": name}
    if name != SERVER_KEY:
        about["producers"] = ANY if name == LOCAL_KEY else name
    banner = _BANNER.format(kind="SECRET", advice=": show it to nobody, keep its mode 0600")
    plain = _BANNER.format(kind="public", advice="")
    secret_path, public_path = _paths(folder, name)
    # The secret first: a public key is authorised only when its owner's secret is on disk.
    _write_new(secret_path, banner + _text(about, public, secret), 0o600)
    _write_new(public_path, plain + _text(about, public), 0o644)


def _text(about: Mapping[str, str], public: str, secret: str = "") -> str:
    lines = ["metadata", *(f"    {key} = {value}" for key, value in about.items()), "curve"]
    lines.append(f'    public-key = "{public}"')
    if secret:
        lines.append(f'    secret-key = "{secret}"')
    return "\n".join(lines) + "\n"


def _write_new(path: Path, text: str, mode: int) -> None:
    """Never over a file that is there, and never readable by others, not even for a moment."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise KeysUnusable(f"{path} exists and is not overwritten") from None
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(handle)


# --- reading --------------------------------------------------------------------------------------


def server_pair(folder: Path) -> Pair:
    """KeysUnusable says what is wrong with the file, and what to do."""
    return _pair(folder / f"{SERVER_KEY}.key_secret")


def client_keys(secret_file: Path) -> ClientKeys:
    """A client's pair and, from beside it, the server's public key. KeysUnusable."""
    beside = secret_file.with_name(f"{SERVER_KEY}.key")
    if not beside.exists():
        raise KeysUnusable(
            f"{beside} is missing: copy {SERVER_KEY}.key from the log server's key folder to there"
        )
    return ClientKeys(secret_file, _pair(secret_file), server_public(beside.parent))


def local_keys(folder: str) -> ClientKeys | None:
    """The keys of what runs beside the log server, by `log.keys`; None without. KeysUnusable."""
    return client_keys(Path(folder).expanduser() / f"{LOCAL_KEY}.key_secret") if folder else None


def server_public(folder: Path) -> bytes:
    """KeysUnusable."""
    path = folder / f"{SERVER_KEY}.key"
    return _key(path, _fields(path), "public-key")


def read_authorized(folder: Path) -> tuple[dict[bytes, Authorized], list[str]]:
    """Clients by public key, and what was passed over and why. KeysUnusable for the whole folder.

    At most MAX_KEYS files are read, in the order of their names.
    """
    paths = authorized_files(folder)
    found: dict[bytes, Authorized] = {}
    problems: list[str] = []
    if len(paths) > MAX_KEYS:
        problems.append(f"{folder / AUTHORIZED} holds more than {MAX_KEYS} keys: the rest is out")
    for path in paths[:MAX_KEYS]:
        try:
            client = _authorized(path)
            if client.public in found:
                other = found[client.public].name
                raise KeysUnusable(f"{path} holds the key of {other} again")
            found[client.public] = client
        except KeysUnusable as error:
            problems.append(str(error))
    return found, problems


def authorized_files(folder: Path) -> list[Path]:
    """The files that say who may come in. KeysUnusable when they cannot be trusted."""
    inner = folder / AUTHORIZED
    try:
        if inner.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise KeysUnusable(f"others may write in {inner}: chmod 700 {inner}")
        return sorted(path for path in inner.iterdir() if path.name.endswith(".key"))
    except OSError as error:
        raise KeysUnusable(
            f"{inner} cannot be read ({error.strerror}): make it with `mmzero keys new {folder}`"
        ) from None


def _authorized(path: Path) -> Authorized:
    name, fields = path.name.removesuffix(".key"), _fields(path)
    if not _NAME.fullmatch(name):
        raise KeysUnusable(f"{path}: letters, digits and _.:@+- only in a key's name")
    producers = fields.get("producers", name)
    if producers != ANY and not _NAME.fullmatch(producers):
        raise KeysUnusable(f"{path}: producers must be {ANY} or the beginning of a name")
    return Authorized(name, _key(path, fields, "public-key"), producers)


def _pair(path: Path) -> Pair:
    fields = _fields(path, secret=True)
    pair = Pair(_key(path, fields, "public-key"), _key(path, fields, "secret-key"))
    if zmq.curve_public(pair.secret) != pair.public:
        raise KeysUnusable(f"{path}: its public key does not belong to its secret key")
    return pair


def _fields(path: Path, *, secret: bool = False) -> dict[str, str]:
    try:
        # Not blocking, for a FIFO would keep whoever opens it.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(_MAX_BYTES + 1) if stat.S_ISREG(status.st_mode) else b""
    except OSError as error:
        raise KeysUnusable(
            f"the key file {path} cannot be read ({error.strerror}): make it with `mmzero keys new`"
        ) from None
    mode = stat.S_IMODE(status.st_mode)
    if secret and mode & 0o077:
        raise KeysUnusable(f"others may read or write {path} (mode {mode:04o}): chmod 600 {path}")
    if mode & 0o022:
        raise KeysUnusable(f"others may write {path} (mode {mode:04o}): chmod 644 {path}")
    if not 0 < len(data) <= _MAX_BYTES:
        raise KeysUnusable(f"{path} is no key file: 1 to {_MAX_BYTES} bytes are expected")
    lines = data.decode("ascii", errors="replace").splitlines()
    found = (_LINE.fullmatch(line) for line in lines)
    return {match[1]: match[2].strip("\"'") for match in found if match is not None}


def _key(path: Path, fields: Mapping[str, str], which: str) -> bytes:
    text = fields.get(which, "").encode()
    try:
        if len(text) == 40 and len(z85.decode(text)) == 32:
            return text
    except (KeyError, struct.error):  # not Z85; its digits are not for an error's text
        pass
    raise KeysUnusable(f"{path}: its {which} is missing or no CURVE key of 40 characters")
