"""A run's folder: what lies where, made at the first start, checked at every other.

config.json   the whole configuration      log/          the event log
base_model    path of the base model       checkpoints/  policy versions
log.url, log.read.url, engine.url          logs/         JSON lines of every process
             addresses, now
"""

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import msgspec

from mmzero_async.config import Config, ConfigError, from_json
from mmzero_async.engines.model import check_model
from mmzero_async.filelock import FileLock, LockHeld
from mmzero_async.schemas.events import ROLES


@dataclass(frozen=True, slots=True)
class RunDir:
    path: Path
    config: Config
    base_model: Path
    lock: FileLock  # nobody else drives the run while it is held


def open_run(path: Path, config: Config) -> RunDir:
    """Makes the folder, or goes on with it under the configuration that it was made with.

    ConfigError when it was made with another one (a log is not trained on under two) or is being
    driven by another process; ModelUnusable for a base model that cannot be served.
    """
    base = base_model_folder(config)
    if not (path / "config.json").exists():
        _check_start(config)
    lock = take_run(path, config)
    if not (path / "base_model").exists():
        (path / "base_model").write_text(str(base))
    return RunDir(path, config, base, lock)


def take_run(path: Path, config: Config) -> FileLock:
    """The folder and its configuration alone, for who drives a run whose files lie elsewhere.
    ConfigError as for `open_run`."""
    try:
        lock = FileLock(path / "run.lock")
    except LockHeld as error:
        raise ConfigError(
            f"{path} is being driven by process {error.holder}: look with `mmzero status {path}`, "
            "stop that process, or name another folder with --run"
        ) from None
    stored = path / "config.json"
    if stored.exists():
        made_with = from_json(stored.read_text())
        check_same(str(path), made_with, config, "name another folder with --run")
    # Addresses and time limits may change from one start to the next.
    stored.write_text(config.to_json())
    return lock


def check_same(what: str, made_with: Config, config: Config, instead: str) -> None:
    """ConfigError where a run would go on under a configuration that it was not started with."""
    if _essence(made_with) != _essence(config):
        raise ConfigError(
            f"{what} was started with configuration {made_with.digest()}, this is "
            f"{config.digest()}: {instead}, or leave the overrides out"
        )


def _check_start(config: Config) -> None:
    """Before an engine is started for nothing; the learner looks closer."""
    for role in ROLES:
        place = config.schedule.start.of(role)
        if place and not Path(place).is_dir():
            raise ConfigError(
                f"schedule.start.{role}: there is no folder {Path(place).absolute()}: name a "
                f"run's or a version's, e.g. runs/demo/checkpoints/{role}/000020"
            )


def _essence(config: Config) -> str:
    """What must not change within a run: all but limits of time, addresses and numbers of hands."""
    tree = msgspec.to_builtins(config)
    for section, keys in {
        "run": ("max_minutes", "max_steps", "evaluate"),
        "log": tuple(tree["log"]),
        "engine": ("host", "port", "url", "start_seconds", "request_seconds", "threads"),
        "workers": tuple(tree["workers"]),
        "eval": tuple(tree["eval"]),
        "logs": tuple(tree["logs"]),
        "metrics": tuple(tree["metrics"]),
        "tracker": tuple(tree["tracker"]),
    }.items():
        for key in keys:
            tree[section].pop(key)
    return msgspec.json.encode(tree, order="sorted").decode()


def base_model_folder(config: Config, folder: str = "") -> Path:
    """The base model's folder, looked at before anything starts; `folder` is where it lies here,
    if not where the configuration says. ModelUnusable."""
    where = folder or config.run.base_model
    if where == "seedling":
        return check_model(Path(str(resources.files("mmzero_async.seedling").joinpath("weights"))))
    return check_model(Path(where))


def weights_digest(folder: Path) -> str:
    """Sha-256 (16 hex digits) over names and sizes of all files and the bytes of the small ones.

    Hashing tens of gigabytes at every start would take minutes; configuration, tokenizer and the
    first and last MiB of each large file tell models apart.
    """
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(folder)} {size}\n".encode())
        with file.open("rb") as handle:
            digest.update(handle.read(1 << 20))
            if size > 2 << 20:
                handle.seek(-(1 << 20), 2)
                digest.update(handle.read())
    return digest.hexdigest()[:16]
