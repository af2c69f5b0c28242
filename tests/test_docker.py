"""The images' files: linted, small where they say so. Docker itself does not run here."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from schedulers import lint

from mmzero_async.ops.cluster import folder
from mmzero_async.ops.cluster.render import pods

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "ops" / "docker"
KINDS = ("log", "worker", "engine", "learner")

# Imports a module where everything that the small images lack is missing.
BARE = """
import importlib, sys
heavy = set("torch transformers trl peft vllm sklearn scipy pyarrow safetensors asyncssh".split())
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in heavy:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_an_images_file_is_linted_runs_as_the_pods_user_and_names_no_registry(kind):
    path = DOCKER / f"{kind}.Dockerfile"
    assert lint("hadolint", path) == ""
    text = path.read_text()
    assert re.search(rf"^USER {pods.USER}:{pods.USER}$", text, re.MULTILINE)
    assert pods.PYTHON in text and pods.ROOT in text
    assert not re.search(r"^FROM [a-z0-9.-]+\.[a-z]+/", text, re.MULTILINE)
    assert "index-url" not in text


def test_the_linter_can_find_something(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN cd /x && sudo ls\n")
    assert "DL3006" in lint("hadolint", tmp_path / "Dockerfile")


def test_the_small_images_have_all_that_their_processes_import():
    modules = [
        f"mmzero_async.{name}"
        for name in (
            *("workers.log_server", "workers.log_reader", "workers.proposer", "workers.coder"),
            *("workers.renderer", "workers.solver"),
            *("ops.cluster.folder", "ops.cluster.conductor", "ops.evaluate"),
        )
    ]
    command = [sys.executable, "-c", BARE, *modules]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    learner = subprocess.run(
        [sys.executable, "-c", BARE, "mmzero_async.workers.learner"], capture_output=True, text=True
    )
    assert learner.returncode != 0 and "ModuleNotFoundError" in learner.stderr


def test_their_requirements_are_the_projects_own():
    ran = subprocess.run([sys.executable, DOCKER / "light.py"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    project = (ROOT / "pyproject.toml").read_text()
    assert len(lines) > 10 and all(f'"{line}"' in project for line in lines)
    assert not [line for line in lines if line.startswith(("torch", "transformers", "vllm"))]


def test_a_runs_folder_has_keys_that_nobody_else_reads_and_forgets_who_was_revoked(tmp_path):
    from mmzero_async.config import load

    config = tmp_path / "config.json"
    config.write_text(load().to_json())
    keys, authorized, run = (tmp_path / name for name in ("from", "public", "demo"))
    for made in (keys, authorized):
        made.mkdir()
    (keys / "alpha.key_secret").write_text("secret")
    (keys / "alpha.key_secret").chmod(0o644)  # as a volume of Kubernetes has it
    (keys / "server.key").write_text("public")
    (authorized / "alpha.key").write_text("public")
    for names in (["alpha", "beta"], ["alpha"]):
        for name in ("alpha", "beta"):
            (authorized / f"{name}.key").unlink(missing_ok=True)
        for name in names:
            (authorized / f"{name}.key").write_text("public")
        folder.prepare(run, config, "", keys, authorized)
        assert sorted(p.stem for p in (run / "keys" / "authorized").iterdir()) == names
    assert (run / "keys" / "alpha.key_secret").stat().st_mode & 0o777 == 0o600
    assert (run / "keys").stat().st_mode & 0o777 == 0o700
    assert (run / "config.json").read_text() == config.read_text()
    assert (Path((run / "base_model").read_text()) / "config.json").exists()
    assert (run / "logs").is_dir()


def test_a_folder_and_a_conductor_that_cannot_be_say_why_and_that_it_is_hopeless(tmp_path):
    command = [sys.executable, "-m", "mmzero_async.ops.cluster.folder", "--run-dir", tmp_path / "r"]
    ran = subprocess.run(
        [*command, "--config", tmp_path / "absent.json"], capture_output=True, text=True
    )
    assert ran.returncode == os.EX_CONFIG and "absent.json" in ran.stderr
    from mmzero_async.config import load

    (tmp_path / "r").mkdir(exist_ok=True)
    (tmp_path / "r" / "config.json").write_text(load().to_json())
    (tmp_path / "r" / "logs").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "mmzero_async.ops.cluster.conductor"]
    command += ["--run-dir", tmp_path / "r", "--key", tmp_path / "absent.key_secret"]
    for flag in ("--log-url", "--read-url"):
        command += [flag, "tcp://127.0.0.1:9"]
    command += ["--engine-url", "http://127.0.0.1:9"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == os.EX_CONFIG and "server.key is missing" in ran.stderr
