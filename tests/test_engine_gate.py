"""The gate before an engine that other hosts reach: over real HTTP, before a fake engine."""

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from fake_engine import FakeEngine
from fake_weight_engine import FakeWeightEngine
from hypothesis import given
from hypothesis import strategies as st

from mmzero_async.config import EngineConfig
from mmzero_async.engines import gate
from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.errors import (
    EngineKeyUnusable,
    EngineRejected,
    EngineUnavailable,
    PublishFailed,
)
from mmzero_async.engines.launch import Distribution, Placement, launch
from mmzero_async.engines.publisher import AdapterPublisher
from mmzero_async.engines.secret import new_secret, read_secret
from mmzero_async.engines.weight_client import WeightClient
from mmzero_async.engines.weight_publisher import WeightPublisher
from mmzero_async.ports import free_port
from mmzero_async.schemas.events import ROLES

uvicorn = pytest.importorskip("uvicorn", reason="uvicorn comes with vLLM")
FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"\0" * 3_000_000}


@contextlib.asynccontextmanager
async def gated(
    tmp_path: Path, behind: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[str, str]]:
    """A server whose app passes everything on to a fake engine; its URL and its key."""
    secret = tmp_path / "engine.key_secret"
    if not secret.exists():
        new_secret(secret)
    monkeypatch.setenv(gate.KEY_FILE, str(secret))
    monkeypatch.setenv(gate.DEPOT, str(tmp_path / "depot"))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = await gate._body(receive)
        headers = {"content-type": "application/json"}
        url = behind.url + scope["path"]
        async with (
            aiohttp.ClientSession() as session,
            session.request(scope["method"], url, data=body, headers=headers) as answer,
        ):
            said, status = await answer.read(), answer.status
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": said})

    port = free_port("127.0.0.1", 0, key="engine.port")
    config = uvicorn.Config(gate.Gate(app), port=port, lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn tells nobody
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}", read_secret(secret)
    finally:
        server.should_exit = True
        await serving


async def test_who_has_the_key_comes_in_and_nobody_else_but_to_ask_for_health(
    tmp_path, monkeypatch
):
    async with FakeEngine() as engine, gated(tmp_path, engine, monkeypatch) as (url, key):
        async with VllmClient(url, key=key) as client:
            assert await client.policies() == ["base"]
            assert await client.health()
        for wrong in ("", key[:-1], key + "x", "ü" * 40):
            async with aiohttp.ClientSession() as session:
                headers = {"authorization": f"Bearer {wrong}"} if wrong else {}
                for path in ("/v1/models", "/version", "/metrics", "/tokenize", gate.PREFIX):
                    async with session.get(url + path, headers=headers) as answer:
                        assert answer.status == 401
                        assert "--engine-key" in json.loads(await answer.read())["error"]["message"]
                async with session.get(f"{url}/health", headers=headers) as answer:
                    assert answer.status == 200
        async with VllmClient(url) as client:
            with pytest.raises(EngineUnavailable, match="wants a key"):
                await client.policies()


def checkpoint(folder: Path, content: bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_bytes(b"{}")
    (folder / "adapter_model.safetensors").write_bytes(content)
    (folder / "optimizer.safetensors").write_bytes(b"stays where it is")
    return folder


def files_in(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def inodes(folder: Path) -> dict[str, int]:
    """Of all files below: another number is another file."""
    return {str(path): path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


async def test_a_policy_from_another_host_is_served_from_the_depot(tmp_path, monkeypatch):
    async with FakeEngine() as engine, gated(tmp_path, engine, monkeypatch) as (url, key):  # noqa: SIM117
        async with VllmClient(url, key=key) as client:
            publisher = AdapterPublisher(client, hand_over=True)
            for version in range(8):
                path = checkpoint(tmp_path / "learner" / str(version), bytes([version]) * 5_000_000)
                name = await publisher.publish("solver", version, path)
                folder = Path(engine.adapters[name])
                assert folder.is_relative_to(tmp_path / "depot")
                kept = files_in(folder)
                assert kept.keys() == {"adapter_config.json", "adapter_model.safetensors"}
                assert kept["adapter_model.safetensors"] == bytes([version]) * 5_000_000
            assert sorted(engine.adapters) == ["solver@6", "solver@7"]
            assert len(list((tmp_path / "depot" / "solver").iterdir())) == gate.KEEP
            # An engine that was restarted has lost its adapters, not its depot.
            engine.adapters.clear()
            assert await publisher.publish("solver", 7, path) == "solver@7"
            with pytest.raises(PublishFailed, match="holds no adapter"):
                await publisher.publish("coder", 1, tmp_path / "absent")


async def test_the_depot_refuses_what_is_not_what_it_says(tmp_path, monkeypatch):
    digest = gate.policy_digest(FILES)
    packed = msgspec.msgpack.encode(FILES)
    other = {"../../evil": b"x"}
    cases = [
        (f"solver/1/{'0' * 64}", packed, 400, "digest"),
        (f"solver/1/{digest}", packed[:-1], 400, "no policy"),
        (f"solver/1/{gate.policy_digest(other)}", msgspec.msgpack.encode(other), 400, "no policy"),
        (f"solver/1/{gate.policy_digest({})}", msgspec.msgpack.encode({}), 400, "no policy"),
        (f"nobody/1/{digest}", packed, 400, "role/version/digest"),
        (f"solver/../../{digest}", packed, 401, ""),
        (f"solver/..%2f..%2f/{digest}", packed, 400, "role/version/digest"),
    ]
    async with FakeEngine() as engine, gated(tmp_path, engine, monkeypatch) as (url, key):
        async with aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session:
            for name, body, status, words in cases:
                async with session.put(url + gate.PREFIX + name, data=body) as answer:
                    said = await answer.text()
                    assert words in said
                    assert answer.status == status or words == "", said
        monkeypatch.setattr(gate, "MAX_BYTES", 1000)
        async with VllmClient(url, key=key) as client:
            with pytest.raises(EngineRejected, match="413"):
                await client.hand_over("solver", 1, FILES)
        left = [path for path in (tmp_path / "depot").rglob("*") if path.is_file()]
        assert left == []


async def test_full_weights_from_another_host_are_read_from_the_depot(tmp_path, monkeypatch):
    async with (
        FakeWeightEngine() as engine,
        gated(tmp_path, engine, monkeypatch) as (url, key),
        WeightClient(url, key=key) as client,
    ):
        publisher = WeightPublisher({role: [client] for role in ROLES}, hand_over=True)
        for version in range(4):
            content = bytes([version]) * (gate._PIECE * 2 + 5)
            path = tmp_path / "learner" / str(version)
            path.mkdir(parents=True)
            (path / "model.safetensors").write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            assert await publisher.publish("solver", version, path, digest) == "solver"
            there = Path(engine.path)
            assert there.is_relative_to(tmp_path / "depot")
            assert files_in(there.parent) == {"model.safetensors": content}
            assert (engine.number, engine.loaded) == (str(version), digest)
        kept = list((tmp_path / "depot" / "weights" / "solver").iterdir())
        assert len(kept) == gate.KEEP_WEIGHTS
        # An engine that was started anew has lost its weights, not its depot.
        before, engine.number = inodes(tmp_path / "depot"), "default"
        await publisher.publish("solver", 3, path, digest)
        assert engine.number == "3" and inodes(tmp_path / "depot") == before
        # What is not what it says reaches no engine, and leaves the old version served.
        calls = len(engine.calls)
        with pytest.raises(PublishFailed, match="do not have the digest"):
            await publisher.publish("solver", 4, path, "0" * 64)
        monkeypatch.setattr(gate, "MAX_WEIGHTS", 1000)
        with pytest.raises(PublishFailed, match="413"):
            await publisher.publish("coder", 1, path, digest)
        assert len(engine.calls) == calls and await publisher.serves("solver", 3)
        assert inodes(tmp_path / "depot") == before


@given(st.dictionaries(st.text(max_size=5), st.binary(max_size=5), max_size=3))
def test_a_digest_is_of_names_and_contents_in_whatever_order(files):
    turned = dict(reversed(files.items()))
    assert gate.policy_digest(files) == gate.policy_digest(turned)
    for name in files:
        changed = files | {name: files[name] + b"x"}
        assert gate.policy_digest(changed) != gate.policy_digest(files)


def test_a_key_is_a_file_that_nobody_else_reads(tmp_path):
    path = tmp_path / "engine.key_secret"
    new_secret(path)
    assert path.stat().st_mode & 0o777 == 0o600 and len(read_secret(path)) >= 32
    with pytest.raises(FileExistsError):
        new_secret(path)
    path.chmod(0o640)
    with pytest.raises(EngineKeyUnusable, match=f"chmod 600 {path}"):
        read_secret(path)
    path.chmod(0o600)
    path.write_text("short\n")
    with pytest.raises(EngineKeyUnusable, match="holds no engine's key"):
        read_secret(path)
    with pytest.raises(EngineKeyUnusable, match="cannot be read"):
        read_secret(tmp_path / "absent")


def test_an_engine_for_other_hosts_is_started_behind_its_gate_and_over_its_gpus(tmp_path):
    secret = tmp_path / "engine.key_secret"
    new_secret(secret)
    placement = Placement(2, 3, key_file=secret, depot=tmp_path / "depot")
    gpu = Distribution("vllm", "0.32.0", cpu=False)
    launched = launch(
        tmp_path, EngineConfig(), host="h", port=1, distribution=gpu, placement=placement
    )
    line = " ".join(launched.command)
    assert "--tensor-parallel-size 2" in line and "--data-parallel-size 3" in line
    assert "--middleware mmzero_async.engines.gate.Gate" in line
    told = line + "".join(f"{k}={v}" for k, v in launched.environment.items())
    assert str(secret) in told and read_secret(secret) not in told
    alone = launch(
        tmp_path,
        EngineConfig(),
        host="h",
        port=1,
        distribution=gpu,
        role="solver",
        placement=placement,
    )
    loaded = [alone.command[i + 1] for i, w in enumerate(alone.command) if w == "--middleware"]
    assert loaded == [
        *("mmzero_async.engines.engine_spans.PassThrough", "mmzero_async.engines.gate.Gate")
    ]
    plain = launch(tmp_path, EngineConfig(), host="h", port=1, distribution=gpu)
    assert "--middleware" not in plain.command and os.environ.get(gate.KEY_FILE) is None
