"""Keys on disk and `mmzero keys`: modes, refusals, and no secret in anything that is said."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import zmq
import zmq.auth
from hypothesis import given
from hypothesis import strategies as st

from mmzero_async.transport.errors import KeysUnusable
from mmzero_async.transport.keys import (
    Authorized,
    client_keys,
    new_keys,
    read_authorized,
    server_pair,
)


def mmzero(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mmzero_async.ops.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def secrets_in(folder: Path) -> list[str]:
    return [zmq.auth.load_certificate(path)[1].decode() for path in folder.glob("*.key_secret")]


def test_new_makes_keys_that_nobody_else_reads_in_the_format_of_zeromq(tmp_path):
    folder = tmp_path / "deep" / "keys"
    previous = os.umask(0)  # the most careless of all
    try:
        ran = mmzero("keys", "new", folder, "--name", "alpha", "--workers", 2)
    finally:
        os.umask(previous)
    assert ran.returncode == 0, ran.stderr
    names = ["alpha", "local", "worker-0", "worker-1"]
    assert mode(folder) == mode(folder / "authorized") == 0o700
    assert sorted(p.name for p in folder.glob("*.key_secret")) == [
        *(f"{name}.key_secret" for name in ("alpha", "local", "server", "worker-0", "worker-1")),
    ]
    assert {mode(path) for path in folder.glob("*.key_secret")} == {0o600}
    assert sorted(p.name for p in (folder / "authorized").iterdir()) == [f"{n}.key" for n in names]
    for name in names:
        public, secret = zmq.auth.load_certificate(folder / f"{name}.key_secret")
        assert zmq.curve_public(secret) == public
        beside = zmq.auth.load_certificate(folder / "authorized" / f"{name}.key")
        assert beside == (public, None)
        assert client_keys(folder / f"{name}.key_secret").own.secret == secret
    assert len(set(secrets_in(folder))) == 5


def test_show_lists_public_keys_and_nothing_says_a_secret(tmp_path):
    folder = tmp_path / "keys"
    made = mmzero("keys", "new", folder, "--name", "alpha")
    shown = mmzero("keys", "show", folder)
    told = mmzero("keys", "show", folder, "--json")
    clients = json.loads(told.stdout)["clients"]
    assert [(c["name"], c["producers"]) for c in clients] == [("alpha", "alpha"), ("local", "*")]
    server, _ = zmq.auth.load_certificate(folder / "server.key")
    assert json.loads(told.stdout)["server"] == server.decode()
    for public in (server.decode(), *(client["public"] for client in clients)):
        assert public in shown.stdout
    pair, keys = server_pair(folder), client_keys(folder / "alpha.key_secret")
    said = f"{pair} {keys!r} {keys.own!r}"
    for ran in (made, shown, told):
        assert ran.returncode == 0
        said += ran.stdout + ran.stderr
    assert len(secrets_in(folder)) == 3
    assert not [secret for secret in secrets_in(folder) if secret in said]


def test_new_overwrites_nothing_and_makes_nothing_when_it_refuses(tmp_path):
    folder = tmp_path / "keys"
    assert mmzero("keys", "new", folder, "--name", "alpha").returncode == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for names, why in (
        ([], "--name"),
        (["--name", "beta", "--name", "alpha"], "not overwritten"),
        (["--name", "server"], "not overwritten"),
        (["--name", "local"], "not overwritten"),
        (["--name", "beta", "--name", "beta"], "twice"),
        (["--name", "../beta"], "no name"),
        (["--name", ".."], "no name"),
    ):
        refused = mmzero("keys", "new", folder, *names)
        assert refused.returncode == 1 and why in refused.stderr, names
        assert refused.stderr.startswith("mmzero: ")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert mmzero("keys", "new", folder, "--name", "beta").returncode == 0
    assert before.items() <= {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}.items()


def test_a_new_server_key_is_made_beside_the_clients_when_the_old_one_was_removed(tmp_path):
    folder = tmp_path / "keys"
    new_keys(folder, ["alpha"])
    old = server_pair(folder)
    clients, _ = read_authorized(folder)
    for name in ("server.key", "server.key_secret"):
        (folder / name).unlink()
    assert new_keys(folder) == ["server"]
    assert server_pair(folder) != old
    assert read_authorized(folder) == (clients, [])
    assert client_keys(folder / "alpha.key_secret").server == server_pair(folder).public


def test_a_folder_that_others_look_into_is_not_used_for_new_keys(tmp_path):
    tmp_path.chmod(0o755)
    with pytest.raises(KeysUnusable, match=r"chmod 700"):
        new_keys(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [0o640, 0o604, 0o620, 0o644, 0o610])
def test_a_secret_that_others_can_reach_is_refused_with_what_to_do(tmp_path, wrong):
    folder = tmp_path / "keys"
    new_keys(folder, ["alpha"])
    for path, read in (
        (folder / "alpha.key_secret", lambda: client_keys(folder / "alpha.key_secret")),
        (folder / "server.key_secret", lambda: server_pair(folder)),
    ):
        path.chmod(wrong)
        with pytest.raises(KeysUnusable, match=rf"{path}.*{wrong:04o}.*chmod 600 {path}"):
            read()
        path.chmod(0o600)
        assert read()


BROKEN = {
    "empty": b"",
    "endless": b"#" * 100_000,
    "no key": b"curve\n",
    "half a key": b'    public-key = "abc"\n',
    "no Z85": b'    public-key = "' + b"~" * 40 + b'"\n',
    "too large a number": b'    public-key = "' + b"#" * 40 + b'"\n',
    "no text": bytes(range(256)),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_key_file_is_named_and_takes_no_other_with_it(tmp_path, what):
    folder = tmp_path / "keys"
    new_keys(folder, ["alpha", "beta"])
    broken = folder / "authorized" / "beta.key"
    broken.write_bytes(BROKEN[what])
    found, problems = read_authorized(folder)
    assert sorted(client.name for client in found.values()) == ["alpha", "local"]
    assert len(problems) == 1 and str(broken) in problems[0]
    shown = mmzero("keys", "show", folder)
    assert shown.returncode == 1 and str(broken) in shown.stdout.replace("\n", "")
    secret = folder / "alpha.key_secret"
    secret.write_bytes(BROKEN[what])
    with pytest.raises(KeysUnusable, match=str(secret)):
        client_keys(secret)


def test_a_secret_of_another_key_is_refused_without_saying_it(tmp_path):
    folder = tmp_path / "keys"
    new_keys(folder, ["alpha"])
    path = folder / "alpha.key_secret"
    _, other = zmq.curve_keypair()
    _, own = zmq.auth.load_certificate(path)
    path.write_bytes(path.read_bytes().replace(own, other))
    with pytest.raises(KeysUnusable, match="does not belong") as told:
        client_keys(path)
    assert other.decode() not in str(told.value)


def test_what_is_missing_is_named_with_what_to_do(tmp_path):
    folder = tmp_path / "keys"
    with pytest.raises(KeysUnusable, match="mmzero keys new"):
        server_pair(folder)
    with pytest.raises(KeysUnusable, match="mmzero keys new"):
        read_authorized(folder)
    new_keys(folder, ["alpha"])
    (folder / "server.key").unlink()
    with pytest.raises(KeysUnusable, match=r"copy server\.key"):
        client_keys(folder / "alpha.key_secret")


def test_one_key_under_two_names_is_authorised_once_and_a_fifo_keeps_nobody(tmp_path):
    folder = tmp_path / "keys"
    new_keys(folder, ["alpha"])
    inner = folder / "authorized"
    (inner / "zeta.key").write_bytes((inner / "alpha.key").read_bytes())
    os.mkfifo(inner / "fifo.key")
    found, problems = read_authorized(folder)
    assert sorted(client.name for client in found.values()) == ["alpha", "local"]
    assert len(problems) == 2


NAMES = st.from_regex(r"[A-Za-z0-9_:@+-]{1,8}(\.[A-Za-z0-9_:@+-]{1,8}){0,3}", fullmatch=True)


@given(NAMES, NAMES)
def test_a_producer_belongs_to_a_key_by_whole_words_of_its_name(own, producer):
    words = own.split(".")
    expected = producer.split(".")[: len(words)] == words
    assert Authorized("k", b"", own).may_write_as(producer) == expected
    assert Authorized("k", b"", "*").may_write_as(producer)
